// Own filter: what a process of certgate's own may still ask of the kernel, for all its threads.
//
//   CG_TRY(const auto program, build_own_filter({.tests = kTests, .allowed = kMine}));
//   CG_CHECK(install_on_all_threads(program));       // for good; no_new_privs comes with it
//
// This is not the agent's filter (filter.h): nothing is forwarded, and there is no listener.
//   kAllow   the kernel decides        kRefuse  EPERM: not needed, harmless to ask
//   kAbsent  ENOSYS: libc has another way (clone3)
//   kKill    only code that is not ours asks for this: the process ends (SIGSYS), and with it the
//            agent; the kernel's audit log names the call
// Tests of argument values come first, in order; then compromise_calls(); then ordinary_calls() and
// the allowed ones; what is left is refused. Written straight as BPF, since it is built at every
// start; from constants, so that the tests' proof of the result (prove_own_filter) holds for all.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernel/result.h"

namespace certgate::sandbox {

enum class OwnAnswer : uint8_t { kAllow, kRefuse, kAbsent, kKill };

// The answer when the low half of an argument, masked, has this value.
struct OwnTest {
  int nr;
  unsigned arg;
  uint32_t mask;
  uint32_t value;
  OwnAnswer answer;
};

struct OwnCalls {
  std::span<const OwnTest> tests;
  std::span<const int> allowed;  // beside ordinary_calls()
};

// Memory, threads, time, descriptors, files: what any program of ours needs.
std::span<const int> ordinary_calls();
// Exec, new processes, namespaces, mounts, other processes' memory, credentials, kernel code.
std::span<const int> compromise_calls();
// Of ordinary calls: no new executable memory, threads but no processes, never dumpable again,
// nothing typed into a terminal.
std::span<const OwnTest> ordinary_tests();

// A call that is both allowed and in compromise_calls() is an error.
Result<std::vector<sock_filter>> build_own_filter(const OwnCalls& calls);

// Says with the evaluator (bpf_eval.h) whether a program answers as the lists say, for every call.
Status prove_own_filter(const OwnCalls& calls, std::span<const sock_filter> program);

// What the program answers, SECCOMP_RET_*.
uint32_t own_action(OwnAnswer answer);

// no_new_privs, then the filter on every thread of this process. After an error the caller must
// end: some attribute may be set already.
Status install_on_all_threads(std::span<const sock_filter> program);

// kEndOfRun: for a parent that must end a child of another uid (CAP_KILL) and remove its cgroups,
// from directories that nobody may write to (CAP_DAC_OVERRIDE); where they were there.
enum class Keep : uint8_t { kNothing, kEndOfRun };

// No core dump, not dumpable, no capability in any set that this process may still change, but what
// is kept. Before threads are started: capabilities belong to a thread.
Status give_up_privileges(Keep keep = Keep::kNothing);

}  // namespace certgate::sandbox
