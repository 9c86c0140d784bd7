// What a decision does to the state: a label that rises, and what an allowed call uses up.
#include <algorithm>

#include "kernel/decide.h"

namespace certgate::kernel {

std::variant<Raise, Refusal> Decider::raise(const State& state, const Label& joined) const {
  Raise out{state.label.join(joined), {}};
  if (out.to == state.label) return out;
  for (size_t i = 0; i < state.held.size(); ++i) {
    const Held& held = state.held[i];
    const auto rejected_by = [&](const Rule& rule) {
      const Origin* origin = rule.accept.first_rejected(out.to);
      const bool sink = held.kind == Held::Kind::kConnection && origin == nullptr;
      return sink ? rule.clearance.first_rejected(out.to) : origin;
    };
    const Rule* rule = &policy_.rules[held.rule];
    const Origin* rejected = rejected_by(*rule);
    for (size_t k = 0; k < held.lower.size() && rejected == nullptr; ++k) {
      rule = &policy_.rules[held.lower[k]];
      rejected = rejected_by(*rule);
    }
    if (rejected == nullptr) continue;
    if (held.kind == Held::Kind::kConnection) {
      out.shut.push_back(static_cast<uint32_t>(i));
      continue;
    }
    Refusal refusal;
    refusal.reason = Reason::kHeldWritable;
    refusal.rule = rule->id;
    refusal.why =
        held.object + " is open for writing where this origin may not write; close it first";
    refusal.decision = out.to;
    refusal.origin = *rejected;
    refusal.argument = "held " + held.object;
    return refusal;
  }
  return out;
}

Refusal Decider::constraint(const State& state, std::string why) const {
  Refusal out;
  out.reason = Reason::kConstraint;
  out.why = std::move(why);
  out.decision = state.label;
  return out;
}

void apply(State& state, const Certificate& certificate) {
  state.label = state.label.join(certificate.raised_to());
  // One call is one use of a rule, however many of its parts the rule answered for.
  for (const RuleUse& use : certificate.rules()) {
    if (use.rule < state.used.size()) state.used[use.rule] = use.used;
  }
  for (const MeterUse& use : certificate.meters()) {
    auto& tokens = state.tokens.of;
    if (use.token >= tokens.size()) tokens.resize(use.token + 1);
    auto& meters = tokens[use.token].meters;
    if (use.meter >= meters.size()) meters.resize(use.meter + 1);
    meters[use.meter] = {use.used, use.full_ns};
  }
  remember(certificate.risk().subject, state.seen);
  std::erase_if(state.approvals, [&](const Approval& a) { return a.id == certificate.approval(); });
}

}  // namespace certgate::kernel
