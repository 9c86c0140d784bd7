#include "supervisor/reader_table.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "supervisor/label_format.h"

namespace certgate::supervisor {
namespace {

constexpr uint64_t kReaderMagic = 0x3152444145524743;  // "CGREADR1"
constexpr size_t kSlots = 1u << 17;
constexpr size_t kMaxProbes = 64;
constexpr size_t kRunBytes = 16;

// Several processes wait on these words, so the futexes are not private.
void futex_wake(std::atomic<uint32_t>& word) {
  ::syscall(SYS_futex, &word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}
void futex_wait(const std::atomic<uint32_t>& word, uint32_t value, const timespec* limit) {
  ::syscall(SYS_futex, &word, FUTEX_WAIT, value, limit, nullptr, 0);
}

// False: `word` did not become `value` in time, or before the run ended.
bool wait_for(const std::atomic<uint32_t>& word, uint32_t value, std::chrono::milliseconds limit,
              const std::atomic<uint32_t>* ended = nullptr) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::nanoseconds kStep = std::chrono::milliseconds(20);
  const auto deadline = Clock::now() + limit;
  for (uint32_t now; (now = word.load()) != value;) {
    const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now());
    if (left.count() <= 0 || (ended != nullptr && ended->load() != 0)) return false;
    const auto step = std::min(left, kStep);
    const timespec wait{0, step.count()};
    futex_wait(word, now, &wait);
  }
  return true;
}

// Never 0, which is an empty slot.
uint64_t mark_of(const kernel::FileIdentity& file) { return label_hash(file) | 1; }
size_t first_slot(uint64_t mark) { return (mark >> 20) & (kSlots - 1); }

}  // namespace

struct ReaderTable::Layout {
  uint64_t magic;
  std::atomic<uint32_t> everything;  // the slots are full
  std::atomic<uint32_t> closed;
  std::atomic<uint32_t> asked, answered, decided, finished;  // numbers of requests
  // The request, written by who asks before `asked`.
  uint32_t label;
  char run[kRunBytes];
  kernel::FileIdentity file;
  uint32_t decision;  // written before `decided`
  // The answer, written by who is asked before `answered`.
  uint32_t can;
  uint32_t held_count;
  kernel::FileIdentity held[kMaxHeldFiles];
  std::atomic<uint64_t> slots[kSlots];
};
static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              std::is_trivially_copyable_v<kernel::FileIdentity>);

Status ReaderTable::prepare(int fd) {
  if (::ftruncate(fd, sizeof(Layout)) != 0 ||
      ::pwrite(fd, &kReaderMagic, sizeof kReaderMagic, 0) != sizeof kReaderMagic) {
    return fail_errno("make the table of what this run reads (is the disk full?)", errno);
  }
  return ok();
}

Result<ReaderTable> ReaderTable::open(sandbox::UniqueFd fd) {
  struct stat s {};
  if (::fstat(fd.get(), &s) != 0 || !S_ISREG(s.st_mode) || s.st_size != sizeof(Layout))
    return fail("a table of what a run reads has another size than it should", EINVAL);
  void* map = ::mmap(nullptr, sizeof(Layout), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) return fail_errno("map the table of what a run reads", errno);
  ReaderTable table(std::move(fd), static_cast<Layout*>(map));
  if (table.map_->magic != kReaderMagic)
    return fail("the table of what a run reads is damaged", EINVAL);
  return table;
}

ReaderTable::ReaderTable(ReaderTable&& other) noexcept
    : fd_(std::move(other.fd_)), map_(std::exchange(other.map_, nullptr)) {}

ReaderTable::~ReaderTable() {
  if (map_ != nullptr) ::munmap(map_, sizeof(Layout));
}

void ReaderTable::note(const kernel::FileIdentity& file) {
  const uint64_t mark = mark_of(file);
  size_t at = first_slot(mark);
  for (size_t probes = 0; probes < kMaxProbes; ++probes, at = (at + 1) & (kSlots - 1)) {
    uint64_t there = map_->slots[at].load();
    if (there == 0 && map_->slots[at].compare_exchange_strong(there, mark)) {
      std::atomic_thread_fence(std::memory_order_seq_cst);  // before the label is looked up
      return;
    }
    if (there == mark) return;
  }
  map_->everything.store(1);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

bool ReaderTable::may_read(const kernel::FileIdentity& file) const {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // after the label was stored
  if (map_->closed.load() != 0) return false;
  if (map_->everything.load() != 0) return true;
  const uint64_t mark = mark_of(file);
  size_t at = first_slot(mark);
  for (size_t probes = 0; probes < kMaxProbes; ++probes, at = (at + 1) & (kSlots - 1)) {
    const uint64_t there = map_->slots[at].load();
    if (there == mark) return true;
    if (there == 0) return false;
  }
  return false;
}

ReaderTable::Request ReaderTable::wait(uint32_t last) const {
  uint32_t number = 0;
  while ((number = map_->asked.load()) == last) futex_wait(map_->asked, last, nullptr);
  return {number, map_->label, map_->file,
          std::string(map_->run, ::strnlen(map_->run, sizeof map_->run))};
}

void ReaderTable::answer(const Request& request, const Answer& answer) {
  map_->can = answer.can ? 1 : 0;
  const size_t count = std::min(answer.held.size(), kMaxHeldFiles);
  std::copy_n(answer.held.begin(), count, map_->held);
  map_->held_count = static_cast<uint32_t>(count);
  map_->answered.store(request.number);
  futex_wake(map_->answered);
}

std::optional<ReaderTable::Decision> ReaderTable::decision(const Request& request,
                                                           std::chrono::milliseconds limit) const {
  if (!wait_for(map_->decided, request.number, limit)) return std::nullopt;
  return map_->decision == static_cast<uint32_t>(Decision::kTake) ? Decision::kTake
                                                                  : Decision::kLeave;
}

void ReaderTable::finish(const Request& request) {
  map_->finished.store(request.number);
  futex_wake(map_->finished);
}

void ReaderTable::close() { map_->closed.store(1); }

std::optional<ReaderTable::Answer> ReaderTable::ask(uint32_t label,
                                                    const kernel::FileIdentity& file,
                                                    const std::string& run,
                                                    std::chrono::milliseconds limit) {
  const uint32_t before = map_->asked.load();
  if (map_->finished.load() != before) return std::nullopt;  // it would wait behind the other
  map_->label = label;
  map_->file = file;
  std::memset(map_->run, 0, sizeof map_->run);
  run.copy(map_->run, sizeof map_->run);
  map_->asked.store(before + 1);
  futex_wake(map_->asked);
  if (!wait_for(map_->answered, before + 1, limit, &map_->closed)) {
    decide(Decision::kLeave);  // for when it answers after all
    return map_->closed.load() != 0 ? std::optional<Answer>(Answer{true, {}}) : std::nullopt;
  }
  Answer out;
  out.can = map_->can == 1;
  const size_t count = std::min<size_t>(map_->held_count, kMaxHeldFiles);
  out.held.assign(map_->held, map_->held + count);
  return out;
}

bool ReaderTable::finished(std::chrono::milliseconds limit) const {
  return wait_for(map_->finished, map_->asked.load(), limit, &map_->closed) ||
         map_->closed.load() != 0;
}

void ReaderTable::decide(Decision decision) {
  map_->decision = static_cast<uint32_t>(decision);
  map_->decided.store(map_->asked.load());
  futex_wake(map_->decided);
}

}  // namespace certgate::supervisor
