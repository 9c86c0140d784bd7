// What a run is given beyond its command: messages of the user, and the digests of pinned tools.
#pragma once

#include "agentd/run_plan.h"

namespace certgate::agentd {

inline constexpr size_t kMaxMessages = 16;
inline constexpr size_t kMaxMessageBytes = 1 << 20;

// Reads and digests them into plan.spec, plan.policy and plan.given; opens the tool gate when there
// is something to ask for. An agent that is given a message has taken in the user's words.
Status add_given(const RunOptions& options, RunPlan& plan);

}  // namespace certgate::agentd
