#include "supervisor/process_table.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/remote.h"
#include "supervisor/process_stat.h"

namespace certgate::supervisor {
namespace {

constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD (Linux 6.9)

bool still_there(int pidfd) {
  pollfd one{pidfd, POLLIN, 0};
  return ::poll(&one, 1, 0) == 0;
}

}  // namespace

bool ProcessTable::read(int pid, Facts& facts) {
  const auto stat = process_stat(pid);
  if (!stat) return false;
  facts.parent = stat->field[kStatParent];
  facts.started = stat->field[kStatStarted];
  facts.image = {stat->field[kStatStack], stat->field[kStatArguments]};
  return true;
}

ProcessTable::Thread ProcessTable::look(int tid) const {
  Thread out;
  // Before what it says is read: if it is alive afterwards, all of that was about it.
  out.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, tid, kPidfdThread)));
  const auto task = sandbox::task_facts(tid);
  Facts facts;
  if (!task || !read(task->tgid, facts)) return {};
  if (!out.pidfd && task->tgid == tid)  // an older kernel: of whole processes only
    out.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, tid, 0)));
  out.started = facts.started;
  out.parent = facts.parent;
  const auto image = images_.find(facts.image);
  if (image != images_.end() && facts.image.first != 0) out.exec = image->second;
  return out;
}

void ProcessTable::fill(kernel::Record& record, int64_t now_ns) {
  if (record.pid == 0) return;
  const int tid = static_cast<int>(record.pid);
  auto found = threads_.find(tid);
  if (found != threads_.end() && now_ns >= found->second.sure_until_ns) {
    if (still_there(found->second.pidfd.get())) {
      found->second.sure_until_ns = now_ns + kSureFor_ns;
    } else {
      threads_.erase(found);
      found = threads_.end();
    }
  }
  if (found == threads_.end()) {
    Thread seen = look(tid);
    seen.sure_until_ns = now_ns + kSureFor_ns;
    record.started = seen.started;
    record.exec = seen.exec;
    record.parent = seen.parent;
    if (!seen.pidfd || !still_there(seen.pidfd.get())) return;  // not to be known again
    if (threads_.size() >= kMaxKnownThreads)
      std::erase_if(threads_, [](const auto& t) { return !still_there(t.second.pidfd.get()); });
    if (threads_.size() >= kMaxKnownThreads) threads_.clear();
    threads_.emplace(tid, std::move(seen));
    return;
  }
  record.started = found->second.started;
  record.exec = found->second.exec;
  record.parent = found->second.parent;
}

uint64_t ProcessTable::image_started(int pid, uint64_t seq) {
  Facts facts;
  if (!read(pid, facts) || facts.image.first == 0) return facts.started;
  if (images_.size() >= kMaxImages) images_.clear();  // later calls of those have no exec
  images_[facts.image] = seq;
  if (const auto known = threads_.find(pid); known != threads_.end()) {
    known->second.started = facts.started;
    known->second.parent = facts.parent;
    known->second.exec = seq;
  }
  return facts.started;
}

}  // namespace certgate::supervisor
