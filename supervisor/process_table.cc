#include "supervisor/process_table.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "sandbox/remote.h"

namespace certgate::supervisor {
namespace {

// The numbers of /proc/<pid>/stat, as proc(5) counts them.
enum Field : int { kParent = 4, kStarted = 22, kStack = 28, kArguments = 48 };
constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD (Linux 6.9)

bool still_there(int pidfd) {
  pollfd one{pidfd, POLLIN, 0};
  return ::poll(&one, 1, 0) == 0;
}

}  // namespace

bool ProcessTable::read(int pid, Facts& facts) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const sandbox::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return false;
  char text[1024];
  const ssize_t n = ::read(fd.get(), text, sizeof text);
  if (n <= 0) return false;
  std::string_view rest(text, static_cast<size_t>(n));
  const size_t name_end =
      rest.rfind(')');  // the name before it is the agent's, and may hold anything
  if (name_end == std::string_view::npos) return false;
  rest.remove_prefix(name_end + 1);
  for (int field = 3; !rest.empty(); ++field) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    const std::string_view word = rest.substr(0, rest.find(' '));
    uint64_t value = 0;
    std::from_chars(word.data(), word.data() + word.size(), value);
    if (field == kParent) facts.parent = value;
    if (field == kStarted) facts.started = value;
    if (field == kStack) facts.image.first = value;
    if (field == kArguments) {
      facts.image.second = value;
      return true;
    }
    rest.remove_prefix(word.size());
  }
  return false;
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

void ProcessTable::image_started(int pid, uint64_t seq) {
  Facts facts;
  if (!read(pid, facts) || facts.image.first == 0) return;
  if (images_.size() >= kMaxImages) images_.clear();  // later calls of those have no exec
  images_[facts.image] = seq;
  threads_.erase(pid);  // its next call finds the new image
}

}  // namespace certgate::supervisor
