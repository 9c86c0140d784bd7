// decide: (policy, token, state, call, now) -> certificate or refusal. Pure.
//
//   Decider decider(policy, token);
//   Verdict v = decider.decide(state, call, now);
//   if (auto* cert = std::get_if<Certificate>(&v)) { record(*cert); perform(std::move(*cert)); }
//
// No I/O, no clock, no threads, no globals: the same input gives the same bytes of output.
// The label rules (design §7):
//   read     judged under the sandbox's label P; then P := P ⊔ object
//   write    judged under P; the file's label becomes object ⊔ P (reported as object_label)
//            a file with several names is written only under an untouched label: nobody knows the
//            rules of its other names
//   exec     judged under P ⊔ object (object = join of all images' labels); then P := that
//   connect  judged under P; then P := P ⊔ origin of the peer (the rule's, else web:<host>, for a
//            unix socket unknown). An `inside` peer adds nothing and needs no rule. It is the
//            only sink: whatever else is written keeps its label, secrecy and all
// A raise (P grows) is a transaction: a held writable file whose rule does not accept the new label
// refuses the call (HELD_WRITABLE); held connections whose rule does not accept it are listed in
// Certificate::shut and must be shut down before the call is answered.
// Approvals are looked at when all else holds. One is good for one action digest under no more than
// the label that the operator saw, once: apply() takes it away.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernel/call.h"
#include "kernel/certificate.h"
#include "kernel/label.h"
#include "kernel/policy.h"
#include "kernel/risk.h"
#include "kernel/rule_index.h"
#include "kernel/token_check.h"

namespace certgate::kernel {

struct Held {
  enum class Kind : uint8_t { kWritableFile, kConnection } kind = Kind::kWritableFile;
  uint32_t rule = 0;              // the rule that allowed it
  std::string object;             // path or host:port, for the refusal
  std::vector<uint32_t> lower{};  // the rules of the layers below that allowed it too
};

// What became of one request to the operators.
struct Approval {
  enum class Answer : uint8_t { kApproved, kDenied, kExpired } answer = Answer::kExpired;
  std::string id;        // of the request
  Digest digest{};       // of the one action
  Label label;           // that it was asked under
  int64_t until_ns = 0;  // CLOCK_BOOTTIME
};

// What the run has accumulated. Owned by the supervisor (under its session lock).
struct State {
  Label label;                 // of the sandbox
  std::vector<uint64_t> used;  // calls per rule, parallel to Policy::rules
  TokenStates tokens;          // as the ledger says, read before each decision
  std::vector<Held> held;      // live handles, index = what Certificate::shut names
  std::vector<Approval> approvals;
  std::vector<uint64_t> seen;  // risk.h
  std::vector<std::string> messages;  // of the user, recorded before the agent started
};

struct Call {
  Effects effect;
  Label object;  // label of the file(s); for connect unused
  std::vector<ArgumentSource> sources{};  // exec: arguments that the caller did not choose
};

using Verdict = std::variant<Certificate, Refusal>;

// What became of one rule while a call was decided: the explanation is the decision itself. Rules
// about other objects leave no step, nor do allow rules after the one that allowed.
struct Step {
  enum class Outcome : uint8_t {
    kArguments,  // about this file, but not with these arguments; a tool: `detail`
    kForbids,
    kRejects,    // does not accept `culprit`
    kUncleared,  // has no clearance for `culprit`
    kExpired,
    kUsedUp,
    kAllows,
    kAsks,
  };
  Verb verb = Verb::kRead;
  size_t image = 0;  // exec: which file of the chain
  uint32_t rule = 0;
  Outcome outcome = Outcome::kAllows;
  Origin culprit{};
  std::string detail{};
};

// What a label that rises takes with it.
struct Raise {
  Label to;
  std::vector<uint32_t> shut;  // held connections whose rule does not accept it, ascending
};

class Decider {
 public:
  // `policy` must outlive the Decider and not change. The chain must already be verified; calls
  // are refused unless its last holder is `holder`.
  Decider(const Policy& policy, TokenChain chain, std::string holder);
  Decider(const Policy& policy, const Token& token);  // alone, by its holder

  // With `steps`: also how it was found, in the order in which the rules were tried.
  Verdict decide(const State& state, const Call& call, const Instant& now,
                 std::vector<Step>* steps = nullptr) const;

  // A raise without a call: another agent is about to change what this one may be reading.
  std::variant<Raise, Refusal> raise(const State& state, const Label& joined) const;

  // A call that is never performed, whatever the policy says (a form we refuse by construction).
  Refusal constraint(const State& state, std::string why) const;

  const Policy& policy() const { return policy_; }
  const TokenChain& chain() const { return chain_; }
  const std::string& holder() const { return holder_; }

 private:
  std::optional<Refusal> ask(const State& state, const Instant& now, const Rule* asking,
                             Certificate& certificate) const;
  const Policy& policy_;
  RuleIndex index_;
  TokenChain chain_;
  std::string holder_;
};

// Applies an allowed call to the state: label, counters. (Held handles are the supervisor's to
// keep.)
void apply(State& state, const Certificate& certificate);

}  // namespace certgate::kernel
