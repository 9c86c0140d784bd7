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

#include "sandbox/remote.h"
#include "supervisor/report.h"

namespace certgate::supervisor {
namespace {

using sandbox::TrappedCall;
using sandbox::UniqueFd;

constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD
constexpr int kPollStepMs = 50;            // how soon a dead caller is noticed

int option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

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
    : trap_(trap), pool_(pool), box_(box), names_(names), relay_(relay) {
  const UniqueFd probe(static_cast<int>(::syscall(SYS_pidfd_open, ::gettid(), kPidfdThread)));
  thread_pidfds_ = static_cast<bool>(probe);
}

void NetCalls::handle(const TrappedCall& call) {
  if (!pool_.try_run(call.id, [this, call] { call.nr == SYS_bind ? bind(call) : connect(call); })) {
    trap_.listener.refuse(call.id, EAGAIN);
  }
}

Result<UniqueFd> NetCalls::inside_socket(int domain, int type) {
  const std::lock_guard lock(inside_mutex_);
  return sandbox::inside_socket(box_, domain, type);
}

int NetCalls::pin_socket(const TrappedCall& call, PinnedConnect& pin) const {
  if (call.args[2] > sizeof pin.raw) return EINVAL;
  pin.raw_size = static_cast<socklen_t>(call.args[2]);
  if (pin.raw_size < sizeof(sa_family_t)) return EINVAL;
  if (int error = sandbox::read_memory(call.tid, call.args[1], &pin.raw, pin.raw_size))
    return error;
  pid_t target = call.tid;
  if (!thread_pidfds_) {
    // Before 6.9 a pidfd names a whole process; a thread with a file table of its own cannot be
    // served.
    const auto task = sandbox::task_facts(call.tid);
    if (!task) return ESRCH;
    target = task->tgid;
    constexpr int kKcmpFiles = 2;
    if (target != call.tid && ::syscall(SYS_kcmp, target, call.tid, kKcmpFiles, 0, 0) != 0)
      return EPERM;
  }
  const UniqueFd pidfd(
      static_cast<int>(::syscall(SYS_pidfd_open, target, thread_pidfds_ ? kPidfdThread : 0)));
  if (!pidfd) return ESRCH;
  pin.socket.reset(
      static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), static_cast<int>(call.args[0]), 0)));
  if (!pin.socket) return errno == EBADF ? EBADF : EPERM;
  pin.domain = option(pin.socket.get(), SO_DOMAIN);
  if (pin.domain < 0) return ENOTSOCK;
  pin.type = option(pin.socket.get(), SO_TYPE);
  pin.non_blocking = (::fcntl(pin.socket.get(), F_GETFL) & O_NONBLOCK) != 0;
  return 0;
}

int NetCalls::normalise_unix(const TrappedCall& call, PinnedConnect& pin) const {
  sockaddr_un un{};
  std::memcpy(&un, &pin.raw, std::min<size_t>(pin.raw_size, sizeof un));
  const size_t size = pin.raw_size - offsetof(sockaddr_un, sun_path);
  if (pin.raw_size <= offsetof(sockaddr_un, sun_path)) return EINVAL;
  if (pin.raw_size > sizeof un) return EINVAL;
  pin.effect_.transport = kernel::Transport::kUnix;
  if (un.sun_path[0] == '\0') {
    // Abstract names belong to the sandbox's own network namespace.
    pin.effect_.path = "@" + std::string(un.sun_path + 1, size - 1);
    pin.effect_.inside = true;
    return 0;
  }
  const std::string path(un.sun_path, ::strnlen(un.sun_path, size));
  pin.effect_.path = path;
  if (call.nr == SYS_bind) return 0;
  UniqueFd base;
  if (int error = Trap::base_of(call.tid, AT_FDCWD, path, base)) return error;
  Resolution r =
      trap_.walk.resolve(Caller{call.tid}, Base{base.get()}, path, Final::kFollow, Missing::kError);
  if (r.error) return r.error;
  ObjectFacts facts;
  if (int error = object_facts(r.object.get(), facts)) return error;
  if (facts.kind != kernel::FileKind::kSocket) return ECONNREFUSED;
  pin.effect_.path = PathWalk::path_of(r.object.get(), facts.nlink == 0);
  pin.effect_.inside = trap_.places.contains(facts.dev);
  pin.node = std::move(r.object);
  return 0;
}

int NetCalls::normalise(const TrappedCall& call, PinnedConnect& pin) const {
  if (pin.domain == AF_UNIX)
    return pin.raw.ss_family == AF_UNIX ? normalise_unix(call, pin) : EINVAL;
  if (pin.domain != AF_INET && pin.domain != AF_INET6) return EAFNOSUPPORT;
  const auto endpoint = endpoint_of(pin.raw, pin.raw_size);
  if (!endpoint) return endpoint.error().code;
  if (pin.domain == AF_INET && !is_ipv4(endpoint->address)) return EAFNOSUPPORT;
  kernel::ConnectEffect& effect = pin.effect_;
  effect.transport = pin.type == SOCK_STREAM ? kernel::Transport::kTcp : kernel::Transport::kUdp;
  effect.address = endpoint->address;
  effect.port = endpoint->port;
  const auto name = names_.name_of(endpoint->address);
  effect.host = name ? *name : address_text(endpoint->address);
  if (is_loopback(endpoint->address)) {
    // The agent's own loopback, unless the policy forwards this address to the host.
    effect.inside = true;
    for (const kernel::Rule& rule : trap_.session.decider().policy().rules) {
      for (const kernel::EndpointPattern& e : rule.endpoints) {
        if (e.via && effect.port >= e.port_first && effect.port <= e.port_last &&
            e.host.matches(effect)) {
          effect.inside = false;
        }
      }
    }
  }
  return 0;
}

void NetCalls::connect(const TrappedCall& call) {
  PinnedConnect pin;
  int error = pin_socket(call, pin);
  // AF_UNSPEC dissolves an association: no destination, nothing to judge.
  const bool dissolve = error == 0 && pin.raw.ss_family == AF_UNSPEC && pin.domain != AF_UNIX;
  if (error == 0 && !dissolve) error = normalise(call, pin);
  if (!trap_.listener.valid(call.id)) return;
  const bool tcp = pin.domain != AF_UNIX && pin.type == SOCK_STREAM;
  if (error == 0 && (dissolve || (tcp && connect_under_way(pin.socket.get())))) {
    error = plain_connect(pin.socket.get(), pin.raw, pin.raw_size);
    error == 0 ? trap_.listener.answer(call.id, 0) : trap_.listener.refuse(call.id, error);
    return;
  }
  if (error != 0) {
    trap_.listener.refuse(call.id, error);
    return;
  }
  const CallInfo info{call.tid, "connect", object_text(pin.effect())};
  if (pin.effect().transport == kernel::Transport::kUnix && !pin.effect().inside) {
    // A connection to the host that could not be cut again when the label rises.
    trap_.listener.refuse(call.id, trap_.session.refuse_constraint(
                                       info, pin.effect().path, kernel::Verb::kConnect,
                                       "unix sockets outside the sandbox are not reachable"));
    return;
  }
  const bool outside = !pin.effect().inside && pin.effect().transport == kernel::Transport::kTcp;
  Hold hold;
  if (outside) hold.kind = Hold::Kind::kConnection;
  Judged judged = trap_.session.judge(info, kernel::Call{pin.effect(), {}}, hold);
  if (!judged.certificate) {
    trap_.listener.refuse(call.id, judged.error);
    return;
  }
  if (kernel::action_digest(pin.effect()) != judged.certificate->digest()) {
    error = EACCES;
  } else if (outside) {
    error = perform_outside(call, judged, pin);
  } else {
    error = perform_inside(pin);
  }
  if (error != 0 && error != EINPROGRESS) trap_.session.release(judged.hold);
  trap_.session.outcome(judged.seq, "connect", call.tid, error, "emulated");
  error == 0 ? trap_.listener.answer(call.id, 0) : trap_.listener.refuse(call.id, error);
}

int NetCalls::perform_inside(const PinnedConnect& pin) const {
  if (pin.node) return connect_node(pin.socket.get(), pin.node.get());
  return plain_connect(pin.socket.get(), pin.raw, pin.raw_size);
}

Result<std::vector<Endpoint>> NetCalls::targets(const kernel::Rule& rule,
                                                const PinnedConnect& pin) const {
  const kernel::ConnectEffect& effect = pin.effect();
  for (const kernel::EndpointPattern& e : rule.endpoints) {
    if (effect.port < e.port_first || effect.port > e.port_last || !e.host.matches(effect))
      continue;
    if (!e.via) break;
    const auto via = parse_endpoint(*e.via);
    if (!via) return fail("rule " + rule.id + ": via is not address:port", EINVAL);
    return std::vector<Endpoint>{*via};
  }
  if (!names_.name_of(effect.address)) return std::vector<Endpoint>{{effect.address, effect.port}};
  CG_TRY(const std::vector<Address> addresses, resolve_on_host(effect.host));
  std::vector<Endpoint> out;
  for (const Address& address : addresses) {
    // A name that leads into the host's own networks is rebinding, unless a rule says `via`.
    if (!is_internal(address)) out.push_back({address, effect.port});
  }
  if (out.empty()) return fail(effect.host + " leads only to internal addresses", EHOSTUNREACH);
  return out;
}

// Tries each target in turn. 0, an errno, or EINPROGRESS when `wait_ms` ran out (the socket goes
// on).
int NetCalls::connect_host(uint64_t id, const std::vector<Endpoint>& targets, int wait_ms,
                           UniqueFd& out) const {
  int error = EHOSTUNREACH;
  for (const Endpoint& target : targets) {
    sockaddr_storage to{};
    const socklen_t size = to_sockaddr(target, to);
    UniqueFd fd(::socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return errno;
    error = plain_connect(fd.get(), to, size);
    for (int waited = 0; error == EINPROGRESS;) {
      pollfd p{fd.get(), POLLOUT, 0};
      const int n = ::poll(&p, 1, std::min(kPollStepMs, wait_ms - waited));
      if (n > 0) {
        error = option(fd.get(), SO_ERROR);
        break;
      }
      if (!trap_.listener.valid(id)) return EINTR;
      waited += kPollStepMs;
      if (waited >= wait_ms) break;
    }
    if (error == 0 || error == EINPROGRESS) {
      out = std::move(fd);
      return error;
    }
  }
  return error;
}

// Connects the agent's own socket to a listener of ours at the asked address, inside.
int NetCalls::join_inside(const PinnedConnect& pin, UniqueFd& accepted) {
  const std::lock_guard lock(inside_mutex_);
  sockaddr_storage at{};
  const socklen_t size = to_sockaddr({pin.effect().address, pin.effect().port}, at);
  auto listener = sandbox::inside_socket(box_, at.ss_family, SOCK_STREAM);
  if (!listener) return EIO;
  const int on = 1;
  ::setsockopt(listener->get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // An IPv6 address counts as ours only through the catch-all route.
  if (at.ss_family == AF_INET6)
    ::setsockopt(listener->get(), IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);
  // NOLINTNEXTLINE: the socket API's own cast
  if (::bind(listener->get(), reinterpret_cast<const sockaddr*>(&at), size) != 0)
    return EADDRNOTAVAIL;
  if (::listen(listener->get(), 1) != 0) return errno;
  const int error = plain_connect(pin.socket.get(), pin.raw, pin.raw_size);
  if (error != 0 && error != EINPROGRESS) return error;
  pollfd p{listener->get(), POLLIN, 0};
  if (::poll(&p, 1, 2000) <= 0) return ETIMEDOUT;
  accepted.reset(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!accepted) return errno;
  // Nobody else can have got in: the listener's one connection must come from this very socket.
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

int NetCalls::perform_outside(const TrappedCall& call, const Judged& judged, PinnedConnect& pin) {
  const auto to = targets(*judged.rule(trap_.session.decider().policy(), 0), pin);
  if (!to) return to.error().code != 0 ? to.error().code : EHOSTUNREACH;
  UniqueFd host, inside;
  const int wait_ms = pin.non_blocking ? kNonBlockingWaitMs : kConnectTimeoutMs;
  int error = connect_host(call.id, *to, wait_ms, host);
  if (error == EINPROGRESS && !pin.non_blocking) error = ETIMEDOUT;
  if (error != 0 && error != EINPROGRESS) return error;
  if (!trap_.listener.valid(call.id)) return EINTR;
  error = join_inside(pin, inside);
  if (error != 0 && error != EINPROGRESS) return error;
  const uint64_t hold = judged.hold;
  const uint64_t id =
      relay_.add(std::move(inside), std::move(host), [this, hold] { trap_.session.release(hold); });
  if (id == 0) return ENOBUFS;
  // Settled first: another thread of the agent may be writing to its socket already.
  const bool settled = trap_.session.settle_connection(hold, [this, id] { relay_.shut(id); });
  if (!settled) relay_.shut(id);  // the label rose while we connected
  relay_.start(id);  // of a connection that was shut, only to find it at its end
  return settled ? error : EACCES;
}

void NetCalls::bind(const TrappedCall& call) {
  PinnedConnect pin;
  int error = pin_socket(call, pin);
  if (error == 0 && pin.domain == AF_UNIX && pin.raw.ss_family == AF_UNIX &&
      pin.raw_size > sizeof(sa_family_t)) {
    error = normalise_unix(call, pin);
    if (!trap_.listener.valid(call.id)) return;
    if (error == 0 && !pin.effect().inside) {
      error = bind_unix(call, pin);
      error == 0 ? trap_.listener.answer(call.id, 0) : trap_.listener.refuse(call.id, error);
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
  error == 0 ? trap_.listener.answer(call.id, 0) : trap_.listener.refuse(call.id, error);
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
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  const int n = std::snprintf(un.sun_path, sizeof un.sun_path, "/proc/self/fd/%d/%s",
                              r.parent.get(), r.name.c_str());
  if (n < 0 || static_cast<size_t>(n) >= sizeof un.sun_path) return ENAMETOOLONG;
  // NOLINTNEXTLINE: the socket API's own cast
  if (::bind(pin.socket.get(), reinterpret_cast<const sockaddr*>(&un), sizeof un) != 0)
    return errno;
  const auto task = sandbox::task_facts(call.tid);
  if (!task) return ESRCH;
  return ::fchmodat(r.parent.get(), r.name.c_str(), 0777 & ~task->umask, 0) == 0 ? 0 : errno;
}

}  // namespace certgate::supervisor
