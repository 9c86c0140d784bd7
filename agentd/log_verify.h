// verify_log: recomputes a whole log and says whether it is the one that was signed.
//
//   CG_TRY(VerifyReport report, verify_log(state_dir));   // an Error: it could not be read at all
//   report.good ? "yes" : report.where + ": " + report.what;
//
// Accounted for: every byte of every file below log/ (none missing, none extra), key.pub,
// checkpoint.last; the records of each run gapless from 1 and closed by a stop or gap record,
// unless the run still has a segment (then a note says so). Entry bundles at the start may be gone
// where a `pruned` record that is left says so: the root still covers their hashes. The private key is not needed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"

namespace certgate::agentd {

struct VerifyReport {
  bool good = false;
  uint64_t records = 0;
  kernel::Digest root{};
  std::string where;               // not good: the file, and the record or byte in it
  std::string what;                // not good: what is wrong there
  std::vector<std::string> notes;  // runs that are not wholly sealed
};

// `expected_key`: the text of key.pub as someone kept it elsewhere; "" takes the one beside the
// log, which shows that the log is whole but not whose it is.
Result<VerifyReport> verify_log(const std::string& state_dir, const std::string& expected_key = "");

}  // namespace certgate::agentd
