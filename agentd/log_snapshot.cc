#include "agentd/log_snapshot.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agentd/state_dir.h"
#include "supervisor/frame.h"

namespace certgate::agentd {
namespace {

using sandbox::UniqueFd;

constexpr size_t kMaxDepth = 12;  // log/tile/<L>/x…/x…/N.p/W
constexpr size_t kMaxOpenSegments = 512;
constexpr size_t kMaxPartialFiles = 4096;  // a whole log has at most nine
constexpr uint64_t kMaxSegmentBytes = uint64_t{1} << 32;

Result<std::optional<std::string>> read_optional(int dir, const std::string& path) {
  Result<std::string> bytes = read_file(dir, path, kMaxNoteBytes);
  if (bytes) return std::optional<std::string>(std::move(*bytes));
  // Too long, or not a file: the bytes are not there either. That is for the verifier to say.
  const int code = bytes.error().code;
  if (code == ENOENT || code == EFBIG || code == EINVAL || code == ELOOP)
    return std::optional<std::string>();
  return bytes.error();
}

}  // namespace

Result<LogSnapshot> LogSnapshot::open(const std::string& state_dir, Files files) {
  LogSnapshot snapshot;
  snapshot.dir_ = UniqueFd(::open(state_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!snapshot.dir_) return fail_errno("state directory " + state_dir, errno);
  if (Status done = snapshot.read_moment(files); !done) {
    return fail("state directory " + state_dir + ": " + done.error().what, done.error().code);
  }
  return snapshot;
}

Status LogSnapshot::read_moment(Files files) {
  CG_TRY(const DirLock lock, DirLock::shared(dir_.get()));
  CG_TRY(key_line_, read_optional(dir_.get(), "key.pub"));
  CG_TRY(last_, read_optional(dir_.get(), "checkpoint.last"));
  CG_TRY(published_, read_optional(dir_.get(), "log/checkpoint"));
  if (!key_line_ && !last_ && !published_) {
    return fail("there is no log of certgate in it (no key.pub, no checkpoint)", ENOENT);
  }
  if (files == Files::kEdge) {
    CG_CHECK(read_edge());
  } else {
    CG_CHECK(read_tree("log", 0));
    std::sort(paths_.begin(), paths_.end());
  }
  find_first_bundle(files);
  return read_segments();
}

Status LogSnapshot::read_edge() {
  CG_TRY(const Checkpoint edge, checkpoint());
  for (unsigned level = 0; level <= kMaxTileLevel + 1; ++level) {
    const unsigned named = level > kMaxTileLevel ? kEntriesLevel : level;
    const LevelShape shape = level_shape(named, edge.size);
    if (shape.width == 0) continue;
    const std::string path = tile_path(named, shape.full, shape.width);
    CG_TRY(std::string bytes, read_file(dir_.get(), path, kMaxBundleBytes));
    partial_.emplace(path, std::move(bytes));
  }
  return ok();
}

// Only full bundles that are followed by others are ever pruned, from the first on, so that what is
// left begins somewhere: found by halves.
void LogSnapshot::find_first_bundle(Files files) {
  const Result<Checkpoint> at = checkpoint();
  if (!at) return;
  const auto missing = [&](uint64_t i) {
    const std::string path = tile_path(kEntriesLevel, i, kTileWidth);
    return files == Files::kAll ? !std::binary_search(paths_.begin(), paths_.end(), path)
                                : ::faccessat(dir_.get(), path.c_str(), F_OK, 0) != 0;
  };
  uint64_t first = 0, last = level_shape(kEntriesLevel, at->size).full;
  if (last == 0 || !missing(0)) return;
  while (first < last) {
    const uint64_t middle = first + (last - first) / 2;
    if (missing(middle)) {
      first = middle + 1;
    } else {
      last = middle;
    }
  }
  first_bundle_ = first;
}

Status LogSnapshot::read_tree(const std::string& directory, size_t depth) {
  if (depth > kMaxDepth) return ok();  // already listed as a directory that has no place there
  CG_TRY(const std::vector<std::string> names, list_dir(dir_.get(), directory));
  for (const std::string& name : names) {
    const std::string path = directory + '/' + name;
    struct stat st;
    if (::fstatat(dir_.get(), path.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
      return disk_error(path, errno);
    if (paths_.size() >= kMaxDirEntries) return fail("log: too many files", EFBIG);
    if (S_ISDIR(st.st_mode)) {
      paths_.push_back(path + '/');
      CG_CHECK(read_tree(path, depth + 1));
      continue;
    }
    paths_.push_back(S_ISREG(st.st_mode) ? path : path + '?');
    if (!S_ISREG(st.st_mode) || !directory.ends_with(".p") || partial_.size() >= kMaxPartialFiles)
      continue;
    Result<std::string> bytes = read_file(dir_.get(), path, kMaxBundleBytes);
    if (bytes)
      partial_.emplace(path, std::move(*bytes));
    else if (bytes.error().code != EFBIG)
      return bytes.error();
  }
  return ok();
}

Status LogSnapshot::read_segments() {
  struct stat st;
  has_segments_ =
      ::fstatat(dir_.get(), "segments", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
  if (!has_segments_) return ok();
  CG_TRY(const std::vector<std::string> names, list_dir(dir_.get(), "segments"));
  for (const std::string& name : names) {
    if (!name.ends_with(".seg")) continue;
    if (segments_.size() == kMaxOpenSegments) return fail("segments: too many are open", EFBIG);
    const std::string path = "segments/" + name;
    Segment segment;
    segment.run = name.substr(0, name.size() - 4);
    segment.fd = UniqueFd(
        ::openat(dir_.get(), path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!segment.fd || ::fstat(segment.fd.get(), &st) != 0) return disk_error(path, errno);
    segment.size = static_cast<uint64_t>(st.st_size);
    if (S_ISREG(st.st_mode)) segments_.push_back(std::move(segment));
  }
  return ok();
}

Result<std::string> LogSnapshot::tile(unsigned level, uint64_t index, size_t width) const {
  const std::string path = tile_path(level, index, width);
  if (width == kTileWidth) return read_file(dir_.get(), path, kMaxBundleBytes);
  const auto found = partial_.find(path);
  if (found == partial_.end()) return fail_errno(path, ENOENT);
  return found->second;
}

Result<VerifierKey> LogSnapshot::key() const {
  if (!key_line_) return fail("key.pub: missing");
  if (key_line_->empty() || key_line_->back() != '\n') return fail("key.pub: not one line");
  Result<VerifierKey> key =
      VerifierKey::parse(std::string_view(*key_line_).substr(0, key_line_->size() - 1));
  if (!key) return fail("key.pub: " + key.error().what);
  return key;
}

Result<Checkpoint> LogSnapshot::checkpoint() const {
  CG_TRY(const VerifierKey verifier, key());
  if (!published_) return fail("log/checkpoint: missing");
  Result<Checkpoint> checkpoint = open_checkpoint(*published_, verifier);
  if (!checkpoint) return fail("log/checkpoint: " + checkpoint.error().what);
  return checkpoint;
}

Status LogSnapshot::each(const std::function<Status(const LogEntry&)>& visit) const {
  CG_TRY(const Checkpoint at, checkpoint());
  std::map<std::string, uint64_t> sealed_seq;  // of the runs that still have a segment
  for (const Segment& segment : segments_) sealed_seq[segment.run] = 0;
  const LevelShape shape = level_shape(kEntriesLevel, at.size);
  for (uint64_t index = first_bundle_; index < shape.full + (shape.width > 0 ? 1 : 0); ++index) {
    const size_t width = index < shape.full ? kTileWidth : shape.width;
    const std::string path = tile_path(kEntriesLevel, index, width);
    CG_TRY(const std::string bundle, tile(kEntriesLevel, index, width));
    Result<std::vector<std::string_view>> entries = split_bundle(bundle, width);
    if (!entries) return fail(path + ": " + entries.error().what);
    for (size_t i = 0; i < entries->size(); ++i) {
      const std::string_view bytes = (*entries)[i];
      Result<kernel::Record> record =
          kernel::decode_record(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      if (!record)
        return fail(path + ": record " + std::to_string(i) +
                    " of the bundle: " + record.error().what);
      if (const auto found = sealed_seq.find(record->run); found != sealed_seq.end())
        found->second = record->seq;
      CG_CHECK(visit(LogEntry{std::move(*record), index * kTileWidth + i}));
    }
  }
  for (const Segment& segment : segments_)
    CG_CHECK(each_unsealed(segment, sealed_seq[segment.run], visit));
  return ok();
}

Status LogSnapshot::each_unsealed(const Segment& segment, uint64_t sealed_seq,
                                  const std::function<Status(const LogEntry&)>& visit) const {
  if (segment.size > kMaxSegmentBytes)
    return fail("segment of " + segment.run + ": too large", EFBIG);
  std::vector<uint8_t> bytes;
  for (uint64_t offset = 0; offset < segment.size;) {
    bytes.resize(std::min<uint64_t>(segment.size - offset, size_t{1} << 20));
    const ssize_t n =
        ::pread(segment.fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return disk_error("segment of " + segment.run, errno);
    supervisor::FrameReader reader(bytes.data(), static_cast<size_t>(n));
    for (supervisor::Frame f = reader.next(); f.state == supervisor::Frame::kOk;
         f = reader.next()) {
      CG_TRY(kernel::Record record, kernel::decode_record(f.data, f.size));
      if (record.run == segment.run && record.seq > sealed_seq) {
        CG_CHECK(visit(LogEntry{std::move(record), std::nullopt}));
      }
    }
    if (reader.offset() == 0) return ok();  // torn or damaged here: nothing readable follows
    offset += reader.offset();
  }
  return ok();
}

}  // namespace certgate::agentd
