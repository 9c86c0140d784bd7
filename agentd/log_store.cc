#include "agentd/log_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "agentd/sealed_log.h"
#include "supervisor/frame.h"
#include "supervisor/log_room.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;
using sandbox::UniqueFd;

constexpr size_t kChunkBytes = 1u << 20;
constexpr size_t kFirstReadBytes = 1u << 17;  // of a chunk: mostly room, which reads as zeros
static_assert(kFirstReadBytes > supervisor::kMaxFrameBytes);
constexpr size_t kMaxSegments = 65536;
constexpr size_t kMaxAtOnce = 256;
constexpr char kSuffix[] = ".seg";

int64_t now_ns(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

std::string blobs_path(const std::string& run) { return "segments/" + run + ".blobs"; }
std::string segment_path(const std::string& run) { return "segments/" + run + kSuffix; }

bool is_run_id(std::string_view run) {
  return !run.empty() && run.size() <= 32 &&
         run.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string_view::npos;
}

Result<uint64_t> size_of(int fd, const std::string& name) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return disk_error(name, errno);
  return static_cast<uint64_t>(st.st_size);
}

// Fills up `bytes`, which are those at `offset`, to `size`, or to the end of the file.
Status read_on(int fd, uint64_t offset, size_t size, std::vector<uint8_t>& bytes,
               const std::string& name) {
  size_t have = bytes.size();
  bytes.resize(size);
  while (have < size) {
    const ssize_t n =
        ::pread(fd, bytes.data() + have, size - have, static_cast<off_t>(offset + have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return disk_error(name, errno);
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  bytes.resize(have);
  return ok();
}

// One chunk of a segment, checked: what of it may be sealed, and why not more.
struct Batch {
  std::vector<uint8_t> bytes;
  std::vector<std::string_view> entries;
  uint64_t consumed = 0;  // bytes of the frames in `entries`
  uint64_t next_seq = 0;
  bool ended = false;
  supervisor::Frame::State next = supervisor::Frame::kEnd;  // what follows those
  std::string damage;  // not empty: what follows is not what was appended
};

Status accept_record(const Record& record, const std::string& run, const Batch& batch) {
  if (record.run != run) return fail("a record of another run");
  if (record.seq != batch.next_seq) {
    return fail("seq " + std::to_string(record.seq) + " where " + std::to_string(batch.next_seq) +
                " should be");
  }
  if (batch.ended) return fail("a record after the end of the run");
  return ok();
}

bool ends_run(RecordKind kind) { return kind == RecordKind::kStop || kind == RecordKind::kGap; }

// Moves the frames behind `consumed` that are what they should be into `entries`.
void take_frames(const std::string& run, Batch& batch) {
  const size_t before = batch.consumed;
  supervisor::FrameReader reader(batch.bytes.data() + before, batch.bytes.size() - before);
  while (batch.entries.size() < kMaxBatchRecords) {
    const supervisor::Frame frame = reader.next();
    batch.next = frame.state;
    if (frame.state == supervisor::Frame::kDamaged) batch.damage = "a damaged frame";
    if (frame.state != supervisor::Frame::kOk) return;
    Result<Record> record = kernel::decode_record(frame.data, frame.size);
    const Status accepted = record ? accept_record(*record, run, batch) : Status(record.error());
    if (!accepted) {
      batch.damage = accepted.error().what;
      return;
    }
    batch.entries.emplace_back(reinterpret_cast<const char*>(frame.data), frame.size);
    batch.consumed = before + reader.offset();
    batch.next_seq = record->seq + 1;
    batch.ended = ends_run(record->kind);
  }
}

// What the supervisor will keep reserved (supervisor/log_room.h): a run must not start without it.
Status make_room(int segment, const std::string& name) {
  supervisor::LogRoom room(segment, 0);
  const auto change = room.keep(0);
  if (!change) return change.error();
  return *change == supervisor::LogRoom::Change::kFull ? Status(disk_error(name, ENOSPC)) : ok();
}

}  // namespace

Status append_record(int segment, const Record& record) {
  std::vector<uint8_t> bytes;
  kernel::encode_record(record, bytes);
  std::vector<uint8_t> frame;
  if (!supervisor::append_frame(bytes.data(), bytes.size(), frame))
    return fail("segment: a record is too large");
  ssize_t n = 0;
  do {
    n = ::write(segment, frame.data(), frame.size());
  } while (n < 0 && errno == EINTR);
  if (n < 0) return disk_error("segment", errno);
  if (static_cast<size_t>(n) != frame.size()) return disk_error("segment", ENOSPC);
  return ok();
}

struct LogStore::Impl {
  explicit Impl(SealedLog opened) : log(std::move(opened)) {}

  Status open_blobs(SegmentTail& tail) const;
  Status keep_blobs(SegmentTail& tail);
  Result<Batch> next_batch(const SegmentTail& tail, uint64_t end);
  // Seals up to the present end of the segment; `damage` says why it stopped early, if it did.
  Result<size_t> seal_some(SegmentTail& tail, std::string& damage);
  Status seal_gap(const std::string& run, uint64_t seq, uint64_t bytes);
  Result<uint64_t> rest_of(const SegmentTail& tail) const;
  Status finish(SegmentTail& tail);
  Result<std::vector<SegmentTail>> take_dead_segments();
  Status resume(SegmentTail& tail, const Record& last);

  SealedLog log;
};

Status LogStore::Impl::open_blobs(SegmentTail& tail) const {
  const std::string path = blobs_path(tail.run_);
  tail.blobs_ =
      UniqueFd(::openat(log.dir(), path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!tail.blobs_ && errno != ENOENT) return disk_error(path, errno);
  return ok();
}

// They outlive the segment, under the run's name, until they are erased or pruned.
Status LogStore::Impl::keep_blobs(SegmentTail& tail) {
  if (!tail.blobs_) return ok();
  const std::string path = blobs_path(tail.run_);
  CG_TRY(const uint64_t size, size_of(tail.blobs_.get(), path));
  if (size == 0) {
    CG_CHECK(remove_entry(log.dir(), path, false));
  } else {
    const std::string kept = "blobs/" + tail.run_;
    if (::renameat(log.dir(), path.c_str(), log.dir(), kept.c_str()) != 0)
      return disk_error(path, errno);
    CG_CHECK(sync_dir(log.dir(), "blobs"));
  }
  tail.blobs_.reset();
  return ok();
}

Result<Batch> LogStore::Impl::next_batch(const SegmentTail& tail, uint64_t end) {
  const std::string name = segment_path(tail.run_);
  const size_t chunk = std::min<uint64_t>(end - std::min(end, tail.offset_), kChunkBytes);
  Batch batch;
  batch.next_seq = tail.next_seq_;
  batch.ended = tail.ended_;
  batch.bytes.reserve(chunk);  // `entries` point into it
  for (size_t size = std::min(chunk, kFirstReadBytes);; size = chunk) {
    CG_CHECK(read_on(tail.fd_.get(), tail.offset_, size, batch.bytes, name));
    take_frames(tail.run_, batch);
    if (size == chunk || batch.next != supervisor::Frame::kTorn) break;
  }
  if (!batch.damage.empty()) {
    batch.damage =
        name + ": byte " + std::to_string(tail.offset_ + batch.consumed) + ": " + batch.damage;
  }
  return batch;
}

Result<size_t> LogStore::Impl::seal_some(SegmentTail& tail, std::string& damage) {
  const std::string name = segment_path(tail.run_);
  CG_TRY(const uint64_t end, size_of(tail.fd_.get(), name));
  if (end < tail.offset_) return fail(name + ": shorter than what is already sealed of it");
  size_t sealed = 0;
  while (tail.offset_ < end) {
    CG_TRY(Batch batch, next_batch(tail, end));
    // It may be just being stored: then it is whole when it is looked at again.
    if (!batch.damage.empty()) {
      CG_TRY(batch, next_batch(tail, end));
    }
    damage = batch.damage;
    if (batch.entries.empty()) break;
    // Never sign what is not durable: the segment first.
    if (::fdatasync(tail.fd_.get()) != 0) return sync_error(name, errno);
    if (tail.blobs_ && ::fdatasync(tail.blobs_.get()) != 0)
      return sync_error(blobs_path(tail.run_), errno);
    CG_CHECK(log.append(batch.entries));
    tail.offset_ += batch.consumed;
    tail.next_seq_ = batch.next_seq;
    tail.ended_ = batch.ended;
    sealed += batch.entries.size();
    if (!damage.empty()) break;
  }
  return sealed;
}

Status LogStore::Impl::seal_gap(const std::string& run, uint64_t seq, uint64_t bytes) {
  Record gap;
  gap.kind = RecordKind::kGap;
  gap.run = run;
  gap.seq = seq;
  gap.wall_ns = now_ns(CLOCK_REALTIME);
  gap.boot_ns = now_ns(CLOCK_BOOTTIME);
  gap.count = bytes;
  std::vector<uint8_t> encoded;
  kernel::encode_record(gap, encoded);
  return log.append(
      {std::string_view(reinterpret_cast<const char*>(encoded.data()), encoded.size())});
}

// How many bytes an append that was not finished has left: all of a torn frame; else, behind the
// end, those before the last zeros, which are room.
Result<uint64_t> LogStore::Impl::rest_of(const SegmentTail& tail) const {
  const std::string name = segment_path(tail.run_);
  CG_TRY(const uint64_t end, size_of(tail.fd_.get(), name));
  uint64_t rest = 0;
  for (uint64_t at = tail.offset_; at < end;) {
    std::vector<uint8_t> bytes;
    CG_CHECK(read_on(tail.fd_.get(), at, std::min<uint64_t>(end - at, kChunkBytes), bytes, name));
    if (bytes.empty()) break;
    if (at == tail.offset_ && supervisor::FrameReader(bytes.data(), bytes.size()).next().state ==
                                  supervisor::Frame::kTorn) {
      return end - at;
    }
    const auto last = std::find_if(bytes.rbegin(), bytes.rend(), [](uint8_t b) { return b != 0; });
    if (last != bytes.rend())
      rest = at - tail.offset_ + static_cast<uint64_t>(bytes.rend() - last);
    at += bytes.size();
  }
  return rest;
}

Status LogStore::Impl::finish(SegmentTail& tail) {
  if (!tail.fd_) return fail("segment: already finished");
  const std::string name = segment_path(tail.run_);
  std::string damage;
  CG_CHECK(seal_some(tail, damage));
  CG_TRY(const uint64_t rest, rest_of(tail));
  // More than one append can have left, and it is not read: a page before it never got to the disk.
  if (rest > supervisor::kMaxFrameBytes) damage = "bytes behind the end";
  if (!tail.gap_ && (!tail.ended_ || rest > 0)) {
    CG_CHECK(seal_gap(tail.run_, tail.next_seq_, rest));
    tail.gap_ = true;
  }
  CG_CHECK(keep_blobs(tail));
  if (damage.empty()) {
    CG_CHECK(remove_entry(log.dir(), name, false));
  } else if (::renameat(log.dir(), name.c_str(), log.dir(),
                        ("segments/" + tail.run_ + ".damaged").c_str()) != 0) {
    return disk_error(name, errno);  // kept for whoever looks into it
  }
  // Not synced: a segment that a power loss brings back is found to be sealed, and goes again.
  tail.fd_.reset();
  return ok();
}

// Whoever gets the exclusive flock of a segment knows that nobody writes it any more. The state
// lock keeps a segment that is being made from looking dead.
Result<std::vector<SegmentTail>> LogStore::Impl::take_dead_segments() {
  std::vector<SegmentTail> dead;
  CG_TRY(const DirLock lock, DirLock::exclusive(log.dir()));
  CG_TRY(const std::vector<std::string> names, list_dir(log.dir(), "segments"));
  if (names.size() > kMaxSegments) return fail("segments: too many files", EFBIG);
  for (const std::string& name : names) {
    if (!name.ends_with(kSuffix)) continue;
    SegmentTail tail;
    tail.run_ = name.substr(0, name.size() - (sizeof(kSuffix) - 1));
    if (!is_run_id(tail.run_)) continue;
    const std::string path = segment_path(tail.run_);
    tail.fd_ =
        UniqueFd(::openat(log.dir(), path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!tail.fd_) return disk_error(path, errno);
    if (::flock(tail.fd_.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) continue;  // alive
      return disk_error(path, errno);
    }
    CG_CHECK(open_blobs(tail));
    dead.push_back(std::move(tail));
    if (dead.size() == kMaxAtOnce) break;
  }
  return dead;
}

// Moves the tail behind what is already sealed of this run.
Status LogStore::Impl::resume(SegmentTail& tail, const Record& last) {
  const std::string name = segment_path(tail.run_);
  CG_TRY(const uint64_t end, size_of(tail.fd_.get(), name));
  while (tail.offset_ < end && tail.next_seq_ <= last.seq) {
    CG_TRY(const Batch batch, next_batch(tail, end));
    if (batch.entries.empty()) break;  // less is left than was sealed: a gap record will say so
    supervisor::FrameReader reader(batch.bytes.data(), batch.bytes.size());
    while (reader.offset() < batch.consumed && tail.next_seq_ <= last.seq) {
      const supervisor::Frame frame = reader.next();
      if (frame.state != supervisor::Frame::kOk) break;
      ++tail.next_seq_;
      tail.ended_ = false;
    }
    tail.offset_ += reader.offset();
  }
  tail.next_seq_ = last.seq + 1;
  tail.ended_ = ends_run(last.kind);
  tail.gap_ = last.kind == RecordKind::kGap;
  return ok();
}

LogStore::LogStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
LogStore::LogStore(LogStore&&) noexcept = default;
LogStore& LogStore::operator=(LogStore&&) noexcept = default;
LogStore::~LogStore() = default;

Result<LogStore> LogStore::open(const std::string& path) {
  CG_TRY(UniqueFd dir, open_state_dir(path));
  Result<SealedLog> log = SealedLog::open(std::move(dir));
  if (!log) return fail("state directory " + path + ": " + log.error().what, log.error().code);
  return LogStore(std::make_unique<Impl>(std::move(*log)));
}

const SigningKey& LogStore::key() const { return impl_->log.key(); }
int LogStore::dir_fd() const { return impl_->log.dir(); }
uint64_t LogStore::size() const { return impl_->log.size(); }
Status LogStore::check() { return impl_->log.check(); }
Status LogStore::prune(uint64_t minimum) { return impl_->log.prune(minimum); }

Result<SegmentFile> LogStore::create_segment(const std::string& run) {
  if (!is_run_id(run)) return fail("segment: a run id is 1 to 32 of [a-z0-9]");
  CG_TRY(const DirLock lock, DirLock::exclusive(dir_fd()));
  Result<SegmentFile> made = make_segment(run);
  if (made || made.error().code == EEXIST) return made;
  // On a full disk, say: a run that never began leaves nothing behind.
  ::unlinkat(dir_fd(), segment_path(run).c_str(), 0);
  ::unlinkat(dir_fd(), blobs_path(run).c_str(), 0);
  return made;
}

Result<SegmentFile> LogStore::make_segment(const std::string& run) {
  const std::string path = segment_path(run);
  SegmentFile segment;
  segment.append =
      UniqueFd(::openat(dir_fd(), path.c_str(),
                        O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!segment.append) return disk_error(path, errno);
  segment.tail.fd_ = UniqueFd(::openat(dir_fd(), path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!segment.tail.fd_) return disk_error(path, errno);
  // Both ends hold it: the run is alive while either process is.
  if (::flock(segment.append.get(), LOCK_SH | LOCK_NB) != 0 ||
      ::flock(segment.tail.fd_.get(), LOCK_SH | LOCK_NB) != 0) {
    return disk_error(path, errno);
  }
  segment.tail.run_ = run;
  const std::string blobs = blobs_path(run);
  segment.blobs =
      UniqueFd(::openat(dir_fd(), blobs.c_str(),
                        O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!segment.blobs) return disk_error(blobs, errno);
  CG_CHECK(impl_->open_blobs(segment.tail));
  CG_CHECK(make_room(segment.append.get(), path));
  CG_CHECK(sync_dir(dir_fd(), "segments"));
  return segment;
}

Result<size_t> LogStore::seal(SegmentTail& tail) {
  if (!tail.fd_) return fail("segment: already finished");
  std::string damage;
  CG_TRY(const size_t sealed, impl_->seal_some(tail, damage));
  if (!damage.empty()) return fail(damage);
  return sealed;
}

Status LogStore::finish(SegmentTail& tail) { return impl_->finish(tail); }

Status LogStore::recover() {
  CG_CHECK(impl_->log.sweep());
  for (;;) {  // in portions: each leftover is an open file while it is worked on
    CG_TRY(std::vector<SegmentTail> dead, impl_->take_dead_segments());
    if (dead.empty()) return ok();
    std::set<std::string> runs;
    for (const SegmentTail& tail : dead) runs.insert(tail.run());
    CG_TRY(const auto last, impl_->log.last_records(runs));
    for (SegmentTail& tail : dead) {
      if (const auto found = last.find(tail.run()); found != last.end()) {
        CG_CHECK(impl_->resume(tail, found->second));
      }
      CG_CHECK(impl_->finish(tail));
    }
  }
}

}  // namespace certgate::agentd
