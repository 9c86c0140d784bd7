// Recorder: appends this agent's records to its log segment, before the effect they are about.
//
//   CG_TRY(uint64_t seq, recorder.append(std::move(record), Durability::kOrdered));
//
// `ordered`: when append returns, the bytes are in the page cache of an O_APPEND file and survive
// the death of every process of ours. `strict`: fdatasync has returned too. After any error the
// recorder stays failed: no record, no effect.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kernel/policy.h"
#include "kernel/record.h"
#include "kernel/result.h"
#include "sandbox/fd.h"
#include "supervisor/record_rate.h"

namespace certgate::supervisor {

class Recorder {
 public:
  // `rate`, if any, counts every record and must outlive this.
  Recorder(std::string run, std::string token, sandbox::UniqueFd segment, uint64_t next_seq,
           RecordRate* rate = nullptr);

  // Fills run, seq, times and token, and writes one frame. Returns the record's seq. Thread-safe.
  Result<uint64_t> append(kernel::Record record, kernel::Durability durability);

  // Writes the stop record (count = the last seq before it), durably; every later append fails.
  Status close(kernel::Record stop);

  bool closed();
  // More records than the agent may make: what can wait or be left unjudged should be.
  bool crowded() const { return rate_ != nullptr && rate_->full(); }
  const std::string& run() const { return run_; }

 private:
  Result<uint64_t> append_locked(kernel::Record record, kernel::Durability durability);

  const std::string run_;
  const std::string token_;
  const sandbox::UniqueFd segment_;
  RecordRate* const rate_;
  std::mutex mutex_;  // guards the fields below and the order of frames
  uint64_t next_seq_;
  bool failed_ = false, closed_ = false;
  std::vector<uint8_t> encoded_, frame_;  // reused buffers
};

}  // namespace certgate::supervisor
