// Learning: the narrowest policy that covers what a run did, for a person to read and correct.
//
//   CG_TRY(Proposal p, propose(run, observed, base, {}));
//   write(p.text);                                    // TOML; extends base/system
//   CG_TRY(Replay again, replay(policy, run));        // every recorded call, decided again
//
// What base/system allows needs no rule. The rest is grouped: one rule for each program (with its
// sub-commands where it has few), for each directory written in, for each host. Within a directory,
// from `together` files on it is the directory's files, from as many sub-directories on all below
// it; a name that came and went (written, then moved or removed) stands for its directory at once,
// as the next one will be another. Zones, sandbox, limits and forbid rules are those of the policy
// that was observed.
//
// A rule accepts the operator, the user, and those of policy, model and tool under which its calls
// were seen. Calls made under anything else (web pages, other agents, unknown input) may have been
// that page's idea: they are left out and counted, unless `accept_web` takes in the hosts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "agentd/recorded_call.h"

namespace certgate::agentd {

struct LearnOptions {
  size_t together = 3;
  bool accept_web = false;
};

struct Proposal {
  std::string text;
  size_t calls = 0;                        // that the proposal covers
  std::map<std::string, size_t> left_out;  // by the origin that is not accepted
  std::vector<std::string> refused;        // ids of refusals: of what not even observing allows
};

// `observed`: the policy of the run, all layers; `base`: base/system.
Result<Proposal> propose(const RecordedRun& run, const CompiledPolicy& observed,
                         const CompiledPolicy& base, const LearnOptions& options);

struct Replay {
  size_t allowed = 0;
  std::vector<std::pair<kernel::Record, Answer>> refused;  // of the certificates; at most 1,000
  size_t refusals = 0;
};

// Budgets count as in the run; times do not pass.
Result<Replay> replay(const CompiledPolicy& policy, const RecordedRun& run);

}  // namespace certgate::agentd
