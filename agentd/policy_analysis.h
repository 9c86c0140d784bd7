// Policy analysis: what a policy's author would want to be told before anybody runs under it.
//
//   CG_TRY(const std::vector<Finding> found, analyze(policy));
//   for (const Finding& f : found) print(f.place, f.rule, f.what);
//
// Everything said is true of every run. Paths are compared exactly (kernel/path_cover.h); what is
// too complex to compare is said as such. Checks, each a row of a table in policy_analysis.cc:
//   never        an allow rule all of whose paths some forbid rules refuse
//   shadowed     an allow rule whose every call an earlier one, accepting no less, allows already
//   nobody       a right that no agent can be clean for: it does not accept the operator's origin,
//                which every agent has
//   inverted     a right to exec or write for agents that outsiders influence, and only for those
//   wide         exec with any arguments of programs that run others, for any influence at all
//   leaks        a clearance for secrets of a rule that agents under outsiders' influence may use
//   formless     a tool whose program another rule grants with any arguments, accepting no less
//   loose        a tool that hands outsiders' text to a program that runs others
#pragma once

#include <string>
#include <vector>

#include "kernel/policy.h"

namespace certgate::agentd {

enum class Severity : uint8_t { kNote, kError };

struct Finding {
  const char* check;  // stable: the words above
  Severity severity = Severity::kError;
  std::string rule;
  std::string place;  // "file:line"
  std::string what;
};

// In the policy's order.
std::vector<Finding> analyze(const kernel::Policy& policy);

}  // namespace certgate::agentd
