#include "supervisor/recorder.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "kernel/frame.h"
#include "kernel/mutant.h"

namespace certgate::supervisor {
namespace {

constexpr size_t kLateBytes = 4096;  // of the mutant

int64_t now_ns(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

}  // namespace

Recorder::Recorder(std::string run, std::string token, sandbox::UniqueFd segment, uint64_t next_seq,
                   RecordRate* rate)
    : run_(std::move(run)),
      token_(std::move(token)),
      segment_(std::move(segment)),
      rate_(rate),
      next_seq_(next_seq) {}

Result<uint64_t> Recorder::append(kernel::Record record, kernel::Durability durability) {
  const std::lock_guard lock(mutex_);
  return append_locked(std::move(record), durability);
}

Result<uint64_t> Recorder::append_locked(kernel::Record record, kernel::Durability durability) {
  if (closed_) return fail("the run has ended: no record, no effect", ESHUTDOWN);
  if (failed_) return fail("the log has failed earlier: no record, no effect", EIO);
  record.run = run_;
  record.token = token_;
  record.seq = next_seq_;
  std::replace(record.lineage.begin(), record.lineage.end(), kernel::kThisRecord, next_seq_);
  record.wall_ns = now_ns(CLOCK_REALTIME);
  record.boot_ns = now_ns(CLOCK_BOOTTIME);
  encoded_.clear();
  if (!mutant(Mutant::kRecordFirst) || frame_.size() > kLateBytes) frame_.clear();
  kernel::encode_record(record, encoded_);
  if (!kernel::append_frame(encoded_.data(), encoded_.size(), frame_)) {
    failed_ = true;
    return fail("a record is too long for a frame", EMSGSIZE);
  }
  if (mutant(Mutant::kRecordFirst) && frame_.size() <= kLateBytes &&
      durability != kernel::Durability::kStrict) {
    return next_seq_++;
  }
  // One write per frame: a short write leaves a torn frame behind, so nothing may follow it.
  const ssize_t n = ::write(segment_.get(), frame_.data(), frame_.size());
  if (n != static_cast<ssize_t>(frame_.size())) {
    failed_ = true;
    return fail_errno("append to the log segment (is the disk full?)", n < 0 ? errno : ENOSPC);
  }
  if (durability == kernel::Durability::kStrict && ::fdatasync(segment_.get()) != 0) {
    failed_ = true;
    return fail_errno("fdatasync of the log segment", errno);
  }
  if (rate_ != nullptr) rate_->count(record.boot_ns);
  return next_seq_++;
}

bool Recorder::closed() {
  const std::lock_guard lock(mutex_);
  return closed_;
}

Status Recorder::close(kernel::Record stop) {
  const std::lock_guard lock(mutex_);
  stop.kind = kernel::RecordKind::kStop;
  stop.count = next_seq_ - 1;
  CG_CHECK(append_locked(std::move(stop), kernel::Durability::kStrict));
  closed_ = true;
  return ok();
}

}  // namespace certgate::supervisor
