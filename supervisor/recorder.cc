#include "supervisor/recorder.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "kernel/mutant.h"
#include "supervisor/frame.h"

namespace certgate::supervisor {
namespace {

constexpr size_t kLateBytes = 4096;  // of the mutant

int64_t now_ns(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

constexpr uint64_t kBytesOfARecord = 256;
constexpr timespec kLookAgain{0, 100'000'000};
constexpr std::chrono::nanoseconds kLongestGathering{2'000'000};

}  // namespace

Recorder::Recorder(std::string run, std::string token, sandbox::UniqueFd segment, uint64_t next_seq,
                   RecordRate* rate)
    : run_(std::move(run)),
      token_(std::move(token)),
      rate_(rate),
      segment_(std::move(segment)),
      next_seq_(next_seq) {}

void Recorder::keep_out(sandbox::UniqueFd blobs, Redaction redaction) {
  const std::lock_guard lock(mutex_);
  blobs_.emplace(std::move(blobs));
  redaction_ = std::move(redaction);
}

Result<uint64_t> Recorder::append(kernel::Record record, kernel::Durability durability,
                                  const std::vector<std::string>* env) {
  std::unique_lock lock(mutex_);
  if (blobs_ && !closed_ && !failed_) {
    if (const Status hidden = hide(record, env); !hidden) {
      failed_ = true;
      return hidden.error();
    }
  }
  CG_TRY(const uint64_t seq, append_locked(record, kernel::Durability::kOrdered));
  lock.unlock();
  if (durability == kernel::Durability::kStrict) CG_CHECK(make_durable());
  return seq;
}

Status Recorder::sync_files(bool blobs) {
  if (blobs) CG_CHECK(blobs_->sync());
  return segment_.sync();
}

// Those whom the last sync let go mostly come again at once: they are waited for, but no longer
// than two syncs take.
Status Recorder::sync_for_all(std::unique_lock<std::mutex>& lock) {
  syncing_ = true;
  const auto until = std::chrono::steady_clock::now() + std::min(2 * sync_took_, kLongestGathering);
  came_.wait_until(lock, until, [this] { return waiting_ >= batch_ || failed_; });
  batch_ = std::exchange(waiting_, 0);
  const uint64_t covered = segment_.size(), blobs = blobs_ ? blobs_->size() : 0;
  const bool new_blobs = blobs > durable_blobs_;
  lock.unlock();
  const auto start = std::chrono::steady_clock::now();
  const Status done = sync_files(new_blobs);
  lock.lock();
  sync_took_ = std::chrono::steady_clock::now() - start;
  syncing_ = false;
  if (done) {
    durable_ = covered;
    durable_blobs_ = blobs;
  } else {
    failed_ = true;
  }
  ++syncs_;
  syncs_.notify_all();
  return done;
}

// Who comes while another syncs waits for the next one, which is then for all of them. A record of
// somebody else that reaches the disk before its blobs do has no effect yet.
Status Recorder::make_durable() {
  std::unique_lock lock(mutex_);
  const uint64_t wanted = segment_.size();
  if (durable_ < wanted && ++waiting_ >= batch_) came_.notify_one();
  while (durable_ < wanted) {
    if (failed_) return fail("the log has failed earlier: no record, no effect", EIO);
    if (!syncing_) {
      CG_CHECK(sync_for_all(lock));
      continue;
    }
    const uint32_t seen = syncs_;
    lock.unlock();
    syncs_.wait(seen);
    if (durable_ >= wanted) return ok();
    lock.lock();
  }
  return ok();
}

Result<uint64_t> Recorder::append_locked(kernel::Record& record, kernel::Durability durability) {
  CG_TRY(const uint64_t seq, write_locked(record, durability));
  CG_CHECK(keep_room());
  return seq;
}

// The blobs first: a record that can be read has its blobs.
Status Recorder::hide(kernel::Record& record, const std::vector<std::string>* env) {
  const uint64_t before = blobs_->size();
  for (const Hidden& hidden : redaction_.hide(record, env)) {
    CG_TRY(const std::vector<std::string> entries, blobs_->add(hidden.name, hidden.value));
    record.blobs.insert(record.blobs.end(), entries.begin(), entries.end());
  }
  if (blobs_->size() == before) return ok();
  // They fill the disk as records do.
  const int64_t now = now_ns(CLOCK_BOOTTIME);
  for (uint64_t n = (blobs_->size() - before) / kBytesOfARecord; n > 0 && rate_ != nullptr; --n)
    rate_->count(now);
  return ok();
}

// The halt record and the one that ends it are in the log before anything that follows from them.
Status Recorder::keep_room() {
  auto kept = segment_.keep_room();
  if (kept && blobs_) kept = blobs_->room().keep(blobs_->size());
  if (!kept) {
    failed_ = true;
    return kept.error();
  }
  const bool full = segment_.full() || (blobs_ && blobs_->room().full());
  if (full == full_.exchange(full)) return ok();
  kernel::Record record;
  record.kind = kernel::RecordKind::kHalt;
  if (full) {
    halted_ns_ = now_ns(CLOCK_BOOTTIME);
    record.why = "the log's disk is full: no further call is taken";
  } else {
    record.why = "there is room again";
    record.ref = halt_seq_;
    record.since = halted_ns_;
    record.count = static_cast<uint64_t>((now_ns(CLOCK_BOOTTIME) - halted_ns_) / 1'000'000);
  }
  CG_TRY(halt_seq_, write_locked(record, kernel::Durability::kStrict));
  if (on_full_) on_full_(full ? LogRoom::Change::kFull : LogRoom::Change::kRoomAgain);
  return ok();
}

Status Recorder::look_for_room() {
  if (!full_.load()) return ok();
  const std::lock_guard lock(mutex_);
  return failed_ || closed_ ? ok() : keep_room();
}

void Recorder::wait_for_room() {
  while (full_.load() && !ending_.load() && !closed()) {
    if (!look_for_room()) return;  // the next append says why
    if (full_.load()) ::nanosleep(&kLookAgain, nullptr);
  }
}

Result<uint64_t> Recorder::write_locked(kernel::Record& record, kernel::Durability durability) {
  if (closed_) return fail("the run has ended: no record, no effect", ESHUTDOWN);
  if (failed_) return fail("the log has failed earlier: no record, no effect", EIO);
  record.run = run_;
  const bool over = record.kind == kernel::RecordKind::kExit;  // nothing is left to look at
  if (!over) record.token = token_;
  record.seq = next_seq_;
  std::replace(record.lineage.begin(), record.lineage.end(), kernel::kThisRecord, next_seq_);
  record.wall_ns = now_ns(CLOCK_REALTIME);
  record.boot_ns = now_ns(CLOCK_BOOTTIME);
  if (!over) processes_.fill(record, record.boot_ns);
  encoded_.clear();
  if (!mutant(Mutant::kRecordFirst) || frame_.size() > kLateBytes) frame_.clear();
  kernel::encode_record(record, encoded_);
  if (!supervisor::append_frame(encoded_.data(), encoded_.size(), frame_)) {
    failed_ = true;
    return fail("a record is too long for a frame", EMSGSIZE);
  }
  if (mutant(Mutant::kRecordFirst) && frame_.size() <= kLateBytes &&
      durability != kernel::Durability::kStrict) {
    return next_seq_++;
  }
  Status written = segment_.append(frame_);
  if (written && durability == kernel::Durability::kStrict) written = segment_.sync();
  if (!written) {
    failed_ = true;
    return written.error();
  }
  if (rate_ != nullptr) rate_->count(record.boot_ns);
  return next_seq_++;
}

uint64_t Recorder::image_started(int pid, uint64_t seq) {
  const std::lock_guard lock(mutex_);
  return processes_.image_started(pid, seq);
}

bool Recorder::closed() {
  const std::lock_guard lock(mutex_);
  return closed_;
}

Status Recorder::close(kernel::Record stop) {
  const std::lock_guard lock(mutex_);
  stop.kind = kernel::RecordKind::kStop;
  stop.count = next_seq_ - 1;
  CG_CHECK(write_locked(stop, kernel::Durability::kStrict));
  closed_ = true;
  return ok();
}

}  // namespace certgate::supervisor
