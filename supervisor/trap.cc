#include "supervisor/trap.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "sandbox/remote.h"

namespace certgate::supervisor {

InheritedStdio InheritedStdio::of_this_process(unsigned left_out) {
  InheritedStdio out;
  for (int fd = 0; fd < 3; ++fd) {
    if ((left_out & (1u << fd)) != 0) continue;
    struct stat s {};
    const int flags = ::fcntl(fd, F_GETFL);
    if (flags < 0 || ::fstat(fd, &s) != 0) continue;
    const int mode = flags & O_ACCMODE;
    out.streams[fd] = {s.st_dev, s.st_ino, true, mode != O_WRONLY, mode != O_RDONLY};
  }
  return out;
}

bool InheritedStdio::covers(const ObjectFacts& facts, bool read, bool write) const {
  for (const Stream& s : streams) {
    if (s.open && s.dev == facts.dev && s.ino == facts.identity.ino && (!read || s.readable) &&
        (!write || s.writable)) {
      return true;
    }
  }
  return false;
}

void Trap::decline(const sandbox::TrappedCall& call, const Judged& judged) const {
  if (judged.asks != 0) return approvals->attach(call, judged.asks);
  listener.refuse(call.id, judged.error);
}

int Trap::base_of(int tid, int dirfd, const std::string& path, sandbox::UniqueFd& out) {
  if (!path.empty() && path[0] == '/') return 0;
  const std::string what = dirfd == AT_FDCWD ? "cwd" : "fd/" + std::to_string(dirfd);
  auto fd = sandbox::open_task_link(tid, what);
  if (!fd) return dirfd != AT_FDCWD && fd.error().code == ENOENT ? EBADF : fd.error().code;
  out = *std::move(fd);
  return 0;
}

int Trap::descriptor_of(int tid, int fd, sandbox::UniqueFd& out) {
  constexpr unsigned kPidfdThread = O_EXCL;  // PIDFD_THREAD (Linux 6.9)
  static const bool thread_pidfds = static_cast<bool>(
      sandbox::UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, ::gettid(), kPidfdThread))));
  pid_t target = tid;
  if (!thread_pidfds) {
    // Before 6.9 a pidfd names a whole process; a thread with a file table of its own cannot be
    // served.
    const auto task = sandbox::task_facts(tid);
    if (!task) return ESRCH;
    target = task->tgid;
    constexpr int kKcmpFiles = 2;
    if (target != tid && ::syscall(SYS_kcmp, target, tid, kKcmpFiles, 0, 0) != 0) return EPERM;
  }
  const sandbox::UniqueFd pidfd(
      static_cast<int>(::syscall(SYS_pidfd_open, target, thread_pidfds ? kPidfdThread : 0)));
  if (!pidfd) return ESRCH;
  out.reset(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0)));
  if (!out) return errno == EBADF ? EBADF : EPERM;
  // Of an O_PATH descriptor these calls say that it is none.
  if ((::fcntl(out.get(), F_GETFL) & O_PATH) == 0) return 0;
  out.reset();
  return EBADF;
}

}  // namespace certgate::supervisor
