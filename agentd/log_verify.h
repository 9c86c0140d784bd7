// verify_log: recomputes a whole log and says whether it is the one that was signed.
//
//   CG_TRY(VerifyReport report, verify_log(state_dir));   // an Error: it could not be read at all
//   report.good ? "yes" : report.where + ": " + report.what;
//   report.unaltered.word, report.complete.word, report.witnessed.word
//
// Accounted for: every byte of every file below log/ (none missing, none extra), key.pub,
// checkpoint.last; the records of each run gapless from 1 and closed by a stop or gap record,
// unless the run still has a segment (then a note says so). Entry bundles at the start may be gone
// where a `pruned` record that is left says so: the root still covers their hashes. The private key is not needed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agentd/cosignature.h"
#include "kernel/call.h"
#include "kernel/result.h"

namespace certgate::agentd {

// One of the three questions: "yes", "no", or "unknown"/"none" where nothing was there to judge by.
struct Verdict {
  std::string word = "unknown";
  std::string detail;
};

struct VerifyReport {
  // All the records that were signed, and nothing contradicts itself: unaltered, and the sequence
  // of each run without a hole. What the log itself says is missing (a gap record) is in `complete`
  // alone.
  bool good = false;
  Verdict unaltered;  // every byte is what was signed
  Verdict complete;   // every run from start to stop, no gap record
  Verdict witnessed;  // a checkpoint that others hold or cosigned is the start of this log
  uint64_t records = 0;
  kernel::Digest root{};
  std::string where;               // not good: the file, and the record or byte in it
  std::string what;                // not good: what is wrong there
  std::vector<std::string> notes;  // runs that are not wholly sealed
};

// What the checker holds besides the key.
struct OutsideView {
  std::string checkpoint;        // a note, perhaps cosigned; "" = those kept beside the log
  std::vector<WitnessKey> keys;  // of witnesses that are believed
};

// `expected_key`: the text of key.pub as someone kept it elsewhere; "" takes the one beside the
// log, which shows that the log is whole but not whose it is.
Result<VerifyReport> verify_log(const std::string& state_dir, const std::string& expected_key = "",
                                const OutsideView& outside = {});

}  // namespace certgate::agentd
