// Self-test: before the agent's program starts, its first process attempts what must not work.
//
//   CG_TRY(Sandbox box, launch(spec));
//   CG_CHECK(run_self_test(box, listener.fd(), order, serve_one));   // answers with no rules at
//   all CG_CHECK(release(box));                                          // ends the phase for good
//
// The attempts are raw system calls in the very process that will become the agent, under its very
// filter: an open, an exec and a connect that would succeed if nobody judged them, calls that the
// filter closes, and both with dirt in the high halves of int arguments. Each must fail with its
// one errno. Whatever else happens (success, another errno, silence) is an error: do not release.
//
// First process:  waiting → (order → attempts → waiting)* → released → the agent's program
// Nothing inside leads back: the socket that takes orders is closed by the exec.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "kernel/result.h"
#include "sandbox/launch.h"

namespace certgate::sandbox {

inline constexpr int kSelfTestMs = 10'000;  // for each attempt

struct SelfTestOrder {
  char program[64] = {};  // exists inside, and could be executed
  uint16_t port = 0;      // something listens there, at every IPv4 address inside
};

struct SelfTestStep {
  const char* what;  // "an open of the root directory"
  int error;         // the only right answer
  bool judged;       // by the supervisor; else closed by the filter
};
std::span<const SelfTestStep> self_test_steps();

// `serve_one` is called when a notification waits at `listener`. The error names the attempt.
Status run_self_test(const Sandbox& box, int listener, const SelfTestOrder& order,
                     const std::function<void()>& serve_one, int limit_ms = kSelfTestMs);

// In the agent's first process, after clone(): performs orders until the release. False: the caller
// has gone.
bool await_release(int gate);

}  // namespace certgate::sandbox
