#include "agentd/label_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <new>
#include <utility>

#include "supervisor/label_format.h"

namespace certgate::agentd {
namespace {

using supervisor::kLabelFileBytes;
using supervisor::kLabelMagic;
using supervisor::kLabelSlots;
using supervisor::kNoLabel;
using supervisor::LabelHeader;
using supervisor::LabelSlot;

constexpr uint64_t kMaxUsed = kLabelSlots / 4 * 3;
constexpr size_t kMaxLabels = 1u << 20;
constexpr const char* kTable = "labels.tab";
constexpr const char* kNames = "labels.names";

// Holds the writers' lock for as long as it lives; the kernel drops it when the holder dies.
class WriteLock {
 public:
  explicit WriteLock(int fd) : fd_(fd) {
    int result = 0;
    do {
      result = ::flock(fd_, LOCK_EX);
    } while (result != 0 && errno == EINTR);
    held_ = result == 0;
  }
  ~WriteLock() {
    if (held_) ::flock(fd_, LOCK_UN);
  }
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;
  explicit operator bool() const { return held_; }

 private:
  int fd_;
  bool held_ = false;
};

Status make_directories(const std::string& dir) {
  for (size_t at = dir.find('/', 1);; at = dir.find('/', at + 1)) {
    const std::string part = dir.substr(0, at);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      return fail_errno("make the label store " + part, errno);
    }
    if (at == std::string::npos) return ok();
  }
}

Status check_own(int fd, const std::string& what) {
  struct stat s {};
  if (::fstat(fd, &s) != 0) return fail_errno(what, errno);
  if (s.st_uid != ::geteuid())
    return fail(what + " belongs to another user; remove it or run as its owner");
  if (s.st_mode & 022) return fail(what + " can be written by others; chmod go-w it");
  return ok();
}

bool write_all(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(fd, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

LabelStore::LabelStore(LabelStore&& other) noexcept
    : dir_(std::move(other.dir_)),
      table_(std::move(other.table_)),
      names_(std::move(other.names_)),
      running_(std::move(other.running_)),
      map_(std::exchange(other.map_, nullptr)),
      labels_(std::move(other.labels_)),
      names_size_(other.names_size_) {}

LabelStore::~LabelStore() {
  if (map_ != nullptr) ::munmap(map_, kLabelFileBytes);
}

Result<LabelStore> LabelStore::open(const std::string& dir) {
  LabelStore out;
  CG_CHECK(make_directories(dir));
  CG_CHECK(out.open_files(dir));
  const WriteLock lock(out.table_.get());
  if (!lock) return fail_errno("lock the label store", errno);
  struct stat s {};
  if (::fstat(out.table_.get(), &s) != 0) return fail_errno("label store", errno);
  const bool fresh = s.st_size == 0;
  if (fresh && ::ftruncate(out.table_.get(), static_cast<off_t>(kLabelFileBytes)) != 0) {
    return fail_errno("make the label table (is the disk full?)", errno);
  }
  if (!fresh && static_cast<uint64_t>(s.st_size) != kLabelFileBytes) {
    return fail("the label table " + dir +
                "/labels.tab has a wrong size; move the directory away to start afresh "
                "(files lose their labels)");
  }
  out.map_ =
      ::mmap(nullptr, kLabelFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, out.table_.get(), 0);
  if (out.map_ == MAP_FAILED) {
    out.map_ = nullptr;
    return fail_errno("map the label table", errno);
  }
  auto* header = static_cast<LabelHeader*>(out.map_);
  if (header->magic == 0) {  // made just now, or by a writer that was killed here
    header->capacity = kLabelSlots;
    std::atomic_thread_fence(std::memory_order_release);
    header->magic = kLabelMagic;
    ::fsync(out.table_.get());
  }
  if (header->magic != kLabelMagic || header->capacity != kLabelSlots) {
    return fail("the label table " + dir +
                "/labels.tab is damaged; move the directory away to start afresh");
  }
  CG_CHECK(out.load_names());
  return out;
}

Status LabelStore::open_files(const std::string& dir) {
  dir_.reset(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir_) return fail_errno("open the label store " + dir, errno);
  CG_CHECK(check_own(dir_.get(), "the label store " + dir));
  const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
  table_.reset(::openat(dir_.get(), kTable, flags, 0600));
  names_.reset(::openat(dir_.get(), kNames, flags | O_APPEND, 0600));
  if (!table_ || !names_) return fail_errno("open the label store " + dir, errno);
  CG_CHECK(check_own(table_.get(), dir + "/" + kTable));
  return check_own(names_.get(), dir + "/" + kNames);
}

// Reads what others have appended; called under the lock. A partial last line is cut off.
Status LabelStore::load_names() {
  std::string text;
  char buffer[16384];
  for (off_t at = static_cast<off_t>(names_size_);;) {
    const ssize_t n = ::pread(names_.get(), buffer, sizeof buffer, at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read the label names", errno);
    if (n == 0) break;
    text.append(buffer, static_cast<size_t>(n));
    at += n;
  }
  size_t at = 0;
  for (size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', at)) {
    CG_TRY(kernel::Label label, kernel::Label::parse(std::string_view(text).substr(at, end - at)));
    labels_.push_back(std::move(label));
    at = end + 1;
  }
  if (labels_.size() > kMaxLabels) return fail("more than a million different labels");
  names_size_ += at;
  if (at < text.size() && ::ftruncate(names_.get(), static_cast<off_t>(names_size_)) != 0) {
    return fail_errno("repair the label names", errno);
  }
  return ok();
}

Result<uint32_t> LabelStore::id_of(const kernel::Label& label) {
  for (size_t i = labels_.size(); i-- > 0;) {  // the newest are the likeliest
    if (labels_[i] == label) return static_cast<uint32_t>(i + 1);
  }
  CG_CHECK(load_names());
  for (size_t i = labels_.size(); i-- > 0;) {
    if (labels_[i] == label) return static_cast<uint32_t>(i + 1);
  }
  if (labels_.size() >= kMaxLabels) return fail("more than a million different labels");
  const std::string line = label.text() + "\n";
  if (!write_all(names_.get(), line))
    return fail_errno("append to the label names (is the disk full?)", errno);
  names_size_ += line.size();
  labels_.push_back(label);
  return static_cast<uint32_t>(labels_.size());
}

Status LabelStore::store(const kernel::FileIdentity& file, const kernel::Label& label,
                         std::vector<Change>& changes) {
  auto* header = static_cast<LabelHeader*>(map_);
  // NOLINTNEXTLINE: the file's layout
  auto* slots = reinterpret_cast<LabelSlot*>(static_cast<char*>(map_) + sizeof(LabelHeader));
  uint64_t at = supervisor::label_hash(file) & (kLabelSlots - 1);
  for (uint64_t probes = 0; probes < kLabelSlots; ++probes, at = (at + 1) & (kLabelSlots - 1)) {
    LabelSlot& slot = slots[at];
    const uint32_t id = slot.label.load(std::memory_order_acquire);
    if (id != 0 && !supervisor::same_key(slot, file)) continue;
    const bool labelled = id != 0 && id != kNoLabel;
    if (labelled && id > labels_.size()) CG_CHECK(load_names());
    if (labelled && id > labels_.size())
      return fail("the label table names a label that was never written");
    const kernel::Label joined = labelled ? labels_[id - 1].join(label) : label;
    if (labelled && joined == labels_[id - 1]) return ok();
    if (id == 0 && header->used.load() >= kMaxUsed) {
      return fail(
          "the label store is full (1.5 million labelled files); move it away to start afresh");
    }
    CG_TRY(const uint32_t joined_id, id_of(joined));
    if (id == 0) {
      slot.fsid = file.fsid;
      slot.ino = file.ino;
      slot.btime_ns = file.btime_ns;
      slot.check = supervisor::label_check(file);
      header->used.fetch_add(1);
    }
    slot.label.store(joined_id, std::memory_order_release);
    changes.push_back({&slot, labelled ? id : kNoLabel});
    return ok();
  }
  return fail("the label store is full");
}

// What a run opens after it was asked has the label already, so once is enough.
Status LabelStore::join_all(const kernel::FileIdentity& file, const kernel::Label& label,
                            std::vector<Change>& changes) {
  CG_CHECK(store(file, label, changes));
  if (changes.empty()) return ok();
  CG_CHECK(running_.look(dir_.get(), static_cast<LabelHeader*>(map_)->runs.load()));
  CG_TRY(const uint32_t id, id_of(label));
  RaiseOfOthers others(running_, id);
  std::vector<kernel::FileIdentity> changed{file};
  while (!changed.empty()) {
    const kernel::FileIdentity next = changed.back();
    changed.pop_back();
    CG_TRY(const auto held, others.ask_readers(next));
    for (const kernel::FileIdentity& one : held) {
      CG_CHECK(store(one, label, changes));
      changed.push_back(one);
    }
  }
  changes.clear();  // some may take it even if others do not in time
  return others.take();
}

Status LabelStore::join(const kernel::FileIdentity& file, const kernel::Label& label) {
  const WriteLock lock(table_.get());
  if (!lock) return fail_errno("lock the label store", errno);
  CG_CHECK(load_names());
  std::vector<Change> changes;
  Status joined = join_all(file, label, changes);
  if (joined) return ok();
  for (size_t i = changes.size(); i-- > 0;)
    changes[i].slot->label.store(changes[i].before, std::memory_order_release);
  return joined;
}

Result<sandbox::UniqueFd> LabelStore::begin_run(const std::string& id) {
  const WriteLock lock(table_.get());
  if (!lock) return fail_errno("lock the label store", errno);
  CG_TRY(sandbox::UniqueFd fd, running_.begin(dir_.get(), id));
  CG_CHECK(running_.look(dir_.get(), static_cast<LabelHeader*>(map_)->runs.load()));
  static_cast<LabelHeader*>(map_)->runs.fetch_add(1);
  return fd;
}

void LabelStore::end_run() { running_.end(dir_.get()); }

Result<sandbox::UniqueFd> LabelStore::table_for_reading() const {
  sandbox::UniqueFd fd(::openat(dir_.get(), kTable, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno("open the label table", errno);
  return fd;
}

Result<sandbox::UniqueFd> LabelStore::names_for_reading() const {
  sandbox::UniqueFd fd(::openat(dir_.get(), kNames, O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno("open the label names", errno);
  return fd;
}

}  // namespace certgate::agentd
