#include "sandbox/restarts.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "kernel/mutant.h"
#include "sandbox/remote.h"

namespace certgate::sandbox {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kMaxProcFile = 8192;

// Field 22 of /proc/<tid>/stat; 0 when the thread has gone.
uint64_t start_time(int tid) {
  const auto text = read_file("/proc/" + std::to_string(tid) + "/stat", kMaxProcFile);
  if (!text) return 0;
  size_t at = text->rfind(')');  // the name before it may hold anything
  if (at == std::string::npos || at + 2 >= text->size()) return 0;
  const char state = (*text)[at + 2];
  if (state == 'Z' || state == 'X') return 0;
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = text->find(' ', at + 1);
  return at == std::string::npos ? 0 : std::strtoull(text->c_str() + at, nullptr, 10);
}

// A fatal signal of any kind waits as SIGKILL in each thread of the process. Without handlers no
// call is interrupted and lives on.
bool may_call_again(int tid) {
  const auto text = read_file("/proc/" + std::to_string(tid) + "/status", kMaxProcFile);
  if (!text) return false;
  const auto set = [&](const char* name) -> uint64_t {
    const size_t at = text->find(name);
    return at == std::string::npos ? 0 : std::strtoull(text->c_str() + at + 7, nullptr, 16);
  };
  return (set("SigPnd:") & (uint64_t{1} << (SIGKILL - 1))) == 0 && set("SigCgt:") != 0;
}

// Calls that give another answer when they are made again, and where their content is.
struct Row {
  int nr;
  int paths[2];               // argument numbers, -1 = none
  int block = -1, size = -1;  // argument numbers of a block of memory and of its size
  int flags = -1;             // of an open: only what makes a new file for itself alone
};
constexpr Row kRows[] = {
    {SYS_mkdir, {0, -1}},
    {SYS_mkdirat, {1, -1}},
    {SYS_rmdir, {0, -1}},
    {SYS_unlink, {0, -1}},
    {SYS_unlinkat, {1, -1}},
    {SYS_rename, {0, 1}},
    {SYS_renameat, {1, 3}},
    {SYS_renameat2, {1, 3}},
    {SYS_link, {0, 1}},
    {SYS_linkat, {1, 3}},
    {SYS_symlink, {0, 1}},
    {SYS_symlinkat, {0, 2}},
    {SYS_mknod, {0, -1}},
    {SYS_mknodat, {1, -1}},
    {SYS_setxattr, {0, 1}},
    {SYS_lsetxattr, {0, 1}},
    {SYS_removexattr, {0, 1}},
    {SYS_lremovexattr, {0, 1}},
    {SYS_connect, {-1, -1}, 1, 2},
    {SYS_bind, {-1, -1}, 1, 2},
    {SYS_open, {0, -1}, -1, -1, 1},
    {SYS_openat, {1, -1}, -1, -1, 2},
    {SYS_openat2, {1, -1}, 2, 3},
};
constexpr size_t kMaxString = 4096;
constexpr size_t kMaxBlock = 128;
constexpr uint64_t kNewFile = O_CREAT | O_EXCL;

const Row* row_of(const TrappedCall& call) {
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const Row& item) { return item.nr == call.nr; });
  if (row == std::end(kRows)) return nullptr;
  const bool open = row->flags >= 0;
  return open && (call.args[row->flags] & kNewFile) != kNewFile ? nullptr : row;
}

// Of a call that waits, or whose caller runs a handler. False: it cannot be read.
bool read_content(const TrappedCall& call, const Row& row, std::string& out) {
  for (const int path : row.paths) {
    std::string text;
    if (path < 0) continue;
    if (read_string(call.tid, call.args[path], kMaxString, text) != 0) return false;
    out += text + '\0';
  }
  if (row.block < 0) return true;
  std::string block(std::min<uint64_t>(call.args[row.size], kMaxBlock), '\0');
  if (read_memory(call.tid, call.args[row.block], block.data(), block.size()) != 0) return false;
  uint64_t flags = 0;
  std::memcpy(&flags, block.data(), std::min(block.size(), sizeof flags));
  if (call.nr == SYS_openat2 && (flags & kNewFile) != kNewFile) return false;
  out += block;
  return true;
}

bool same(const TrappedCall& a, const TrappedCall& b) {
  return a.tid == b.tid && a.nr == b.nr && std::equal(a.args, a.args + 6, b.args);
}

}  // namespace

bool Restarts::keep(const TrappedCall& call, KeptAnswer answer) {
  const Row* row = row_of(call);
  if (row == nullptr || mutant(Mutant::kRestarts) || !may_call_again(call.tid)) return false;
  const uint64_t started = start_time(call.tid);
  std::string content;
  if (started == 0 || !read_content(call, *row, content)) return false;
  const std::lock_guard lock(mutex_);
  drop_old();
  if (kept_.size() >= kMaxKept) kept_.pop_front();
  kept_.push_back({call, started, std::move(content),
                   Clock::now() + std::chrono::milliseconds(kKeepMs), std::move(answer)});
  count_ = kept_.size();
  return true;
}

std::optional<KeptAnswer> Restarts::take(const TrappedCall& call) {
  if (count_.load(std::memory_order_relaxed) == 0) return std::nullopt;
  const std::lock_guard lock(mutex_);
  drop_old();
  std::optional<KeptAnswer> answer;
  const auto it = std::find_if(kept_.begin(), kept_.end(),
                               [&](const Kept& kept) { return same(kept.call, call); });
  if (it != kept_.end()) {
    std::string content;
    const bool again = it->started == start_time(call.tid) &&
                       read_content(call, *row_of(call), content) && content == it->content;
    if (again) answer = std::move(it->answer);
    kept_.erase(it);
  }
  std::erase_if(kept_, [&](const Kept& kept) {
    return kept.call.tid == call.tid && kept.answer.arrival == Arrival::kPerhaps;
  });
  count_ = kept_.size();
  return answer;
}

void Restarts::drop_old() {
  while (!kept_.empty() && kept_.front().until < Clock::now()) kept_.pop_front();
  count_ = kept_.size();
}

}  // namespace certgate::sandbox
