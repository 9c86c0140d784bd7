#include "supervisor/connect_call.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>

#include "kernel/mutant.h"
#include "sandbox/remote.h"
#include "supervisor/host_connect.h"
#include "supervisor/report.h"

namespace certgate::supervisor {
namespace {

using sandbox::TrappedCall;
using sandbox::UniqueFd;

constexpr int kInsideWaitMs = 2000;
constexpr int kInterrupted = -1;  // a signal came; the connection goes on

// A socket that already has a connection or is making one: connect() on it has no new effect.
bool connect_under_way(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return false;
  return info.tcpi_state != TCP_CLOSE;
}

int plain_connect(int fd, const sockaddr_storage& to, socklen_t size) {
  // NOLINTNEXTLINE: the socket API's own cast
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&to), size) == 0 ? 0 : errno;
}

// The pool interrupts a worker while a signal waits for the caller. What takes place between us and
// the agent's socket takes no time, and half of it done would be a connection that nobody has.
bool ready(int fd, short events) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(kInsideWaitMs);
  for (;;) {
    pollfd p{fd, events, 0};
    const int n = ::poll(&p, 1, kConnectStepMs);
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return false;
    if (std::chrono::steady_clock::now() >= until) return false;
  }
}

int connect_to_listener(int fd, const sockaddr_storage& to, socklen_t size) {
  const int error = plain_connect(fd, to, size);
  if (error != EINTR) return error;
  return ready(fd, POLLOUT) ? socket_option(fd, SO_ERROR) : ETIMEDOUT;
}

int accept_one(int listener) {
  int fd = -1;
  do {
    fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

int connect_node(int fd, int node) {
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  std::snprintf(un.sun_path, sizeof un.sun_path, "/proc/self/fd/%d", node);
  sockaddr_storage to{};
  std::memcpy(&to, &un, sizeof un);
  return plain_connect(fd, to, sizeof un);
}

}  // namespace

NetCalls::NetCalls(Trap& trap, BlockingPool& pool, const sandbox::Sandbox& box, NameTable& names,
                   Relay& relay)
    : trap_(trap), pool_(pool), box_(box), names_(names), relay_(relay), decoder_(trap, names) {}

void NetCalls::handle(const TrappedCall& call) {
  if (!pool_.try_run(call, [this, call] { call.nr == SYS_bind ? bind(call) : connect(call); })) {
    trap_.listener.refuse(call.id, EAGAIN);
  }
}

Result<UniqueFd> NetCalls::inside_socket(int domain, int type) {
  const std::lock_guard lock(inside_mutex_);
  return sandbox::inside_socket(box_, domain, type);
}

// connect() on a socket that already has a connection or is making one has no new effect. Where a
// signal had interrupted the first attempt, the second one waits for it and succeeds.
int NetCalls::connect_again(const PinnedConnect& pin) {
  struct stat s {};
  if (::fstat(pin.socket.get(), &s) == 0) {
    const std::lock_guard lock(resumed_mutex_);
    if (resumed_.erase(s.st_ino) != 0) return 0;
  }
  return plain_connect(pin.socket.get(), pin.raw, pin.raw_size);
}

void NetCalls::connect(const TrappedCall& call) {
  PinnedConnect pin;
  int error = decoder_.socket(call, pin);
  // AF_UNSPEC dissolves an association: no destination, nothing to judge.
  const bool dissolve = error == 0 && pin.raw.ss_family == AF_UNSPEC && pin.domain != AF_UNIX;
  if (error == 0 && !dissolve) error = decoder_.address(call, pin);
  if (!trap_.listener.valid(call.id)) return;
  const auto answer = [&](int e) {
    e == 0 ? trap_.listener.answer(call, 0) : trap_.listener.refuse(call.id, e);
  };
  if (error != 0) return answer(error);
  const bool tcp = pin.domain != AF_UNIX && pin.type == SOCK_STREAM;
  if (dissolve || (tcp && connect_under_way(pin.socket.get()))) return answer(connect_again(pin));
  const kernel::ConnectEffect& effect = pin.effect();
  // A datagram socket's connect sends nothing; what it sends later is judged where it arrives.
  if (effect.transport == kernel::Transport::kUdp) return answer(perform_inside(pin));
  if (mutant(Mutant::kUnixPath) && pin.node) pin.effect_.inside = true;
  const CallInfo info{call.tid, "connect", object_text(effect), Waits::kYes};
  if (effect.transport == kernel::Transport::kUnix && !effect.inside && pin.type != SOCK_STREAM) {
    return answer(trap_.session.refuse_constraint(
        info, effect.path, kernel::Verb::kConnect,
        "unix sockets outside the sandbox are reached as streams only"));
  }
  Hold hold;
  if (!effect.inside) hold.kind = Hold::Kind::kConnection;
  Judged judged = trap_.session.judge(info, kernel::Call{effect, {}}, hold);
  if (!judged.certificate) return trap_.decline(call, judged);
  if (mutant(Mutant::kAddressCopy)) {
    ::usleep(200);
    (void)(decoder_.socket(call, pin) + decoder_.address(call, pin));
  } else if (kernel::action_digest(effect) != judged.certificate->digest()) {
    error = EACCES;
  }
  if (error == 0) {
    error = effect.inside ? perform_inside(pin) : perform_outside(call, judged, pin);
  }
  const bool under_way = error == 0 || error == EINPROGRESS || error == kInterrupted;
  if (!under_way) trap_.session.release(judged.hold);
  trap_.session.outcome(judged.seq, "connect", call.tid, error == kInterrupted ? EINTR : error,
                        "emulated");
  if (error == EINTR || error == kInterrupted) error = BlockingPool::interruption(call.tid);
  answer(error);
}

int NetCalls::perform_inside(const PinnedConnect& pin) const {
  if (pin.node) return connect_node(pin.socket.get(), pin.node.get());
  return plain_connect(pin.socket.get(), pin.raw, pin.raw_size);
}

// The host's half. EINPROGRESS: not there yet, and the caller does not wait for it.
int NetCalls::connect_tcp(const TrappedCall& call, const kernel::Rule& rule,
                          const PinnedConnect& pin, UniqueFd& host) {
  const auto to = host_targets(rule, pin.effect(), names_);
  if (!to) return to.error().code != 0 ? to.error().code : EHOSTUNREACH;
  bool interrupted = false;
  const auto stop = [&] {
    if (!trap_.listener.valid(call.id)) return EINTR;
    interrupted = !pin.non_blocking && sandbox::signal_waits(call.tid);
    return interrupted ? EINPROGRESS : 0;
  };
  const int wait_ms = pin.non_blocking ? kNonBlockingWaitMs : kConnectTimeoutMs;
  const int error = connect_host(*to, SOCK_STREAM, wait_ms, stop, host);
  if (error != EINPROGRESS || pin.non_blocking) return error;
  return interrupted ? kInterrupted : ETIMEDOUT;
}

// Connects the agent's own socket to a listener of ours inside, where nobody else can get in.
int NetCalls::join_inside(const PinnedConnect& pin, UniqueFd& accepted) {
  const std::lock_guard lock(inside_mutex_);
  UniqueFd listener;
  const int error = pin.domain == AF_UNIX ? join_unix(pin, listener) : join_tcp(pin, listener);
  if (error != 0 && error != EINPROGRESS) return error;
  if (!ready(listener.get(), POLLIN)) return ETIMEDOUT;
  accepted.reset(accept_one(listener.get()));
  if (!accepted) return errno;
  if (pin.domain == AF_UNIX) return error;
  // The listener's one connection must come from this very socket.
  sockaddr_storage ours{}, theirs{};
  socklen_t ours_size = sizeof ours, theirs_size = sizeof theirs;
  // NOLINTBEGIN: the socket API's own casts
  ::getsockname(pin.socket.get(), reinterpret_cast<sockaddr*>(&ours), &ours_size);
  ::getpeername(accepted.get(), reinterpret_cast<sockaddr*>(&theirs), &theirs_size);
  // NOLINTEND
  const auto a = endpoint_of(ours, ours_size), b = endpoint_of(theirs, theirs_size);
  if (!a || !b || a->port != b->port || a->address != b->address) return ECONNRESET;
  return error;
}

// At the very address the agent asked for.
int NetCalls::join_tcp(const PinnedConnect& pin, UniqueFd& listener) {
  sockaddr_storage at{};
  const socklen_t size = to_sockaddr({pin.effect().address, pin.effect().port}, at);
  auto made = sandbox::inside_socket(box_, at.ss_family, SOCK_STREAM);
  if (!made) return EIO;
  listener = *std::move(made);
  const int on = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // An IPv6 address counts as ours only through the catch-all route.
  if (at.ss_family == AF_INET6)
    ::setsockopt(listener.get(), IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);
  // NOLINTNEXTLINE: the socket API's own cast
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), size) != 0)
    return EADDRNOTAVAIL;
  if (::listen(listener.get(), 1) != 0) return errno;
  return connect_to_listener(pin.socket.get(), pin.raw, pin.raw_size);
}

// At an abstract name that the kernel chooses: only bytes cross the relay, never descriptors.
int NetCalls::join_unix(const PinnedConnect& pin, UniqueFd& listener) {
  auto made = sandbox::inside_socket(box_, AF_UNIX, SOCK_STREAM);
  if (!made) return EIO;
  listener = *std::move(made);
  sockaddr_storage at{};
  at.ss_family = AF_UNIX;
  socklen_t size = sizeof at;
  // NOLINTBEGIN: the socket API's own casts
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof(sa_family_t)) != 0)
    return errno;
  if (::listen(listener.get(), 1) != 0) return errno;
  if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&at), &size) != 0) return errno;
  // NOLINTEND
  return plain_connect(pin.socket.get(), at, size);
}

int NetCalls::perform_outside(const TrappedCall& call, const Judged& judged, PinnedConnect& pin) {
  UniqueFd host, inside;
  int error = 0;
  if (pin.node) {
    host.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!host) return errno;
    error = connect_node(host.get(), pin.node.get());
    if (error == 0 && ::fcntl(host.get(), F_SETFL, O_NONBLOCK) != 0) error = errno;
  } else {
    const kernel::Rule* rule = judged.rule(0);
    if (mutant(Mutant::kAddressCopy)) {
      for (const kernel::Rule& other : judged.policy->rules) {
        for (const kernel::EndpointPattern& e : other.endpoints) {
          if (e.allows(pin.effect())) rule = &other;
        }
      }
    }
    error = connect_tcp(call, *rule, pin, host);
  }
  if (error != 0 && error != EINPROGRESS && error != kInterrupted) return error;
  if (!trap_.listener.valid(call.id)) return EINTR;
  const bool interrupted = error == kInterrupted;
  error = join_inside(pin, inside);
  if (error != 0 && error != EINPROGRESS) return error;
  const uint64_t hold = judged.hold;
  const uint64_t id =
      relay_.add(std::move(inside), std::move(host), [this, hold] { trap_.session.release(hold); });
  if (id == 0) return ENOBUFS;
  // Settled first: another thread of the agent may be writing to its socket already.
  const bool settled = trap_.session.settle_connection(hold, [this, id] { relay_.shut(id); });
  if (!settled) relay_.shut(id);  // the label rose while we connected
  relay_.start(id);               // of a connection that was shut, only to find it at its end
  if (!settled) return EACCES;
  return interrupted ? remember_interrupted(pin) : error;
}

// The connection goes on after EINTR, as connect(2) says; whoever asks again gets it.
int NetCalls::remember_interrupted(const PinnedConnect& pin) {
  struct stat s {};
  if (::fstat(pin.socket.get(), &s) != 0) return errno;
  const std::lock_guard lock(resumed_mutex_);
  if (resumed_.size() >= kMaxResumed) resumed_.clear();
  resumed_.insert(s.st_ino);
  return kInterrupted;
}

void NetCalls::bind(const TrappedCall& call) {
  PinnedConnect pin;
  int error = decoder_.socket(call, pin);
  if (error == 0 && pin.domain == AF_UNIX && pin.raw.ss_family == AF_UNIX &&
      pin.raw_size > sizeof(sa_family_t)) {
    error = decoder_.address(call, pin);
    if (!trap_.listener.valid(call.id)) return;
    if (error == 0 && !pin.effect().inside) {
      error = bind_unix(call, pin);
      error == 0 ? trap_.listener.answer(call, 0) : trap_.listener.refuse(call.id, error);
      return;
    }
  }
  if (!trap_.listener.valid(call.id)) return;
  // Everything else can only be reached from within the sandbox's own network namespace.
  if (error == 0) {
    // NOLINTNEXTLINE: the socket API's own cast
    error = ::bind(pin.socket.get(), reinterpret_cast<const sockaddr*>(&pin.raw), pin.raw_size) == 0
                ? 0
                : errno;
  }
  error == 0 ? trap_.listener.answer(call, 0) : trap_.listener.refuse(call.id, error);
}

// A socket file that others on the host could connect to is refused; private places are the agent's
// own.
int NetCalls::bind_unix(const TrappedCall& call, const PinnedConnect& pin) {
  const std::string& path = pin.effect().path;
  UniqueFd base;
  if (int error = Trap::base_of(call.tid, AT_FDCWD, path, base)) return error;
  Resolution r = trap_.walk.resolve(Caller{call.tid}, Base{base.get()}, path, Final::kNoFollow,
                                    Missing::kParent);
  if (r.error) return r.error;
  if (r.object) return EADDRINUSE;
  ObjectFacts facts;
  if (int error = object_facts(r.parent.get(), facts)) return error;
  if (!trap_.places.contains(facts.dev)) {
    return trap_.session.refuse_constraint({call.tid, "bind", path}, path, kernel::Verb::kConnect,
                                           "a unix socket outside /tmp, home and /run could be "
                                           "reached from the host; bind it there instead");
  }
  const auto task = sandbox::task_facts(call.tid);
  if (!task) return ESRCH;
  if (box_.socket_names == sandbox::SocketNames::kBound)
    return bind_by_name(pin, base, task->umask);
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  const int n = std::snprintf(un.sun_path, sizeof un.sun_path, "/proc/self/fd/%d/%s",
                              r.parent.get(), r.name.c_str());
  if (n < 0 || static_cast<size_t>(n) >= sizeof un.sun_path) return ENAMETOOLONG;
  // NOLINTNEXTLINE: the socket API's own cast
  if (::bind(pin.socket.get(), reinterpret_cast<const sockaddr*>(&un), sizeof un) != 0)
    return errno;
  return ::fchmodat(r.parent.get(), r.name.c_str(), 0777 & ~task->umask, 0) == 0 ? 0 : errno;
}

// The name stays what the agent gave; where it leads, the kernel holds init to the private places.
int NetCalls::bind_by_name(const PinnedConnect& pin, const UniqueFd& base, unsigned mask) {
  sockaddr_un name{};
  std::memcpy(&name, &pin.raw, std::min<size_t>(pin.raw_size, sizeof name));
  const bool absolute = pin.effect().path.starts_with('/');
  const std::lock_guard lock(inside_mutex_);
  const auto bound = sandbox::bind_inside(box_, pin.socket.get(), absolute ? -1 : base.get(), name,
                                          pin.raw_size, static_cast<mode_t>(mask));
  return bound ? *bound : EIO;
}

}  // namespace certgate::supervisor
