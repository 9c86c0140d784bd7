#include "supervisor/address.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

namespace certgate::supervisor {
namespace {

Result<Endpoint> from_v6(const char* text, uint16_t port) {
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port);
  in6.sin6_scope_id = 7;
  ::inet_pton(AF_INET6, text, &in6.sin6_addr);
  sockaddr_storage storage{};
  std::memcpy(&storage, &in6, sizeof in6);
  return endpoint_of(storage, sizeof in6);
}

Result<Endpoint> from_v4(const char* text, uint16_t port) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  ::inet_pton(AF_INET, text, &in.sin_addr);
  sockaddr_storage storage{};
  std::memcpy(&storage, &in, sizeof in);
  return endpoint_of(storage, sizeof in);
}

TEST(Address, SpellingsOfOneHostAreOneAddress) {
  EXPECT_EQ(from_v6("::ffff:169.254.169.254", 80)->address,
            from_v4("169.254.169.254", 80)->address);
  EXPECT_EQ(from_v4("0.0.0.0", 80)->address, from_v4("127.0.0.1", 80)->address);
  EXPECT_EQ(from_v6("::", 80)->address, from_v6("::1", 80)->address);
  EXPECT_EQ(from_v6("::ffff:0.0.0.0", 80)->address, from_v4("127.0.0.1", 80)->address);
}

TEST(Address, InternalRangesAreKnownInEverySpelling) {
  for (const char* text :
       {"127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.1.2.3", "224.0.0.1", "255.255.255.255", "198.18.0.5", "::1", "fd00:ec2::254", "fe80::1",
        "ff02::1", "64:ff9b::7f00:1", "2002:7f00:1::"}) {
    const auto address = parse_address(text);
    ASSERT_TRUE(address) << text;
    EXPECT_TRUE(kernel::is_internal(*address)) << text;
  }
  for (const char* text :
       {"1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "198.20.0.1"}) {
    EXPECT_FALSE(kernel::is_internal(*parse_address(text))) << text;
  }
}

TEST(Address, TextRoundTrips) {
  for (const char* text : {"10.0.0.1", "::1", "2001:db8::5"})
    EXPECT_EQ(address_text(*parse_address(text)), text);
  const auto endpoint = parse_endpoint("[::1]:8080");
  ASSERT_TRUE(endpoint);
  EXPECT_EQ(endpoint->port, 8080);
  for (const char* bad :
       {"", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "host:80", "127.0.0.1:8x"}) {
    EXPECT_FALSE(parse_endpoint(bad)) << bad;
  }
}

TEST(Address, ShortSockaddrsAreRefused) {
  sockaddr_storage storage{};
  storage.ss_family = AF_INET;
  EXPECT_EQ(endpoint_of(storage, 4).error().code, EINVAL);
  storage.ss_family = AF_INET6;
  EXPECT_EQ(endpoint_of(storage, 16).error().code, EINVAL);
  storage.ss_family = AF_UNIX;
  EXPECT_EQ(endpoint_of(storage, 16).error().code, EAFNOSUPPORT);
}

TEST(Address, SockaddrRoundTrips) {
  for (const char* text : {"10.0.0.1", "2001:db8::5"}) {
    sockaddr_storage storage{};
    const Endpoint endpoint{*parse_address(text), 443};
    const socklen_t size = to_sockaddr(endpoint, storage);
    const auto back = endpoint_of(storage, size);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->address, endpoint.address);
    EXPECT_EQ(back->port, 443);
  }
}

}  // namespace
}  // namespace certgate::supervisor
