#include "supervisor/host_connect.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "supervisor/pinned_connect.h"

namespace certgate::supervisor {

using sandbox::UniqueFd;

Result<std::vector<Endpoint>> host_targets(const kernel::Rule& rule,
                                           const kernel::ConnectEffect& effect,
                                           const NameTable& names) {
  for (const kernel::EndpointPattern& e : rule.endpoints) {
    if (!e.allows(effect)) continue;
    if (!e.via) break;
    const auto via = parse_endpoint(*e.via);
    if (!via) return fail("rule " + rule.id + ": via is not address:port", EINVAL);
    return std::vector<Endpoint>{*via};
  }
  if (!names.name_of(effect.address)) return std::vector<Endpoint>{{effect.address, effect.port}};
  CG_TRY(const std::vector<Address> addresses, resolve_on_host(effect.host));
  std::vector<Endpoint> out;
  for (const Address& address : addresses) {
    if (!kernel::is_internal(address)) out.push_back({address, effect.port});
  }
  if (out.empty()) return fail(effect.host + " leads only to internal addresses", EHOSTUNREACH);
  return out;
}

int connect_host(const std::vector<Endpoint>& targets, int type, int wait_ms,
                 const std::function<int()>& stop, UniqueFd& out) {
  int error = EHOSTUNREACH;
  for (const Endpoint& target : targets) {
    sockaddr_storage to{};
    const socklen_t size = to_sockaddr(target, to);
    UniqueFd fd(::socket(to.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return errno;
    // NOLINTNEXTLINE: the socket API's own cast
    error = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), size) == 0 ? 0 : errno;
    for (int waited = 0; error == EINPROGRESS;) {
      pollfd p{fd.get(), POLLOUT, 0};
      const int n = ::poll(&p, 1, std::min(kConnectStepMs, wait_ms - waited));
      if (n > 0) {
        error = socket_option(fd.get(), SO_ERROR);
        break;
      }
      if (const int stopped = stop()) {
        if (stopped == EINPROGRESS) out = std::move(fd);
        return stopped;
      }
      waited += kConnectStepMs;
      if (waited >= wait_ms) break;
    }
    if (error == 0 || error == EINPROGRESS) {
      out = std::move(fd);
      return error;
    }
  }
  return error;
}

}  // namespace certgate::supervisor
