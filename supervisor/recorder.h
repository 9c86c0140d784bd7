// Recorder: appends this agent's records to its log segment, before the effect they are about.
//
//   CG_TRY(uint64_t seq, recorder.append(std::move(record), Durability::kOrdered));
//
// `ordered`: when append returns, the bytes are in the segment's page cache and survive
// the death of every process of ours. `strict`: fdatasync has returned too; one fdatasync is for
// all who wait for one, and nobody waits with the lock in his hand. After any error the recorder
// stays failed: no record, no effect.
//
// A disk that fills up is no error: before it is full (log_room.h) a halt record says so, whatever
// takes the agent's calls waits in wait_for_room(), and a second halt record says when there was
// room again. Calls in progress still record.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernel/policy.h"
#include "kernel/record.h"
#include "kernel/result.h"
#include "sandbox/fd.h"
#include "supervisor/blob_file.h"
#include "supervisor/process_table.h"
#include "supervisor/record_rate.h"
#include "supervisor/redaction.h"
#include "supervisor/segment_writer.h"

namespace certgate::supervisor {

class Recorder {
 public:
  // `rate`, if any, counts every record and must outlive this.
  Recorder(std::string run, std::string token, sandbox::UniqueFd segment, uint64_t next_seq,
           RecordRate* rate = nullptr);

  // Before the first append: where what is kept out of records goes, and what that is.
  void keep_out(sandbox::UniqueFd blobs, Redaction redaction);

  // Fills run, seq, times and token, and writes one frame, after the blobs of what is kept out of
  // it. `env`: of an exec. Returns the record's seq. Thread-safe.
  Result<uint64_t> append(kernel::Record record, kernel::Durability durability,
                          const std::vector<std::string>* env = nullptr);

  // Returns when everything that was appended before this call is on the disk, blobs first.
  Status make_durable();

  // Writes the stop record (count = the last seq before it), durably; every later append fails.
  Status close(kernel::Record stop);

  bool closed();
  // At the exec proof, before its outcome is recorded: the process now runs the image of `seq`.
  // When the process was started (ProcessTable).
  uint64_t image_started(int pid, uint64_t seq);
  // Called at each change, by whichever thread finds it, under the recorder's lock.
  void on_full(std::function<void(LogRoom::Change)> handler) { on_full_ = std::move(handler); }
  // Before a call is taken: returns at once, or when there is room again or the run has ended.
  void wait_for_room();
  void end_waits() { ending_.store(true); }  // nobody waits from now on
  // Looks again, when the disk was full.
  Status look_for_room();
  // More records than the agent may make: what can wait or be left unjudged should be.
  bool crowded() const { return (rate_ != nullptr && rate_->full()) || full_.load(); }
  const std::string& run() const { return run_; }

 private:
  Result<uint64_t> append_locked(kernel::Record& record, kernel::Durability durability);
  Result<uint64_t> write_locked(kernel::Record& record, kernel::Durability durability);
  Status hide(kernel::Record& record, const std::vector<std::string>* env);
  Status sync_files(bool blobs);
  Status sync_for_all(std::unique_lock<std::mutex>& lock);
  Status keep_room();

  const std::string run_;
  const std::string token_;
  RecordRate* const rate_;
  std::mutex mutex_;  // guards the fields below and the order of frames
  SegmentWriter segment_;
  uint64_t next_seq_;
  std::atomic<uint64_t> durable_{0};  // of the segment's size, what is known to be on the disk
  uint64_t durable_blobs_ = 0;        // the same of the blobs
  bool syncing_ = false;              // by one of those who wait
  std::atomic<uint32_t> syncs_{0};    // that have ended: what the others wait for
  size_t waiting_ = 0, batch_ = 0;    // callers for the next sync, and whom the last one was for
  std::chrono::nanoseconds sync_took_{0};
  std::condition_variable came_;
  std::optional<BlobFile> blobs_;
  Redaction redaction_;
  ProcessTable processes_;
  std::atomic<bool> full_{false};  // either of the two
  std::atomic<bool> ending_{false};
  uint64_t halt_seq_ = 0;  // of the halt record that holds, and when it was made
  int64_t halted_ns_ = 0;
  std::function<void(LogRoom::Change)> on_full_;
  bool failed_ = false, closed_ = false;
  std::vector<uint8_t> encoded_, frame_;  // reused buffers
};

}  // namespace certgate::supervisor
