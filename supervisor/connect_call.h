// connect and bind: decoded from one copy of the address, performed on the agent's own socket.
//
// The sandbox's network namespace routes every address to itself, so nothing the agent does with a
// socket can leave. A connection that is allowed out is made twice and joined: outside by us, from
// the host, and inside from the agent's own socket to a listener of ours at the very address it
// asked for. The agent's socket keeps its identity: dups, epoll entries, options, getpeername.
//
//   loopback, abstract and private unix names   performed inside; the peer is the same agent
//   TCP                                          judged by name (see name_table.h) or address
//   unix socket files of the host                judged by path; bytes are relayed, descriptors not
//   UDP                                          performed inside: it sends nothing. Datagrams are
//                                                judged where they arrive (datagrams.h)
// Runs on the blocking pool: a connect may wait.
#pragma once

#include <mutex>
#include <set>
#include <string>

#include "sandbox/launch.h"
#include "supervisor/blocking.h"
#include "supervisor/name_table.h"
#include "supervisor/pinned_connect.h"
#include "supervisor/relay.h"
#include "supervisor/trap.h"

namespace certgate::supervisor {

// How long a non-blocking connect is held to learn the host's answer, before it goes on
// optimistically.
inline constexpr int kNonBlockingWaitMs = 300;
inline constexpr int kConnectTimeoutMs = 130'000;  // about what TCP itself gives up after
inline constexpr size_t kMaxResumed = 4096;

class NetCalls {
 public:
  NetCalls(Trap& trap, BlockingPool& pool, const sandbox::Sandbox& box, NameTable& names,
           Relay& relay);
  void handle(const sandbox::TrappedCall& call);  // connect and bind, on the notify thread
  Result<sandbox::UniqueFd> inside_socket(int domain, int type);

 private:
  void connect(const sandbox::TrappedCall& call);
  void bind(const sandbox::TrappedCall& call);
  int connect_again(const PinnedConnect& pin);
  int remember_interrupted(const PinnedConnect& pin);
  int perform_inside(const PinnedConnect& pin) const;
  int perform_outside(const sandbox::TrappedCall& call, const Judged& judged, PinnedConnect& pin);
  int bind_unix(const sandbox::TrappedCall& call, const PinnedConnect& pin);
  int bind_by_name(const PinnedConnect& pin, const sandbox::UniqueFd& base, unsigned mask);
  int connect_tcp(const sandbox::TrappedCall& call, const kernel::Rule& rule,
                  const PinnedConnect& pin, sandbox::UniqueFd& host);
  int join_inside(const PinnedConnect& pin, sandbox::UniqueFd& accepted);
  int join_tcp(const PinnedConnect& pin, sandbox::UniqueFd& listener);
  int join_unix(const PinnedConnect& pin, sandbox::UniqueFd& listener);

  Trap& trap_;
  BlockingPool& pool_;
  const sandbox::Sandbox& box_;
  NameTable& names_;
  Relay& relay_;
  const ConnectDecoder decoder_;
  std::mutex inside_mutex_;  // one socket request, one on-demand listener at a time
  std::mutex resumed_mutex_;
  std::set<uint64_t> resumed_;  // inodes of sockets whose connect a signal interrupted
};

}  // namespace certgate::supervisor
