// Addresses: one 16-byte form for IPv4 and IPv6, so that two spellings of one host cannot differ.
//
//   IPv4 and IPv4-mapped IPv6 are ::ffff:a.b.c.d; 0.0.0.0 and :: mean the own loopback, as for the
//   kernel; a scope id has no meaning inside the sandbox and is dropped.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>

#include "kernel/address.h"
#include "kernel/result.h"

namespace certgate::supervisor {

using kernel::Address;

struct Endpoint {
  Address address{};
  uint16_t port = 0;
};

// Reads a copied sockaddr. error.code = EINVAL or EAFNOSUPPORT, as connect(2) would say.
Result<Endpoint> endpoint_of(const sockaddr_storage& from, socklen_t size);
// "10.0.0.1" or "fd00::1": never the mapped form.
std::string address_text(const Address& address);
std::optional<Address> parse_address(const std::string& text);
// "127.0.0.1:80" or "[::1]:80".
std::optional<Endpoint> parse_endpoint(const std::string& text);

bool is_ipv4(const Address& address);
bool is_loopback(const Address& address);

// Fills a sockaddr of the family that fits. Returns its size.
socklen_t to_sockaddr(const Endpoint& endpoint, sockaddr_storage& out);

}  // namespace certgate::supervisor
