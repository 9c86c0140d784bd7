// Names: what a name means inside is decided here, not by any server.
//
// Each name that some rule could allow gets an address of its own from 198.18.0.0/15 (RFC 2544,
// never routed). The agent connects to that address; the call is judged by the name; where the
// connection goes is resolved on the host at that moment. So an address cannot be swapped for
// another, two names never share one, and a name query leaves the host only for names a rule
// allows.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernel/policy.h"
#include "supervisor/address.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxNames = 65536;  // per run

class NameTable {
 public:
  explicit NameTable(const kernel::Policy& policy) : policy_(&policy) {}
  // Another policy from now on; both must outlive this. Names keep their addresses.
  void use(const kernel::Policy& policy) { policy_.store(&policy); }
  // Whether some rule could allow a connection to this name (lower case, no trailing dot).
  bool could_allow(const std::string& name) const;
  // Whether some rule that names it accepts this label: only then may the host's name service hear
  // of it, because a question carries whatever the name is made of.
  bool allows_now(const std::string& name, const kernel::Label& label) const;
  // Whether every rule that names it also says where it leads (`via`), so that nobody need be
  // asked.
  bool has_via(const std::string& name) const;
  // The address that stands for `name`; nullopt when the table is full.
  std::optional<Address> bind(const std::string& name);
  std::optional<std::string> name_of(const Address& address) const;

 private:
  std::atomic<const kernel::Policy*> policy_;
  mutable std::mutex mutex_;  // guards both maps
  std::map<std::string, uint32_t> numbers_;
  std::vector<std::string> names_;  // index = number
};

// Resolves a name on the host (blocking), in the order the host prefers.
Result<std::vector<Address>> resolve_on_host(const std::string& name);

}  // namespace certgate::supervisor
