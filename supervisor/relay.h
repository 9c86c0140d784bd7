// Relay: carries bytes between an agent's connection (accepted inside) and the host's (made
// outside).
//
// Both sockets belong to the relay from add() on. shut() cuts a connection for good from any
// thread: when it returns, no byte the agent writes afterwards can leave. Bounded: one buffer per
// direction, so a slow reader slows the writer, as TCP would.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "sandbox/fd.h"

namespace boost::asio {
class io_context;
}

namespace certgate::supervisor {

inline constexpr size_t kRelayBuffer = 65536;  // bytes per direction
inline constexpr size_t kMaxRelays = 4096;

class Relay {
 public:
  explicit Relay(boost::asio::io_context& io);
  ~Relay();
  // Returns the connection's id, or 0 when there are too many. `on_end` runs on the io thread once.
  // Nothing flows before start().
  uint64_t add(sandbox::UniqueFd inside, sandbox::UniqueFd outside, std::function<void()> on_end);
  void start(uint64_t id);
  void shut(uint64_t id);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace certgate::supervisor
