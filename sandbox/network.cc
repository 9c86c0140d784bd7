#include "sandbox/network.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sandbox/fd.h"

namespace certgate::sandbox {
namespace {

struct RouteRequest {
  nlmsghdr header;
  rtmsg route;
  rtattr out_interface_header;
  int32_t out_interface;
};

struct RouteReply {
  nlmsghdr header;
  nlmsgerr result;
  char rest[512];  // an error reply repeats the request
};

Failure raise_loopback(int& index) {
  UniqueFd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket_fd) return fail_step(Step::kLoopback, "socket");
  ifreq request{};
  std::memcpy(request.ifr_name, "lo", 3);
  if (ioctl(socket_fd.get(), SIOCGIFINDEX, &request) != 0) return fail_step(Step::kLoopback, "lo");
  index = request.ifr_ifindex;
  if (ioctl(socket_fd.get(), SIOCGIFFLAGS, &request) != 0) return fail_step(Step::kLoopback, "lo");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  if (ioctl(socket_fd.get(), SIOCSIFFLAGS, &request) != 0) return fail_step(Step::kLoopback, "lo");
  return {};
}

// `ip route add local default dev lo` for one family. 0, or the errno the kernel answered.
int add_local_route(int netlink, unsigned char family, int index) {
  RouteRequest request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = RTM_NEWROUTE;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_REPLACE | NLM_F_ACK;
  request.header.nlmsg_seq = family;
  request.route.rtm_family = family;
  request.route.rtm_table = RT_TABLE_LOCAL;
  request.route.rtm_protocol = RTPROT_BOOT;
  request.route.rtm_scope = RT_SCOPE_HOST;
  request.route.rtm_type = RTN_LOCAL;
  request.out_interface_header.rta_type = RTA_OIF;
  request.out_interface_header.rta_len = RTA_LENGTH(sizeof request.out_interface);
  request.out_interface = index;
  if (send(netlink, &request, sizeof request, 0) < 0) return errno;
  RouteReply reply{};
  const ssize_t got = recv(netlink, &reply, sizeof reply, 0);
  if (got < 0) return errno;
  if (got < static_cast<ssize_t>(sizeof(nlmsghdr) + sizeof(int32_t)) ||
      reply.header.nlmsg_type != NLMSG_ERROR) {
    return EPROTO;
  }
  return -reply.result.error;
}

// Errors that mean the kernel or the host has no IPv6: there is nothing to route then.
bool without_ipv6(int error) {
  return error == EAFNOSUPPORT || error == EOPNOTSUPP || error == EPROTONOSUPPORT ||
         error == EACCES;
}

}  // namespace

Failure set_up_network() {
  int index = 0;
  if (const Failure failure = raise_loopback(index)) return failure;
  UniqueFd netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  if (!netlink) return fail_step(Step::kRoutes, "netlink socket");
  if (const int error = add_local_route(netlink.get(), AF_INET, index); error != 0) {
    return fail_step(Step::kRoutes, "0.0.0.0/0", error);
  }
  const int error = add_local_route(netlink.get(), AF_INET6, index);
  if (error != 0 && !without_ipv6(error)) return fail_step(Step::kRoutes, "::/0", error);
  return {};
}

}  // namespace certgate::sandbox
