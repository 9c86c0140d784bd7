// Recorded calls, decided again: what `policy explain --record` and `policy learn` rest on.
//
//   CG_TRY(RecordedRun run, read_run(log, "k3u7x2qa"));
//   for (const Record& r : run.calls) {
//     CG_TRY(Answer answer, decide_again(policy, run.context, r, {}));
//   }
//
// The decision is the kernel's own (policy_call.h); the call is as far as its record tells. What a
// record does not have: the label of an opened file (only what it raised the agent's to), whether a
// name took another thing's place, arguments beyond 64 or 256 bytes each. The interpreters of a
// script are those that the file has now.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agentd/log_snapshot.h"
#include "agentd/policy_call.h"

namespace certgate::agentd {

struct RecordedRun {
  kernel::Record start;
  PolicyContext context;              // of the sandbox: what @workspace and ~ were
  std::vector<kernel::Record> calls;  // certificates and refusals of the agent, in order
};

// `run`: a run's id; empty: the last one that was observed.
Result<RecordedRun> read_run(const LogSnapshot& log, const std::string& run);

// Whether policy had a say: certificates without a rule stay inside the sandbox.
bool is_judged(const kernel::Record& record);
// An open for writing that was judged for reading as well.
bool reads_too(const kernel::Record& record);

Result<kernel::Call> recorded_call(const kernel::Record& record, const PolicyContext& context);
Result<Answer> decide_again(const kernel::Policy& policy, const PolicyContext& context,
                            const kernel::Record& record, std::vector<uint64_t> used);

}  // namespace certgate::agentd
