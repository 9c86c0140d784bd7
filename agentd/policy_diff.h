// Policy difference, in effects: what one policy allows that another refuses, each with a call that
// shows it, decided by the kernel under both.
//
//   CG_TRY(const std::vector<Change> changes, differences(before, after, context));
//
// Calls are found from the rules of the policy that would allow more: a shortest path of each path
// pattern that lies outside what the other grants, each place, each form of arguments, under each
// label that the rule accepts. So every change that is said is one; a forbid rule that cuts a hole
// into a pattern is found where its own pattern is the narrower one.
#pragma once

#include <string>
#include <vector>

#include "agentd/policy_call.h"

namespace certgate::agentd {

enum class Direction : uint8_t { kMayNow, kNoLonger };

struct Change {
  Direction direction = Direction::kMayNow;
  std::string what;                 // "may now exec /opt/x (of /opt/**)"
  std::vector<std::string> labels;  // under which: "operator", "operator,web:*", …
  AskedCall call;                   // a witness, under the first of them
  std::string before;               // verdict lines
  std::string after;
};

Result<std::vector<Change>> differences(const CompiledPolicy& before, const CompiledPolicy& after,
                                        const PolicyContext& context);

}  // namespace certgate::agentd
