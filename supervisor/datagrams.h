// Datagrams: UDP to destinations that a rule names, judged where they arrive.
//
// A datagram may be sent by sendto, sendmsg, sendmmsg or write on a connected socket, with the
// destination in memory. None of these is trapped: the sandbox's namespace routes every address to
// itself, so a datagram can only reach a socket inside. For each UDP port that a rule names we hold
// such a socket, on every address; what arrives there is judged by where it was going, and carried
// on by the host. Everything else finds nobody (ICMP port unreachable), as on a host without a
// network. Whichever call sent it, the record is about the datagram; the sender's pid is not known.
//
// One conversation = (source, destination) inside:
//   judged → resolving (names, on a worker) → open → gone (idle for kIdleSeconds, or cut by a
//   raise)
// While it is open further datagrams need no new decision, as bytes of a TCP connection do not.
#pragma once

#include <memory>

#include "supervisor/connect_call.h"
#include "supervisor/name_table.h"
#include "supervisor/session.h"

namespace boost::asio {
class io_context;
}

namespace certgate::supervisor {

inline constexpr size_t kMaxConversations = 1024;
inline constexpr size_t kMaxWaitingBytes = 4 << 20;  // of all, while their names resolve
inline constexpr int kIdleSeconds = 60;
inline constexpr int kRefusedSeconds = 10;  // a refused destination is recorded once in this time

class Datagrams {
 public:
  // Opens a socket inside for each UDP port of the policy; all work is done on the io thread.
  static Result<Datagrams> start(boost::asio::io_context& io, NetCalls& net, const NameTable& names,
                                 Session& session);
  Datagrams(Datagrams&&) noexcept;
  ~Datagrams();

 private:
  struct Impl;
  explicit Datagrams(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace certgate::supervisor
