// Labels: the set of origins that may have influenced something, and of secrecy tags that say what
// it may tell.
//
//   Label p = Label::of({Origin::parse("operator"), ...});
//   Label q = p.join(page);              // adding taint: p ⊆ q always
//   accepts(rule.accept, q)              // "clean for this scope": no origin is left over
//
// Order: subset. Join: union (associative, commutative, idempotent). Bottom: {}.
// Tags are joined like origins and judged the other way round: `accept` never looks at them, and a
// sink refuses a label with a tag for which it has no clearance.
// Grammar of an origin:
//   origin  = "operator" | "user" | "policy" | "model" | "tool" | "unknown"
//           | "agent:" id | "file:" zone | "web:" host
//   pattern = origin | "agent:*" | "file:*" | "web:*"
//   tag     = "secret:" name             in labels and clearances only, never an origin
// A class with too many details (label.cc: 4 agents, 6 zones, 16 hosts, 6 tags) widens to
// "class:*", which only adds, and keeps a label within kMaxOrigins. Values are immutable and cheap
// to copy (shared); safe to read from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/result.h"

namespace certgate::kernel {

inline constexpr size_t kMaxOrigins = 38;
inline constexpr size_t kMaxOriginDetail = 255;  // bytes: a DNS name is at most 253

enum class OriginClass : uint8_t {
  kOperator,
  kUser,
  kPolicy,
  kModel,
  kTool,
  kAgent,
  kFile,
  kWeb,
  kUnknown,
  kSecret  // no origin: a secrecy tag
};
inline constexpr size_t kOriginClasses = 10;

struct Origin {
  OriginClass cls = OriginClass::kUnknown;
  std::string detail;  // host, zone or agent id; "*" = any of the class; empty for plain classes

  static Result<Origin> parse(std::string_view text);
  static Result<Origin> parse_tag(std::string_view text);  // "secret:env"
  std::string text() const;
  auto operator<=>(const Origin&) const = default;
};

class Label {
 public:
  Label() = default;  // bottom: nothing has influenced it
  static Label of(std::vector<Origin> origins);
  static Label unknown();                             // {unknown}: what a thing without a label has
  static Result<Label> parse(std::string_view text);  // "operator,user,web:a.test"; "" = bottom

  Label join(
      const Label& other) const;  // least upper bound; returns *this unchanged if it covers other
  bool covers(const Label& other) const;  // other ⊆ *this ("web:*" covers "web:a")
  bool operator==(const Label& other) const;
  bool empty() const { return mask_ == 0; }
  uint32_t mask() const { return mask_; }      // bit per OriginClass present
  const std::vector<Origin>& origins() const;  // sorted, unique
  std::string text() const;                    // canonical: sorted, comma-separated

 private:
  uint32_t mask_ = 0;
  std::shared_ptr<const std::vector<Origin>> origins_;  // null = empty
};

// The origins that a scope accepts, as a rule states them; or the tags that a sink has clearance
// for. Each looks at its own half of a label only.
class AcceptSet {
 public:
  enum class Of : uint8_t { kOrigins, kTags };
  explicit AcceptSet(Of of = Of::kOrigins);  // accepts none of them
  static Result<AcceptSet> parse(const std::vector<std::string>& patterns, Of of = Of::kOrigins);
  bool accepts(const Label& label) const;
  // The first origin (or tag) of `label` that is not accepted (what a refusal names), or nullptr.
  const Origin* first_rejected(const Label& label) const;
  std::vector<std::string> texts() const;  // canonical, for the policy digest and for people

 private:
  uint32_t judged_;           // classes looked at
  uint32_t whole_ = 0;        // classes accepted whole
  std::vector<Origin> some_;  // single origins, sorted
};

}  // namespace certgate::kernel
