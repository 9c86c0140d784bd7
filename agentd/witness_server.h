// Witness server: HTTP/1.1 around a Witness: POST /add-checkpoint, nothing else.
//
//   CG_TRY(WitnessServer server, WitnessServer::listen("127.0.0.1:7380", witness));
//   say(server.address());
//   CG_CHECK(server.run());            // until SIGTERM or SIGINT
//
// One thread. A connection has kWitnessWait for a request and its answer, its body a limit, and
// there are at most kWitnessConnections of them: who sends slowly waits for nobody and holds up
// nobody.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "agentd/witness.h"
#include "kernel/result.h"

namespace certgate::agentd {

inline constexpr std::chrono::seconds kWitnessWait{10};
inline constexpr size_t kWitnessConnections = 64;

class WitnessServer {
 public:
  // `where`: ADDRESS:PORT, [ADDRESS]:PORT for IPv6; port 0 takes a free one.
  static Result<WitnessServer> listen(const std::string& where, const Witness& witness);
  WitnessServer(WitnessServer&&) noexcept;
  ~WitnessServer();
  std::string address() const;
  Status run();

 private:
  struct Impl;
  explicit WitnessServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace certgate::agentd
