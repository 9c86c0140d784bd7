#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "kernel/mutant.h"
#include "sandbox/child_plan.h"
#include "sandbox/network.h"
#include "sandbox/wire.h"

// Runs between clone() and the end of the sandbox: no allocation. All signals are blocked here; the
// kernel shields pid 1 from anything its own descendants send.
namespace certgate::sandbox {
namespace {

struct NamespaceStep {
  int flag;
  Step step;
};
// One at a time, so that a host which forbids one of them is told which.
constexpr NamespaceStep kNamespaces[] = {{CLONE_NEWNS, Step::kMountNamespace},
                                         {CLONE_NEWNET, Step::kNetNamespace},
                                         {CLONE_NEWIPC, Step::kIpcNamespace},
                                         {CLONE_NEWUTS, Step::kUtsNamespace},
                                         {CLONE_NEWCGROUP, Step::kCgroupNamespace}};

// Refuses a file that only looks like procfs: writes go where the name says.
Failure write_proc(const char* path, const char* text, size_t size) {
  const UniqueFd file(open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return fail_step(Step::kIdMap, path);
  struct statfs info {};
  if (fstatfs(file.get(), &info) != 0) return fail_step(Step::kIdMap, path);
  if (info.f_type != PROC_SUPER_MAGIC) return fail_step(Step::kIdMap, path, ENODEV);
  if (write(file.get(), text, size) != static_cast<ssize_t>(size))
    return fail_step(Step::kIdMap, path);
  return {};
}

// A process that changed its uid is not dumpable, and then its own /proc files belong to root.
Failure map_ids(const ChildPlan& plan) {
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return fail_step(Step::kIdMap, "(dumpable)");
  // An unprivileged gid_map is accepted only after setgroups has been given up.
  if (const Failure failure = write_proc("/proc/self/setgroups", "deny", 4)) return failure;
  if (const Failure failure =
          write_proc("/proc/self/uid_map", plan.uid_map.data(), plan.uid_map.size())) {
    return failure;
  }
  if (const Failure failure =
          write_proc("/proc/self/gid_map", plan.gid_map.data(), plan.gid_map.size())) {
    return failure;
  }
  // From here on nothing of the same uid inside may look into this process, which is a copy of the
  // caller.
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail_step(Step::kIdMap, "(dumpable)");
  return {};
}

// /proc/1/cmdline can be read from inside and would show the operator's command line.
void hide_command_line(const ChildPlan& plan) {
  constexpr char kTitle[] = "init";
  prctl(PR_SET_NAME, kTitle, 0, 0, 0);
  if (plan.title == nullptr) return;
  std::memset(plan.title, 0, plan.title_size);
  if (plan.title_size > sizeof kTitle) std::memcpy(plan.title, kTitle, sizeof kTitle);
}

// Before anything else: what is inside, and what it uses, is counted from the first process on.
Failure enter_cgroups(const ChildPlan& plan) {
  for (const int entrance : plan.entrances) {
    if (write(entrance, "0", 1) != 1) return fail_step(Step::kCgroup);
  }
  return {};
}

Failure set_up(ChildPlan& plan) {
  if (!mutant(Mutant::kDeathOfSupervisor) && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
    return fail_step(Step::kInit, "(death signal)");
  if (const Failure failure = enter_cgroups(plan)) return failure;
  umask(0);  // modes of mount points are exact
  if (const Failure failure = map_ids(plan)) return failure;
  for (const NamespaceStep& item : kNamespaces) {
    if (mutant(Mutant::kPrivateIpc) && item.flag == CLONE_NEWIPC) continue;
    if (unshare(item.flag) != 0) return fail_step(item.step);
  }
  if (const Failure failure = perform_mounts(plan.mounts)) return failure;
  if (sethostname(plan.hostname.data(), plan.hostname.size()) != 0)
    return fail_step(Step::kHostname);
  if (const Failure failure = set_up_network()) return failure;
  hide_command_line(plan);
  return {};
}

[[noreturn]] void end_with(int control, const Failure& failure) {
  Report report;
  report.failure = failure;
  send_message(control, &report, sizeof report, -1);
  _exit(1);
}

// What is left inside dies with pid 1: the kernel kills and reaps all of it before pid 1 is reaped,
// without the race that a loop of kill and wait here would have.
[[noreturn]] void end_sandbox() {
  kill(-1, SIGKILL);
  _exit(0);
}

// As bind(2) of the agent would do it: with its umask, in its directory, under its root.
int bind_socket(const InitRequest& request, int socket) {
  const mode_t before = umask(static_cast<mode_t>(request.umask & 0777));
  // NOLINTNEXTLINE: the socket API's own cast
  const auto* name = reinterpret_cast<const sockaddr*>(&request.name);
  const int error = request.size > sizeof request.name      ? EINVAL
                    : bind(socket, name, request.size) == 0 ? 0
                                                            : errno;
  umask(before);
  return chdir("/") == 0 ? error : errno;
}

void serve_request(int control) {
  InitRequest request;
  UniqueFd got, made;
  if (receive_message(control, &request, sizeof request, got) != sizeof request) {
    if (mutant(Mutant::kDeathOfSupervisor)) pause();
    end_sandbox();
  }
  InitReply reply;
  if (request.kind == InitRequest::Kind::kEnter) {
    reply.error = fchdir(got.get()) == 0 ? 0 : errno;
  } else if (request.kind == InitRequest::Kind::kBind) {
    reply.error = bind_socket(request, got.get());
  } else {
    made.reset(socket(request.domain, request.type | SOCK_CLOEXEC, 0));
    reply.error = made ? 0 : errno;
  }
  if (send_message(control, &reply, sizeof reply, made.get()) != 0) end_sandbox();
}

// What a terminal or a shell sends to the process group that init shares with the caller. An
// orphaned group ignores SIGTSTP, hence SIGSTOP.
struct PassedSignal {
  int from, to;
};
constexpr PassedSignal kPassedSignals[] = {
    {SIGINT, SIGINT}, {SIGQUIT, SIGQUIT}, {SIGTSTP, SIGSTOP}, {SIGCONT, SIGCONT}};

void pass_signal(uint32_t signal, pid_t agent) {
  for (const PassedSignal& item : kPassedSignals) {
    if (signal == static_cast<uint32_t>(item.from)) kill(-agent, item.to);
  }
}

int open_signals() {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGCHLD);
  for (const PassedSignal& item : kPassedSignals) sigaddset(&watched, item.from);
  return signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
}

// Ends the sandbox when the agent's first process is among the dead.
void reap(int signals, int status, pid_t agent) {
  signalfd_siginfo info{};
  while (read(signals, &info, sizeof info) == sizeof info) pass_signal(info.ssi_signo, agent);
  for (;;) {
    int wait_status = 0;
    const pid_t pid = waitpid(-1, &wait_status, WNOHANG | __WALL);
    if (pid <= 0) return;
    if (pid != agent) continue;
    const ssize_t sent = write(status, &wait_status, sizeof wait_status);
    static_cast<void>(sent);  // a caller that has gone wants no status
    end_sandbox();
  }
}

[[noreturn]] void serve(int control, int status, int signals, pid_t agent) {
  for (;;) {
    pollfd watched[] = {{signals, POLLIN, 0}, {control, POLLIN, 0}};
    if (poll(watched, 2, -1) < 0) {
      if (errno == EINTR) continue;
      end_sandbox();
    }
    if (watched[0].revents != 0) reap(signals, status, agent);
    // The caller's end is closed: it is gone (also when it died before the death signal was set).
    if ((watched[1].revents & POLLIN) != 0)
      serve_request(control);
    else if (watched[1].revents != 0)
      end_sandbox();
  }
}

}  // namespace

void run_init(ChildPlan& plan) {
  const int control = plan.control.get();
  if (const Failure failure = set_up(plan)) end_with(control, failure);
  const int signals = open_signals();
  if (signals < 0) end_with(control, fail_step(Step::kInit, "(signalfd)"));
  const long agent = syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0);
  if (agent < 0) end_with(control, fail_step(Step::kInit, "(clone)"));
  if (agent == 0) run_agent(plan);
  const int status = plan.status.get();
  const int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) end_with(control, fail_step(Step::kInit, "(root)"));
  if (const int error = close_others({control, status, signals, root}); error != 0) {
    end_with(control, fail_step(Step::kInit, "(close)", -error));
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) end_with(control, fail_step(Step::kNoNewPrivs));
  if (const Failure failure = drop_capabilities()) end_with(control, failure);
  Report report;
  if (const Failure failure = confine_socket_names(plan.mounts, report.socket_names))
    end_with(control, failure);
  report.kind = Report::Kind::kReady;
  if (send_message(control, &report, sizeof report, root) != 0) end_sandbox();
  close(root);
  serve(control, status, signals, static_cast<pid_t>(agent));
}

}  // namespace certgate::sandbox
