// Observing: a run under which the policy only looks on (`certgate run --observe`).
//
//   const Observing two = observing(compiled.policy);
//   hosting.policy = two.wide;  hosting.observed = &two.strict;
//
// `wide` is the policy and, after all its rules, one for each verb that allows what is left, so
// that the decision itself allows the call; `strict` says what the policy would have said
// (session.h). Still refused: what a forbid rule names, what a token does not carry, what is never
// performed, and internal addresses and UDP ports that no rule names.
#pragma once

#include "kernel/policy.h"

namespace certgate::agentd {

struct Observing {
  kernel::Policy wide, strict;  // the same rules by index; those of `strict` beyond the policy's
                                // match nothing
};

Observing observing(const kernel::Policy& policy);

// "observed-read", "admin:observed-read": one of the rules that allow what is left.
bool is_observing_rule(std::string_view id);

}  // namespace certgate::agentd
