// Certificate: what lets one call happen. Refusal: the record that one call was not.
//
// Only decide() can make a Certificate (private constructor), it cannot be copied, and perform
// takes it by value: one certificate, one effect. perform recomputes action_digest() from the
// objects it pinned and refuses to act when that differs from `digest()`.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "kernel/call.h"
#include "kernel/label.h"
#include "kernel/policy.h"

namespace certgate::kernel {

// Stable reason codes; the text of each is in reason_text() and never changes meaning.
enum class Reason : uint8_t {
  kUntrustedOrigin = 1,  // UNTRUSTED_ORIGIN: the label has an origin that the scope does not accept
  kScopeMissing = 2,     // SCOPE_MISSING: no rule allows this call on this object
  kForbidden = 3,        // FORBIDDEN: a forbid rule names this object
  kTokenExpired = 4,     // TOKEN_EXPIRED
  kTokenMissing = 5,     // TOKEN_MISSING: no token, or one that does not carry this verb
  kRuleExpired = 6,      // RULE_EXPIRED: the rule's ttl is over
  kBudgetExhausted = 7,  // BUDGET_EXHAUSTED: the rule's or the token's calls are used up
  kHeldWritable =
      8,  // HELD_WRITABLE: the label may not rise while a clean-only file is open for writing
  kConstraint = 9,         // CONSTRAINT_VIOLATION: a form of call that is never performed
  kInternal = 10,          // INTERNAL: our own failure; it is a refusal
  kTokenStaleEpoch = 16,   // TOKEN_STALE_EPOCH: the authority's epoch has moved on
  kTokenRevoked = 17,      // TOKEN_REVOKED: a token of the chain was revoked
  kTokenWrongHolder = 18,  // TOKEN_WRONG_HOLDER: the chain ends with somebody else
  kRateLimited = 19,       // RATE_LIMITED: the token allows no more calls in this period
  kApprovalRequired = 20,  // APPROVAL_REQUIRED: an operator must approve this very action
  kApprovalDenied = 21,    // APPROVAL_DENIED: one said no
  kApprovalExpired = 22,   // APPROVAL_EXPIRED: nobody answered in time
  kClearanceMissing = 26,  // CLEARANCE_MISSING: the sink has no clearance for a tag of the label
  kSchemaBreakout = 23,    // SCHEMA_BREAKOUT: a call that the tool does not spell out
  kToolMismatch = 24,      // TOOL_MISMATCH: the tool's path with other content
  kProvenanceLoss = 25,    // PROVENANCE_LOSS: an argument is not from where the caller says
};
const char* reason_text(Reason reason);  // "UNTRUSTED_ORIGIN"
Result<Reason> parse_reason(std::string_view text);

using Effects = std::variant<OpenEffect, ExecEffect, ConnectEffect>;

// The exact effect as its digest covers it and a record holds it, so that the digest can be made
// again from the record alone. `detail` is deterministic CBOR of what the other fields leave out:
//   open     [fsid, btime, kind, bits (certificate.cc), flags, mode, how]
//   exec     [fsid, btime, inside, [[path, fsid, ino, btime, sha256, inside] of each further
//   image],
//             SHA-256 of the environment, cwd]
//   connect  [transport, host, address, port, path, inside]
struct ActionForm {
  enum class Kind : uint8_t { kOpen = 1, kExec = 2, kConnect = 3 } kind = Kind::kOpen;
  std::string_view path;           // open, exec: of the first image; lent
  uint64_t ino = 0;                // the same
  const Digest* sha256 = nullptr;  // exec: of the first image; lent
  Digest argv{};                   // exec: strings_digest() of it
  std::string detail;
};
ActionForm action_form(const Effects& effect);
Digest strings_digest(const std::vector<std::string>& strings);
struct Risked {
  Risk level = Risk::kLow;
  uint64_t subject = 0;  // hash of verb and object
};

// SHA-256 over the deterministic encoding of the exact effect; domain-separated by kind.
Digest action_digest(const ActionForm& form);
Digest action_digest(const Effects& effect);

struct RuleUse {
  uint32_t rule = 0;  // index in the policy
  uint64_t used = 0;  // calls so far, this one included
};

// One limit of one token that the call uses. Whoever performs takes it first (supervisor's ledger).
struct MeterUse {
  uint32_t token = 0;       // index in the chain
  uint32_t meter = 0;       // 0 = the token's own, else 1 + index of the scope
  uint64_t budget = 0;      // 0 = none
  uint64_t rate_calls = 0;  // 0 = none
  int64_t rate_per_ns = 0;
  uint64_t used = 0;    // after this call
  int64_t full_ns = 0;  // after this call (token_check.h)
};

class Certificate {
 public:
  Certificate(Certificate&&) = default;
  Certificate& operator=(Certificate&&) = default;
  Certificate(const Certificate&) = delete;
  Certificate& operator=(const Certificate&) = delete;

  const Digest& digest() const { return digest_; }
  const std::string& detail() const { return detail_; }  // see ActionForm
  const std::vector<RuleUse>& rules() const { return rules_; }  // one per verb and layer, in order
  const Label& decision_label() const { return decision_; }  // what was judged
  const Label& raised_to() const { return raised_; }         // sandbox label once performed
  const Label& object_label() const { return object_; }      // label the object will carry (writes)
  const std::vector<uint32_t>& shut() const { return shut_; }  // held connections to shut first
  Durability durability() const { return durability_; }
  const std::vector<MeterUse>& meters() const { return meters_; }  // the last token's first
  const std::string& approval() const { return approval_; }        // id; empty: none was needed
  const Risked& risk() const { return risk_; }
  const std::string& tool() const { return tool_; }                // of the rule, when it names one

 private:
  friend class Decider;
  Certificate() = default;
  Digest digest_{};
  std::string detail_;
  std::vector<RuleUse> rules_;
  std::vector<MeterUse> meters_;
  Label decision_, raised_, object_;
  std::vector<uint32_t> shut_;
  std::string tool_;
  Durability durability_ = Durability::kOrdered;
  std::string approval_;
  Risked risk_;
};

struct Refusal {
  Reason reason = Reason::kInternal;
  std::string rule;  // id of the rule whose predicate failed, empty for SCOPE_MISSING
  std::string why;   // the rule's `why`, or what would help
  Origin origin;     // UNTRUSTED_ORIGIN, CLEARANCE_MISSING: the origin or tag that broke it
  std::string argument;  // which part carried it: "agent" (its own label), "file", "held …"
  Label decision;  // the label that was judged
  Risk risk = Risk::kLow;
  Digest digest{};           // APPROVAL_…: what must be approved,
  uint64_t deadline_ns = 0;  // within which time
  std::string approval{};    // the answer that was found
  std::string tool{};
};

}  // namespace certgate::kernel
