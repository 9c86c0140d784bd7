// Addresses that a policy must name to reach: those of the host and of networks around it.
//
//   is_internal(a)                   // 169.254.169.254, 10.1.2.3, ::1 ...: true
//   is_internal(network, prefix)     // the whole block lies within one internal range
//
// One 16-byte form for both families: IPv4 is ::ffff:a.b.c.d, its prefix lengths count from 96.
#pragma once

#include <array>
#include <cstdint>

namespace certgate::kernel {

using Address = std::array<uint8_t, 16>;

// Loopback, private, link-local (cloud metadata), carrier-grade NAT, unique-local, multicast,
// reserved (RFC 6890), and the forms that hide an IPv4 address (NAT64, 6to4).
bool is_internal(const Address& address, unsigned prefix_bits = 128);

}  // namespace certgate::kernel
