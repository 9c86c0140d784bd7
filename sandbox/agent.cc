#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <span>

#include "sandbox/child_plan.h"
#include "sandbox/filter.h"
#include "sandbox/self_test.h"
#include "sandbox/wire.h"

namespace certgate::sandbox {
namespace {

constexpr int kNotFound = 127;
constexpr int kCannotRun = 126;
constexpr int kNotStarted = 125;

// Where the filter's programs arrive; touched only in the agent's process.
sock_filter program_room[BPF_MAXINSNS];
sock_filter guard_room[BPF_MAXINSNS];

Failure receive_program(int gate, std::span<sock_filter> room,
                        std::span<const sock_filter>& program) {
  UniqueFd none;
  const ssize_t got = receive_message(gate, room.data(), room.size_bytes(), none);
  if (got < 0) return fail_step(Step::kFilter, "(receive)", static_cast<int>(-got));
  const auto bytes = static_cast<size_t>(got);
  if (bytes == 0 || bytes % sizeof(sock_filter) != 0) {
    return fail_step(Step::kFilter, "(receive)", EPROTO);
  }
  program = room.first(bytes / sizeof(sock_filter));
  return {};
}

Failure receive_filter(int gate, FilterView& filter) {
  if (const Failure failure = receive_program(gate, program_room, filter.program)) return failure;
  return receive_program(gate, guard_room, filter.guard);
}

// The master goes to the caller in a report of its own, before the one with the listener.
Failure enter_session(const ChildPlan& plan) {
  UniqueFd master;
  if (const Failure failure = start_session(plan.terminal, master)) return failure;
  if (!master) return {};
  Report report;
  report.kind = Report::Kind::kReady;
  const int sent = send_message(plan.gate.get(), &report, sizeof report, master.get());
  return sent == 0 ? Failure{} : fail_step(Step::kTerminal, "(hand over)", -sent);
}

Failure confine(const ChildPlan& plan, Report& report, UniqueFd& listener) {
  const int gate = plan.gate.get();
  // First, since a socket that closes with unread data resets and loses the report of a failure.
  FilterView filter;
  if (const Failure failure = receive_filter(gate, filter)) return failure;
  if (const Failure failure = enter_session(plan)) return failure;
  umask(plan.umask);
  for (const auto& [resource, value] : plan.limits) {
    const rlimit limit{value, value};
    if (setrlimit(static_cast<__rlimit_resource>(resource), &limit) != 0)
      return fail_step(Step::kLimits);
  }
  if (chdir(plan.cwd.c_str()) != 0) return fail_step(Step::kWorkingDirectory, plan.cwd.c_str());
  if (const int error = close_others({0, 1, 2, gate}); error != 0) {
    return fail_step(Step::kHandshake, "(close)", -error);
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_step(Step::kNoNewPrivs);
  if (const Failure failure = drop_capabilities()) return failure;
  // Init made this copy non-dumpable; the supervisor has to read the arguments of the first execve.
  // Nothing else is inside yet that could look.
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return fail_step(Step::kHandshake, "(dumpable)");
  const Installed installed = install_filter(filter);
  if (installed.listener < 0) return fail_step(Step::kFilter, "", -installed.listener);
  listener.reset(installed.listener);
  report.interrupts = installed.interrupts;
  return {};
}

// What the caller set up for itself (ignored SIGPIPE, blocked signals) is not the agent's.
void restore_signals() {
  struct sigaction plain {};
  plain.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, &plain, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

// The search of execvp over candidates made beforehand. Returns only on failure, with the errno.
int exec_first(const ChildPlan& plan) {
  int error = ENOENT;
  for (const std::string& program : plan.programs) {
    execve(program.c_str(), plan.argv.data(), plan.env.data());
    if (errno == EACCES) {
      error = EACCES;  // reported only when no later directory has a better one
    } else if (errno != ENOENT && errno != ENOTDIR && errno != ESTALE && errno != ENODEV &&
               errno != ETIMEDOUT) {
      return errno;
    }
  }
  return error;
}

}  // namespace

void run_agent(const ChildPlan& plan) {
  const int gate = plan.gate.get();
  Report report;
  UniqueFd listener;
  report.failure = confine(plan, report, listener);
  if (!report.failure) report.kind = Report::Kind::kReady;
  const int sent = send_message(gate, &report, sizeof report, listener.get());
  listener.reset();
  if (report.failure || sent != 0) _exit(kNotStarted);
  if (!await_release(gate)) _exit(kNotStarted);
  restore_signals();
  _exit(exec_first(plan) == ENOENT ? kNotFound : kCannotRun);
}

}  // namespace certgate::sandbox
