#include "sandbox/probe_agent.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <csignal>
#include <string>
#include <thread>

#include "sandbox/notify.h"
#include "sandbox/remote.h"

namespace certgate::sandbox {
namespace {

constexpr int kCallMs = 10000;
constexpr auto kStopPatience = std::chrono::seconds(10);
constexpr int kMaxCalls = 1000;  // a dynamic loader makes some dozens
constexpr std::string_view kContent = "certgate\n";

constexpr const char* kNoAgent = "no agent can be started";
constexpr const char* kNotifyCure =
    "Linux 5.19 or newer with CONFIG_SECCOMP_FILTER; in a container, a profile that allows "
    "seccomp(2)";
constexpr const char* kPtraceCure =
    "sysctl kernel.yama.ptrace_scope below 3; in a container, a profile that allows ptrace and "
    "process_vm_readv";

struct Probe {
  Sandbox box;
  Listener listener;
  UniqueFd output;
};

// One thing to try: an empty error means that it works.
struct Trial {
  const char* what;
  Status (*attempt)(Probe&, const TrappedCall&);
  bool required;
  const char* consequence;
  const char* cure;
};

Result<TrappedCall> next_call(Probe& probe) {
  pollfd watched{probe.listener.fd(), POLLIN, 0};
  const int ready = poll(&watched, 1, kCallMs);
  if (ready < 0) return fail_errno("poll", errno);
  if (ready == 0) return fail("none came within 10 s", ETIMEDOUT);
  if ((watched.revents & POLLIN) == 0) return fail("the agent has ended", ENODEV);
  return probe.listener.receive();
}

Result<std::string> path_argument(const TrappedCall& call, size_t index) {
  std::string path;
  if (const int error = read_string(call.tid, call.args[index], PATH_MAX, path); error != 0) {
    return fail_errno("process_vm_readv", error);
  }
  return path;
}

Status try_copy(Probe&, const TrappedCall& call) {
  CG_TRY(const std::string path, path_argument(call, 0));
  if (path == kProbeProgram) return ok();
  return fail("read '" + path + "' instead of the program's name");
}

Status try_valid(Probe& probe, const TrappedCall& call) {
  if (!probe.listener.valid(call.id)) return fail_errno("ID_VALID of a waiting call", errno);
  if (probe.listener.valid(call.id + 1000000))
    return fail("ID_VALID of a call that does not exist succeeded");
  return ok();
}

Status try_pidfd(Probe&, const TrappedCall& call) {
  const UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, call.tid, 0)));
  if (!process) return fail_errno("pidfd_open", errno);
  const UniqueFd copy(static_cast<int>(syscall(SYS_pidfd_getfd, process.get(), 1, 0)));
  if (!copy) return fail_errno("pidfd_getfd", errno);
  return ok();
}

Result<UniqueFd> open_inside(const Probe& probe, const std::string& path, uint64_t flags) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const long fd = syscall(SYS_openat2, probe.box.root.get(), path.c_str(), &how, sizeof how);
  if (fd < 0) return fail_errno("openat2 " + path, errno);
  return UniqueFd(static_cast<int>(fd));
}

Status try_openat2(Probe& probe, const TrappedCall&) {
  CG_TRY(const UniqueFd file, open_inside(probe, kProbeProgram, O_PATH));
  struct stat info {};
  if (fstat(file.get(), &info) != 0) return fail_errno("fstat", errno);
  return S_ISREG(info.st_mode) ? ok() : Status(fail("not a regular file"));
}

Status try_birth_time(Probe& probe, const TrappedCall&) {
  CG_TRY(const UniqueFd workspace, open_inside(probe, "/usr", O_PATH));
  struct statx info {};
  if (statx(workspace.get(), "", AT_EMPTY_PATH, STATX_BTIME, &info) != 0)
    return fail_errno("statx", errno);
  return (info.stx_mask & STATX_BTIME) != 0
             ? ok()
             : Status(fail("the file system of /usr keeps no birth time"));
}

Status try_same_cpu(Probe& probe, const TrappedCall&) {
  if (probe.listener.set_wake(Wake::kSameCpu)) return ok();
  return fail("SECCOMP_IOCTL_NOTIF_SET_FLAGS is refused (Linux older than 6.6)");
}

Status wait_exec_stop(pid_t pid) {
  const auto deadline = std::chrono::steady_clock::now() + kStopPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    int status = 0;
    const pid_t got = waitpid(pid, &status, __WALL | WNOHANG);
    if (got < 0) return fail_errno("wait for the exec", errno);
    if (got == pid && status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXEC << 8))) return ok();
    if (got == pid && WIFSTOPPED(status)) ptrace(PTRACE_CONT, pid, nullptr, nullptr);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return fail("no PTRACE_EVENT_EXEC within 10 s", ETIMEDOUT);
}

Status try_exec_stop(Probe& probe, const TrappedCall& call) {
  if (ptrace(PTRACE_SEIZE, call.tid, nullptr, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) != 0) {
    return fail_errno("PTRACE_SEIZE", errno);
  }
  if (!probe.listener.proceed_to_exec(call.id)) return fail_errno("CONTINUE", errno);
  CG_CHECK(wait_exec_stop(call.tid));
  CG_TRY(const UniqueFd image, open_task_link(call.tid, "exe"));
  if (ptrace(PTRACE_DETACH, call.tid, nullptr, nullptr) != 0)
    return fail_errno("PTRACE_DETACH", errno);
  return ok();
}

Result<UniqueFd> probe_content() {
  UniqueFd file(memfd_create("certgate-probe", MFD_CLOEXEC));
  if (!file ||
      write(file.get(), kContent.data(), kContent.size()) !=
          static_cast<ssize_t>(kContent.size()) ||
      lseek(file.get(), 0, SEEK_SET) != 0) {
    return fail_errno("memfd", errno);
  }
  return file;
}

// Performs one open for the agent, the way the supervisor does. True: it was the probe's file.
Result<bool> perform_open(Probe& probe, const TrappedCall& call) {
  if (call.nr != SYS_openat && call.nr != SYS_open) {
    probe.listener.refuse(call.id, ENOSYS);
    return false;
  }
  const size_t path_at = call.nr == SYS_openat ? 1 : 0;
  CG_TRY(const std::string path, path_argument(call, path_at));
  const bool ours = path == kProbeFile;
  auto file = ours ? probe_content() : open_inside(probe, path, O_RDONLY | O_NOCTTY);
  if (!file) {
    probe.listener.refuse(call.id, file.error().code);
    return false;
  }
  const int error = probe.listener.inject(call, file->get(), O_CLOEXEC);
  if (error != 0) return fail_errno("SECCOMP_IOCTL_NOTIF_ADDFD with ADDFD_FLAG_SEND", error);
  return ours;
}

Status try_inject(Probe& probe, const TrappedCall&) {
  for (int calls = 0; calls < kMaxCalls; ++calls) {
    CG_TRY(const TrappedCall call, next_call(probe));
    CG_TRY(const bool done, perform_open(probe, call));
    if (done) break;
  }
  char buffer[64] = {};
  pollfd watched{probe.output.get(), POLLIN, 0};
  if (poll(&watched, 1, kCallMs) <= 0)
    return fail("the agent printed nothing within 10 s", ETIMEDOUT);
  const ssize_t got = read(probe.output.get(), buffer, sizeof buffer);
  if (got > 0 && std::string_view(buffer, static_cast<size_t>(got)) == kContent) return ok();
  return fail("the agent did not get the file's content");
}

Status try_inside_socket(Probe& probe, const TrappedCall&) {
  CG_TRY(const UniqueFd made, inside_socket(probe.box, AF_INET, SOCK_STREAM));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(80);
  address.sin_addr.s_addr = htonl(0xC0000201);  // 192.0.2.1: documentation, nobody's
  if (bind(made.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno("bind 192.0.2.1:80 inside", errno);
  }
  return listen(made.get(), 1) == 0 ? ok() : Status(fail_errno("listen", errno));
}

Status try_socket_names(Probe& probe, const TrappedCall&) {
  if (probe.box.socket_names == SocketNames::kBound) return ok();
  return fail("no Landlock domain can be made");
}

Status try_interrupts(Probe& probe, const TrappedCall&) {
  if (probe.box.interrupts == Interrupts::kFatal) return ok();
  return fail("this kernel has no WAIT_KILLABLE_RECV");
}

Status try_end(Probe& probe, const TrappedCall&) {
  CG_TRY(const int status, wait_agent(probe.box));
  return status == 0 ? ok()
                     : Status(fail("the agent ended with wait status " + std::to_string(status)));
}

constexpr Trial kTrials[] = {
    {"copy the arguments of a call (process_vm_readv)", try_copy, true, kNoAgent, kPtraceCure},
    {"see whether a call still waits (ID_VALID)", try_valid, true, kNoAgent, kNotifyCure},
    {"take a descriptor of the agent (pidfd_getfd)", try_pidfd, true, kNoAgent, kPtraceCure},
    {"open a path as the agent sees it (openat2)", try_openat2, true, kNoAgent,
     "Linux 5.19 or newer"},
    {"read a file's birth time (statx)", try_birth_time, false,
     "a reused inode number may be taken for the old file and keep its label",
     "use ext4, xfs or btrfs"},
    {"run beside the agent on one CPU (SYNC_WAKE_UP)", try_same_cpu, false,
     "each trapped call takes longer", "Linux 6.6 or newer"},
    {"make a listener inside on any address", try_inside_socket, true, kNoAgent,
     "report this with the output of certgate doctor --json"},
    {"bind unix sockets by the agent's own names (Landlock)", try_socket_names, false,
     "programs that read a socket's name back see /proc/self/fd/…",
     "boot with landlock in lsm=, CONFIG_SECURITY_LANDLOCK"},
    {"let signal handlers wait until a call is answered", try_interrupts, false,
     "a handler interrupts calls that are being served: programs see EINTR where they would not",
     "Linux 5.19 or newer"},
    {"stop the agent at exec (PTRACE_SEIZE, EVENT_EXEC)", try_exec_stop, true, kNoAgent,
     kPtraceCure},
    {"answer with a descriptor (ADDFD and SEND)", try_inject, true, kNoAgent, kNotifyCure},
    {"see the agent end and take its status", try_end, true, kNoAgent,
     "report this with the output of certgate doctor --json"},
};

}  // namespace

void probe_agent(Sandbox box, UniqueFd output, const std::function<void(const Check&)>& report) {
  UniqueFd notify = std::move(box.notify);
  Probe probe{std::move(box), Listener(std::move(notify)), std::move(output)};
  const Status released = release(probe.box);
  auto call = released ? next_call(probe) : Result<TrappedCall>(released.error());
  report({"receive a notification of a system call", static_cast<bool>(call), true,
          call ? "" : call.error().what, kNoAgent, kNotifyCure});
  if (!call) return;
  for (const Trial& trial : kTrials) {
    const Status status = trial.attempt(probe, *call);
    report({trial.what, static_cast<bool>(status), trial.required,
            status ? "" : status.error().what, trial.consequence, trial.cure});
    if (!status && trial.required) return;
  }
}

}  // namespace certgate::sandbox
