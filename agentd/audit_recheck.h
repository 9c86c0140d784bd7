// `certgate audit recheck`: certificates of a log, each checked again from the records alone.
//
//   CG_TRY(const RecheckReport report, recheck(log, key, "k3u7x2qa-17"));    // "" = every one
//   if (!report.faults.empty()) …
//
// That the records are the log's own is not asked here but by `audit verify`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agentd/log_snapshot.h"
#include "agentd/recheck.h"

namespace certgate::agentd {

inline constexpr size_t kMaxFaults = 100;  // of a report; the others are counted

struct RecordFault {
  std::string id;  // of the record
  std::string step, what;
};

struct RecheckReport {
  uint64_t runs = 0, certificates = 0, failed = 0;  // failed: certificates, and runs without one
  std::vector<RecordFault> faults;                  // the first of each run
  std::string rules;                                // of the one that was asked for, with places
  std::string id;                                   // the same, in full
};

Result<RecheckReport> recheck(const LogSnapshot& log, const VerifierKey& key,
                              const std::string& id);

}  // namespace certgate::agentd
