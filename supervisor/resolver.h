// Resolver: the only name server inside, on UDP and TCP port 53 of kResolverAddress.
//
// Answers A queries for names that some connect rule could allow with the address that stands for
// the name (name_table.h); AAAA and other types of such names get an empty answer; every other name
// gets NXDOMAIN and a refusal in the log. Whether an allowed name exists at all is asked on the
// host, off the io thread, and remembered for a while.
#pragma once

#include <memory>

#include "supervisor/connect_call.h"
#include "supervisor/name_table.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxLookups = 256;    // names the host is asked for at once
inline constexpr size_t kMaxWaiters = 1024;   // queries that wait for them; more get SERVFAIL
inline constexpr size_t kMaxTcpQueries = 64;  // TCP connections to the resolver

class Resolver {
 public:
  // Opens its sockets inside. Runs on the io context's thread.
  static Result<Resolver> start(boost::asio::io_context& io, NetCalls& net, NameTable& names,
                                Session& session);
  Resolver(Resolver&&) noexcept;
  ~Resolver();

 private:
  struct Impl;
  explicit Resolver(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace certgate::supervisor
