// Rule index: which rules can possibly be about a path or an endpoint, so that a decision does not
// read every rule of a large policy.
//
//   const RuleIndex index(policy);
//   index.for_path(Verb::kRead, "/usr/lib/x.so", candidates);   // ascending rule indexes
//   for (const uint32_t i : candidates) if (matches(policy.rules[i], …)) …
//
// The index only leaves rules out; whether one matches is still asked of its patterns. So the law
// is: every rule that matches is among the candidates. A pattern is filed under its longest prefix
// of whole components without a wildcard, a host under its name, suffix or masked address; keys
// are 64-bit hashes, and two texts with the same hash are only two candidates more.
//
// Immutable after construction; safe to read from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "kernel/call.h"
#include "kernel/policy.h"

namespace certgate::kernel {

class RuleIndex {
 public:
  explicit RuleIndex(const Policy& policy);

  // The candidates among the rules with this verb, allow and forbid, in the policy's order.
  // `out` is cleared first.
  void for_path(Verb verb, std::string_view path, std::vector<uint32_t>& out) const;
  void for_endpoint(const ConnectEffect& effect, std::vector<uint32_t>& out) const;
  // The forbid rules on write: they also hold for names above what they name (policy.h).
  const std::vector<uint32_t>& forbidding_write() const { return forbidding_write_; }
  // A bit for each layer that must allow a call with this verb.
  unsigned layers(Verb verb) const { return layers_[static_cast<size_t>(verb)]; }

 private:
  using Rules = std::vector<uint32_t>;  // ascending
  using Filed = std::unordered_map<uint64_t, Rules>;

  void file(const PathPattern& pattern, Filed& under, uint32_t rule);
  void file(const EndpointPattern& pattern, uint32_t rule);

  std::array<Filed, kVerbs> paths_;
  Filed sockets_;                     // unix: endpoints, like paths
  Filed hosts_;                       // names, suffixes and masked addresses
  std::vector<uint8_t> prefix_bits_;  // the lengths that address patterns have, ascending
  Rules forbidding_write_;
  std::array<unsigned, kVerbs> layers_{1, 1, 1, 1};  // the first answers for every verb
};

}  // namespace certgate::kernel
