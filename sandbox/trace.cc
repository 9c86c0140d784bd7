#include "sandbox/trace.h"

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <cerrno>

namespace certgate::sandbox {
namespace {

long trace(__ptrace_request request, pid_t pid, unsigned long data) {
  return ::ptrace(request, pid, nullptr, data);
}

int errno_of_stopped_call(pid_t pid) {
  user_regs_struct regs{};
  if (::ptrace(PTRACE_GETREGS, pid, nullptr, &regs) != 0) return EIO;
  const auto value = static_cast<int64_t>(regs.rax);
  return value < 0 && value > -4096 ? static_cast<int>(-value) : 0;
}

// A traced task that was killed stays for its tracer to take, and neither its parent nor the end of
// its pid namespace sees the death before. Only for a task that is dying: it waits for that.
void take_dead(pid_t pid) {
  int status = 0;
  for (;;) {
    const pid_t got = ::waitpid(pid, &status, __WALL | __WNOTHREAD);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 || WIFEXITED(status) || WIFSIGNALED(status)) return;
  }
}

}  // namespace

Status seize_for_exec(pid_t tid) {
  if (trace(PTRACE_SEIZE, tid, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) != 0) {
    return fail_errno("seize a task at exec (is kernel.yama.ptrace_scope 3?)", errno);
  }
  if (trace(PTRACE_INTERRUPT, tid, 0) != 0) {
    const int error = errno;
    take_dead(tid);
    return fail_errno("interrupt a task at exec", error);
  }
  return ok();
}

ExecStop wait_exec(pid_t tid) {
  for (;;) {
    int status = 0;
    // Not by tid: a thread that execs takes over the number of its group's leader.
    const pid_t pid = ::waitpid(-1, &status, __WALL | __WNOTHREAD);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) return {};
    if (!WIFSTOPPED(status)) {
      if (pid == tid) return {};
      continue;
    }
    const int event = status >> 16;
    if (event == PTRACE_EVENT_EXEC) return {ExecStop::Kind::kExeced, pid, 0};
    if (event == PTRACE_EVENT_STOP)
      return {ExecStop::Kind::kFailed, pid, errno_of_stopped_call(pid)};
    // A signal on its way: deliver it, the queued interrupt still comes.
    trace(PTRACE_CONT, pid, static_cast<unsigned long>(WSTOPSIG(status)));
  }
}

Result<uint64_t> stack_pointer(pid_t pid) {
  user_regs_struct regs{};
  if (::ptrace(PTRACE_GETREGS, pid, nullptr, &regs) != 0)
    return fail_errno("read registers", errno);
  return uint64_t{regs.rsp};
}

void detach(pid_t pid) {
  if (trace(PTRACE_DETACH, pid, 0) != 0) take_dead(pid);  // killed while it was stopped
}

void kill_traced(pid_t pid) {
  ::kill(pid, SIGKILL);
  take_dead(pid);
}

}  // namespace certgate::sandbox
