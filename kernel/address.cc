#include "kernel/address.h"

#include <algorithm>
#include <iterator>

namespace certgate::kernel {
namespace {

struct Range {
  uint8_t bytes[16];
  unsigned bits;
};
// IPv4 ranges are written in the mapped form: their prefix length counts from 96.
constexpr Range v4(uint8_t a, uint8_t b, uint8_t c, unsigned bits) {
  return {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, 0}, 96 + bits};
}
constexpr Range kInternal[] = {
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(224, 0, 0, 3),
    {{0}, 96},                                   // ::, ::1 and the old IPv4-compatible form
    {{0xfc}, 7},                                 // unique local
    {{0xfe, 0x80}, 10},                          // link local
    {{0xff}, 8},                                 // multicast
    {{0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96},  // SIIT: an IPv4 address in disguise
    {{0, 0x64, 0xff, 0x9b}, 32},                 // NAT64: an IPv4 address in disguise
    {{0x20, 0x02}, 16},                          // 6to4, likewise
};

bool in_range(const Address& a, const Range& r) {
  for (unsigned bit = 0; bit < r.bits; bit += 8) {
    const unsigned left = std::min(8u, r.bits - bit);
    const auto mask = static_cast<uint8_t>(0xff << (8 - left));
    if ((a[bit / 8] & mask) != (r.bytes[bit / 8] & mask)) return false;
  }
  return true;
}

}  // namespace

bool is_internal(const Address& address, unsigned prefix_bits) {
  return std::any_of(std::begin(kInternal), std::end(kInternal),
                     [&](const Range& r) { return prefix_bits >= r.bits && in_range(address, r); });
}

}  // namespace certgate::kernel
