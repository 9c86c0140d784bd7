#include "bench/floor.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <optional>

// Younger than Debian 12's headers.
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

namespace certgate::bench {
namespace {

using sandbox::UniqueFd;

constexpr size_t kRecordBytes = 300;   // what one decision may take in the log
constexpr size_t kPageBytes = 4096;
constexpr size_t kFirstCopy = 256;     // nearly every path is shorter

// --- the end of the child -------------------------------------------------------------------------
// RECV blocks, and before 6.11 it may do so for ever once the last task has gone. Polling first would
// be one more system call in the floor, so SIGCHLD interrupts RECV instead; a timer that the handler
// starts closes the gap between looking at the flag and blocking.

volatile sig_atomic_t child_signal = 0;

void on_child(int) {
  child_signal = 1;
  const itimerval every_10ms{{0, 10'000}, {0, 10'000}};
  ::setitimer(ITIMER_REAL, &every_10ms, nullptr);
}
void on_alarm(int) {}

class ChildBell {
 public:
  ChildBell() {
    child_signal = 0;
    struct sigaction action{};
    action.sa_handler = on_child;   // no SA_RESTART: RECV must return
    ::sigaction(SIGCHLD, &action, &old_child_);
    action.sa_handler = on_alarm;
    ::sigaction(SIGALRM, &action, &old_alarm_);
  }
  ~ChildBell() {
    ::sigaction(SIGCHLD, &old_child_, nullptr);
    const itimerval off{};
    ::setitimer(ITIMER_REAL, &off, nullptr);
    ::sigaction(SIGALRM, &old_alarm_, nullptr);
  }
  ChildBell(const ChildBell&) = delete;
  ChildBell& operator=(const ChildBell&) = delete;

 private:
  struct sigaction old_child_{}, old_alarm_{};
};

bool has_ended(pid_t child) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == child;
}

// --- the loop -------------------------------------------------------------------------------------

class Floor {
 public:
  Floor(Trap trap, UniqueFd listener, pid_t child, int log)
      : trap_(trap), listener_(std::move(listener)), child_(child), log_(log) {}

  Result<FloorReport> serve();

 private:
  Status start();
  bool receive();
  Status answer_open();
  Status answer_connect();
  Status answer_exec();
  int copy_path(uint64_t address);
  int decode_open(open_how& how, int& dirfd);
  int base_of(int dirfd, UniqueFd& base);
  int pidfd_of(pid_t tid);
  Status wait_exec_stop(pid_t tid);
  // True also when the caller has gone meanwhile.
  bool send(int error, uint32_t flags);
  static Status answered(bool fine) { return fine ? ok() : Status(fail_errno("answer a trapped call", errno)); }
  int copy(uint64_t address, void* out, size_t size) const;

  Trap trap_;
  UniqueFd listener_;
  pid_t child_;
  int log_;
  UniqueFd child_pidfd_;
  // The kernel may know a longer struct than our headers do, and wants it zeroed.
  union {
    seccomp_notif call;
    char room[512];
  } in_{};
  size_t call_size_ = sizeof(seccomp_notif);
  std::array<char, PATH_MAX> path_{};
  std::array<char, kRecordBytes> record_{};
  pid_t cached_tid_ = -1;
  UniqueFd cached_pidfd_;
};

int Floor::copy(uint64_t address, void* out, size_t size) const {
  const iovec local{out, size};
  iovec remote{};
  remote.iov_len = size;
  std::memcpy(&remote.iov_base, &address, sizeof remote.iov_base);
  const ssize_t got = ::process_vm_readv(static_cast<pid_t>(in_.call.pid), &local, 1, &remote, 1, 0);
  return got == static_cast<ssize_t>(size) ? 0 : EFAULT;
}

// Never reads across a page border before it must: the page behind the string may not be mapped.
int Floor::copy_path(uint64_t address) {
  size_t have = 0;
  size_t wanted = kFirstCopy;
  while (have < path_.size()) {
    const size_t to_border = kPageBytes - (address + have) % kPageBytes;
    const size_t size = std::min({wanted, to_border, path_.size() - have});
    if (const int error = copy(address + have, path_.data() + have, size)) return error;
    if (std::memchr(path_.data() + have, '\0', size) != nullptr) return 0;
    have += size;
    wanted = kPageBytes;
  }
  return ENAMETOOLONG;
}

int Floor::decode_open(open_how& how, int& dirfd) {
  const auto& args = in_.call.data.args;
  dirfd = AT_FDCWD;
  uint64_t path = args[0];
  switch (in_.call.data.nr) {
    case SYS_open:
      how.flags = static_cast<uint32_t>(args[1]);
      how.mode = static_cast<uint32_t>(args[2]);
      break;
    case SYS_openat:
      dirfd = static_cast<int>(args[0]);
      path = args[1];
      how.flags = static_cast<uint32_t>(args[2]);
      how.mode = static_cast<uint32_t>(args[3]);
      break;
    default:
      dirfd = static_cast<int>(args[0]);
      path = args[1];
      if (args[3] < sizeof how) return EINVAL;
      if (const int error = copy(args[2], &how, sizeof how)) return error;
  }
  // openat ignores a mode that it has no use for, openat2 refuses it.
  constexpr uint64_t kMakes = O_CREAT | (O_TMPFILE & ~O_DIRECTORY);
  how.mode = (how.flags & kMakes) != 0 ? how.mode & 07777 : 0;
  return copy_path(path);
}

int Floor::pidfd_of(pid_t tid) {
  if (tid != cached_tid_) {
    cached_pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, tid, 0)));
    cached_tid_ = cached_pidfd_ ? tid : -1;
  }
  return cached_pidfd_.get();
}

int Floor::base_of(int dirfd, UniqueFd& base) {
  if (path_[0] == '/') return 0;
  const auto tid = static_cast<pid_t>(in_.call.pid);
  if (dirfd != AT_FDCWD) {
    const int pidfd = pidfd_of(tid);
    if (pidfd < 0) return errno;
    base.reset(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, dirfd, 0)));
  } else {
    std::array<char, 64> link{};
    std::snprintf(link.data(), link.size(), "/proc/%d/cwd", tid);
    base.reset(::open(link.data(), O_PATH | O_CLOEXEC));
  }
  return base ? 0 : errno;
}

bool Floor::send(int error, uint32_t flags) {
  seccomp_notif_resp response{};
  response.id = in_.call.id;
  response.error = -error;
  response.flags = flags;
  return ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_SEND, &response) == 0 || errno == ENOENT;
}

Status Floor::answer_open() {
  open_how how{};
  int dirfd = AT_FDCWD;
  UniqueFd base;
  if (const int error = decode_open(how, dirfd)) return answered(send(error, 0));
  // A descriptor with O_PATH cannot be injected, and our /proc/self is not the caller's (a sanitizer
  // in the inner loop reads its own memory map there).
  if ((how.flags & O_PATH) != 0 || std::strncmp(path_.data(), "/proc/self/", 11) == 0) {
    return answered(send(0, SECCOMP_USER_NOTIF_FLAG_CONTINUE));
  }
  if (const int error = base_of(dirfd, base)) return answered(send(error, 0));
  const uint32_t close_on_exec = how.flags & O_CLOEXEC;
  how.flags |= O_CLOEXEC | O_NOCTTY;
  const UniqueFd fd(static_cast<int>(
      ::syscall(SYS_openat2, base ? base.get() : AT_FDCWD, path_.data(), &how, sizeof how)));
  if (!fd) return answered(send(errno, 0));
  if (trap_ == Trap::kOpenReference) {
    struct statx facts{};
    if (::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &in_.call.id) != 0) return ok();
    if (::statx(fd.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &facts) != 0) {
      return fail_errno("statx an opened file", errno);
    }
    if (::write(log_, record_.data(), record_.size()) != static_cast<ssize_t>(record_.size())) {
      return fail_errno("append a record (is the disk full?)", errno);
    }
  }
  seccomp_notif_addfd inject{};
  inject.id = in_.call.id;
  inject.flags = SECCOMP_ADDFD_FLAG_SEND;
  inject.srcfd = static_cast<uint32_t>(fd.get());
  inject.newfd_flags = close_on_exec;
  if (::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &inject) < 0) return answered(send(errno, 0));
  return ok();
}

Status Floor::answer_connect() {
  const auto& args = in_.call.data.args;
  union {
    sockaddr generic;
    sockaddr_storage storage;
  } to{};
  const auto size = static_cast<size_t>(args[2]);
  if (size > sizeof to) return answered(send(EINVAL, 0));
  if (const int error = copy(args[1], &to, size)) return answered(send(error, 0));
  const int pidfd = pidfd_of(static_cast<pid_t>(in_.call.pid));
  if (pidfd < 0) return answered(send(errno, 0));
  const UniqueFd socket(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd, static_cast<int>(args[0]), 0)));
  if (!socket) return answered(send(errno, 0));
  const int error = ::connect(socket.get(), &to.generic, static_cast<socklen_t>(size)) == 0 ? 0 : errno;
  return answered(send(error, 0));
}

// The interrupt was queued before the call went on, so there is one stop whether it succeeds or not.
Status Floor::wait_exec_stop(pid_t tid) {
  for (;;) {
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(tid), &info, WSTOPPED | __WALL) != 0) {
      if (errno == EINTR) continue;
      return errno == ECHILD ? ok() : Status(fail_errno("wait for an exec", errno));   // ECHILD: it died
    }
    const int event = info.si_status >> 8;
    if (event == PTRACE_EVENT_EXEC || event == PTRACE_EVENT_STOP) break;
    ::ptrace(PTRACE_CONT, tid, nullptr, static_cast<unsigned long>(info.si_status & 0x7f));
  }
  if (::ptrace(PTRACE_DETACH, tid, nullptr, 0UL) != 0) return fail_errno("detach from an exec", errno);
  return ok();
}

Status Floor::answer_exec() {
  const auto tid = static_cast<pid_t>(in_.call.pid);
  constexpr unsigned long kOptions = PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
  if (::ptrace(PTRACE_SEIZE, tid, nullptr, kOptions) != 0) {
    const int error = errno;
    send(EPERM, 0);
    return fail_errno("seize a task at exec (is kernel.yama.ptrace_scope 3?)", error);
  }
  if (::ptrace(PTRACE_INTERRUPT, tid, nullptr, 0UL) != 0) return fail_errno("interrupt a task at exec", errno);
  if (!send(0, SECCOMP_USER_NOTIF_FLAG_CONTINUE)) return answered(false);
  return wait_exec_stop(tid);
}

Status Floor::start() {
  seccomp_notif_sizes sizes{};
  if (::syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) {
    return fail_errno("ask for the size of a notification", errno);
  }
  call_size_ = std::max<size_t>(sizes.seccomp_notif, sizeof(seccomp_notif));
  if (call_size_ > sizeof in_) return fail("this kernel's seccomp notifications are longer than we know");
  child_pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, child_, 0)));
  if (!child_pidfd_) return fail_errno("watch the traced program", errno);
  return ok();
}

// False when there is nothing to receive just now: an interruption, or the end.
bool Floor::receive() {
  if (trap_ == Trap::kExec) {
    // Stops of traced tasks raise SIGCHLD too, so the bell is of no use; a poll is lost in an exec.
    std::array<pollfd, 2> ready{{{listener_.get(), POLLIN, 0}, {child_pidfd_.get(), POLLIN, 0}}};
    if (::poll(ready.data(), ready.size(), -1) <= 0) return false;
    if ((ready[0].revents & POLLIN) == 0) {
      errno = ENOENT;
      return false;
    }
  }
  std::memset(&in_, 0, call_size_);
  return ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_RECV, &in_.call) == 0;
}

Result<FloorReport> Floor::serve() {
  CG_CHECK(start());
  std::optional<ChildBell> bell;
  if (trap_ != Trap::kExec) bell.emplace();
  FloorReport report;
  const uint64_t flags = SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP;
  report.same_cpu = ::ioctl(listener_.get(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags) == 0;
  for (;;) {
    if (bell && child_signal != 0 && has_ended(child_)) return report;
    if (!receive()) {
      const int error = errno;
      if (has_ended(child_)) return report;
      if (error == EINTR || error == ENOENT) continue;
      return fail_errno("receive a notification", error);
    }
    Status answer = trap_ == Trap::kExec      ? answer_exec()
                    : trap_ == Trap::kConnect ? answer_connect()
                                              : answer_open();
    if (!answer) return answer.error();
  }
}

}  // namespace

int install_trap(Trap trap) {
  std::array<uint32_t, 3> calls{SYS_openat, SYS_open, SYS_openat2};
  if (trap == Trap::kExec) calls = {SYS_execve, SYS_execveat, SYS_execve};
  if (trap == Trap::kConnect) calls = {SYS_connect, SYS_connect, SYS_connect};
  std::array<sock_filter, 9> code{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[0], 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[1], 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[2], 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
  }};
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
  const long fd = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  return fd < 0 ? -errno : static_cast<int>(fd);
}

Result<FloorReport> serve_floor(Trap trap, UniqueFd listener, pid_t child, int log) {
  return Floor(trap, std::move(listener), child, log).serve();
}

}  // namespace certgate::bench
