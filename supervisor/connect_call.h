// connect and bind: decoded from one copy of the address, performed on the agent's own socket.
//
// The sandbox's network namespace routes every address to itself, so nothing the agent does with a
// socket can leave. A connection that is allowed out is made twice and joined: outside by us, from
// the host, and inside from the agent's own socket to a listener of ours at the very address it
// asked for. The agent's socket keeps its identity: dups, epoll entries, options, getpeername.
//
//   loopback, abstract and private unix names   performed inside; the peer is the same agent
//   UDP                                          performed inside; a probe that sends nothing out
//   everything else                              judged by name (see name_table.h) or address
// Runs on the blocking pool: a connect may wait.
#pragma once

#include <mutex>
#include <string>

#include "sandbox/launch.h"
#include "supervisor/address.h"
#include "supervisor/blocking.h"
#include "supervisor/name_table.h"
#include "supervisor/relay.h"
#include "supervisor/trap.h"

namespace certgate::supervisor {

// How long a non-blocking connect is held to learn the host's answer, before it goes on
// optimistically.
inline constexpr int kNonBlockingWaitMs = 300;
inline constexpr int kConnectTimeoutMs = 130'000;  // about what TCP itself gives up after

struct PinnedConnect {
  sandbox::UniqueFd socket;  // the agent's own socket object
  int domain = 0, type = 0;
  bool non_blocking = false;
  sockaddr_storage raw{};  // the one copy of the address
  socklen_t raw_size = 0;
  kernel::ConnectEffect effect_;  // normalised
  sandbox::UniqueFd node;         // unix path: the socket file, O_PATH
  const kernel::ConnectEffect& effect() const { return effect_; }
};

class NetCalls {
 public:
  NetCalls(Trap& trap, BlockingPool& pool, const sandbox::Sandbox& box, NameTable& names,
           Relay& relay);
  void handle(const sandbox::TrappedCall& call);  // connect and bind, on the notify thread
  Result<sandbox::UniqueFd> inside_socket(int domain, int type);

 private:
  void connect(const sandbox::TrappedCall& call);
  void bind(const sandbox::TrappedCall& call);
  int pin_socket(const sandbox::TrappedCall& call, PinnedConnect& pin) const;
  int normalise(const sandbox::TrappedCall& call, PinnedConnect& pin) const;
  int normalise_unix(const sandbox::TrappedCall& call, PinnedConnect& pin) const;
  int perform_inside(const PinnedConnect& pin) const;
  int perform_outside(const sandbox::TrappedCall& call, const Judged& judged, PinnedConnect& pin);
  int bind_unix(const sandbox::TrappedCall& call, const PinnedConnect& pin);
  Result<std::vector<Endpoint>> targets(const kernel::Rule& rule, const PinnedConnect& pin) const;
  int connect_host(uint64_t id, const std::vector<Endpoint>& targets, int wait_ms,
                   sandbox::UniqueFd& out) const;
  int join_inside(const PinnedConnect& pin, sandbox::UniqueFd& accepted);

  Trap& trap_;
  BlockingPool& pool_;
  const sandbox::Sandbox& box_;
  NameTable& names_;
  Relay& relay_;
  bool thread_pidfds_ = false;  // PIDFD_THREAD (Linux 6.9)
  std::mutex inside_mutex_;     // one socket request, one on-demand listener at a time
};

}  // namespace certgate::supervisor
