#include "supervisor/pinned_connect.h"

#include <fcntl.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "sandbox/remote.h"

namespace certgate::supervisor {

using sandbox::TrappedCall;
using sandbox::UniqueFd;

int socket_option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

int ConnectDecoder::socket(const TrappedCall& call, PinnedConnect& pin) const {
  if (call.args[2] > sizeof pin.raw) return EINVAL;
  pin.raw_size = static_cast<socklen_t>(call.args[2]);
  if (pin.raw_size < sizeof(sa_family_t)) return EINVAL;
  if (int error = sandbox::read_memory(call.tid, call.args[1], &pin.raw, pin.raw_size))
    return error;
  if (int error = Trap::descriptor_of(call.tid, static_cast<int>(call.args[0]), pin.socket))
    return error;
  pin.domain = socket_option(pin.socket.get(), SO_DOMAIN);
  if (pin.domain < 0) return ENOTSOCK;
  pin.type = socket_option(pin.socket.get(), SO_TYPE);
  pin.non_blocking = (::fcntl(pin.socket.get(), F_GETFL) & O_NONBLOCK) != 0;
  return 0;
}

int ConnectDecoder::unix_address(const TrappedCall& call, PinnedConnect& pin) const {
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
  if (int error = PathWalk::path_of(r.object.get(), facts.nlink == 0, pin.effect_.path))
    return error;
  pin.effect_.inside = trap_.places.contains(facts.dev);
  pin.node = std::move(r.object);
  return 0;
}

int ConnectDecoder::address(const TrappedCall& call, PinnedConnect& pin) const {
  if (pin.domain == AF_UNIX) return pin.raw.ss_family == AF_UNIX ? unix_address(call, pin) : EINVAL;
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
  // The agent's own loopback, unless the policy forwards this address to the host.
  effect.inside = is_loopback(endpoint->address) && !forwarded(effect);
  return 0;
}

bool ConnectDecoder::forwarded(const kernel::ConnectEffect& effect) const {
  for (const kernel::Rule& rule : trap_.session.decider().policy().rules) {
    for (const kernel::EndpointPattern& e : rule.endpoints) {
      if (e.via && e.matches(effect)) return true;
    }
  }
  return false;
}

}  // namespace certgate::supervisor
