#include "supervisor/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace certgate::supervisor {
namespace {

constexpr std::array<uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

Address mapped(const void* ipv4) {
  Address out{};
  std::copy(kMapped.begin(), kMapped.end(), out.begin());
  std::memcpy(out.data() + 12, ipv4, 4);
  return out;
}

}  // namespace

Result<Endpoint> endpoint_of(const sockaddr_storage& from, socklen_t size) {
  Endpoint out;
  if (from.ss_family == AF_INET) {
    if (size < sizeof(sockaddr_in)) return fail("short sockaddr_in", EINVAL);
    sockaddr_in in;
    std::memcpy(&in, &from, sizeof in);
    out.port = ntohs(in.sin_port);
    in_addr any{};
    any.s_addr =
        in.sin_addr.s_addr == htonl(INADDR_ANY) ? htonl(INADDR_LOOPBACK) : in.sin_addr.s_addr;
    out.address = mapped(&any);
    return out;
  }
  if (from.ss_family != AF_INET6) return fail("not an internet address", EAFNOSUPPORT);
  // The kernel takes sockaddr_in6 without its last field too (SIN6_LEN_RFC2133).
  if (size < sizeof(sockaddr_in6) - sizeof(uint32_t)) return fail("short sockaddr_in6", EINVAL);
  sockaddr_in6 in6{};
  std::memcpy(&in6, &from, std::min<size_t>(size, sizeof in6));
  out.port = ntohs(in6.sin6_port);
  std::memcpy(out.address.data(), &in6.sin6_addr, 16);
  if (IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr)) out.address[15] = 1;
  const uint32_t any = 0;
  if (out.address == mapped(&any)) {
    const uint32_t loopback = htonl(INADDR_LOOPBACK);
    out.address = mapped(&loopback);
  }
  return out;
}

bool is_ipv4(const Address& address) {
  return std::equal(kMapped.begin(), kMapped.end(), address.begin());
}

bool is_loopback(const Address& address) {
  if (is_ipv4(address)) return address[12] == 127;
  Address one{};
  one[15] = 1;
  return address == one;
}

std::string address_text(const Address& address) {
  char text[INET6_ADDRSTRLEN];
  if (is_ipv4(address)) return ::inet_ntop(AF_INET, address.data() + 12, text, sizeof text);
  return ::inet_ntop(AF_INET6, address.data(), text, sizeof text);
}

std::optional<Address> parse_address(const std::string& text) {
  in_addr v4_address{};
  if (::inet_pton(AF_INET, text.c_str(), &v4_address) == 1) return mapped(&v4_address);
  Address out;
  if (::inet_pton(AF_INET6, text.c_str(), out.data()) == 1) return out;
  return std::nullopt;
}

std::optional<Endpoint> parse_endpoint(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return std::nullopt;
  std::string host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data() + colon + 1, end, port);
  const auto address = parse_address(host);
  if (error != std::errc() || at != end || !address) return std::nullopt;
  return Endpoint{*address, port};
}

socklen_t to_sockaddr(const Endpoint& endpoint, sockaddr_storage& out) {
  out = {};
  if (is_ipv4(endpoint.address)) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(endpoint.port);
    std::memcpy(&in.sin_addr, endpoint.address.data() + 12, 4);
    std::memcpy(&out, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(endpoint.port);
  std::memcpy(&in6.sin6_addr, endpoint.address.data(), 16);
  std::memcpy(&out, &in6, sizeof in6);
  return sizeof in6;
}

}  // namespace certgate::supervisor
