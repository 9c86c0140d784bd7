// Addresses: two spellings of one host never differ, and nothing is read beyond the copy's size.
#include <netinet/in.h>

#include <cerrno>

#include "supervisor/address.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate::supervisor;
namespace fuzz = certgate::fuzz;

namespace {

bool same(const Endpoint& a, const Endpoint& b) {
  return a.address == b.address && a.port == b.port;
}

void laws_of(const Endpoint& endpoint) {
  sockaddr_storage storage;
  const socklen_t size = to_sockaddr(endpoint, storage);
  CG_LAW(size == (is_ipv4(endpoint.address) ? sizeof(sockaddr_in) : sizeof(sockaddr_in6)));
  const auto again = endpoint_of(storage, size);
  CG_LAW(again && same(*again, endpoint));  // normalised once is normalised for good

  const std::string text = address_text(endpoint.address);
  const auto address = parse_address(text);
  CG_LAW(address && *address == endpoint.address);
  const bool six = text.find(':') != std::string::npos;  // never the mapped form
  CG_LAW(six == !is_ipv4(endpoint.address));
  const auto parsed =
      parse_endpoint((six ? "[" + text + "]" : text) + ":" + std::to_string(endpoint.port));
  CG_LAW(parsed && same(*parsed, endpoint));
  // A block is internal only when all of it is.
  for (const unsigned bits : {128u, 120u, 104u, 96u, 64u, 8u, 1u, 0u}) {
    if (certgate::kernel::is_internal(endpoint.address, bits))
      CG_LAW(certgate::kernel::is_internal(endpoint.address));
  }
}

// The kernel connects 0.0.0.0 and :: to the own loopback; so must we. And whatever is loopback by
// the kernel's reckoning must be named by a rule.
void never_any(const Endpoint& endpoint) {
  if (is_loopback(endpoint.address)) CG_LAW(certgate::kernel::is_internal(endpoint.address));
  CG_LAW(endpoint.address != Address{});
  CG_LAW(address_text(endpoint.address) != "0.0.0.0");
}

}  // namespace

FUZZ_TARGET(sockaddr) {
  sockaddr_storage storage;
  std::memset(&storage, 0xa5, sizeof storage);  // what lies beyond the size must not matter
  const size_t used = std::min(size, sizeof storage);
  if (used > 0) std::memcpy(&storage, data, used);
  if (used < sizeof storage.ss_family) storage.ss_family = 0;
  const auto endpoint = endpoint_of(storage, static_cast<socklen_t>(used));
  if (endpoint) {
    never_any(*endpoint);
    laws_of(*endpoint);
    sockaddr_storage other{};
    std::memcpy(&other, data, used);
    const auto again = endpoint_of(other, static_cast<socklen_t>(used));
    CG_LAW(again && same(*again, *endpoint));
  } else {
    CG_LAW(endpoint.error().code == EINVAL || endpoint.error().code == EAFNOSUPPORT);
  }
  const std::string text = fuzz::Bytes(data, size).rest();
  if (const auto parsed = parse_endpoint(text)) {
    const std::string host = address_text(parsed->address);
    CG_LAW(parse_address(host) == parsed->address);
  }
  if (const auto address = parse_address(text)) {
    CG_LAW(parse_address(address_text(*address)) == *address);
  }
  return 0;
}
