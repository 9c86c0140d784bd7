#include "sandbox/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "sandbox/child_plan.h"
#include "sandbox/filter.h"
#include "sandbox/wire.h"

namespace certgate::sandbox {
namespace {

constexpr int kSetUpMs = 30000;  // a hung network file system must not hang the caller for good
constexpr int kRequestMs = 10000;
constexpr size_t kMaxStrings = 32768;
constexpr size_t kMaxPathEntries = 256;
constexpr const char* kDefaultPath = "/bin:/usr/bin";  // what execvp uses without PATH

Status check_strings(const char* what, const std::vector<std::string>& strings) {
  if (strings.size() > kMaxStrings) return fail(std::string("too many entries in ") + what, E2BIG);
  for (const std::string& text : strings) {
    if (text.find('\0') != std::string::npos)
      return fail(std::string("NUL byte in ") + what, EINVAL);
  }
  return ok();
}

Status check_caller() {
  uid_t real = 0, effective = 0, saved = 0;
  gid_t real_gid = 0, effective_gid = 0, saved_gid = 0;
  if (getresuid(&real, &effective, &saved) != 0 ||
      getresgid(&real_gid, &effective_gid, &saved_gid) != 0) {
    return fail_errno("read own ids", errno);
  }
  if (real == 0 || effective == 0 || saved == 0) {
    return fail("launch: the caller is root; cure: drop to the agent's user first", EPERM);
  }
  if (real != effective || real != saved || real_gid != effective_gid || real_gid != saved_gid) {
    return fail(
        "launch: the caller's real, effective and saved ids differ; cure: setresuid and setresgid",
        EPERM);
  }
  return ok();
}

// The candidates execvp would try, in its order.
std::vector<std::string> programs_of(const Spec& spec) {
  const std::string& name = spec.argv[0];
  if (name.find('/') != std::string::npos || name.empty()) return {name};
  std::string path = kDefaultPath;
  for (const std::string& variable : spec.env) {
    if (variable.starts_with("PATH=")) {
      path = variable.substr(5);
      break;
    }
  }
  std::vector<std::string> programs;
  for (size_t start = 0; start <= path.size() && programs.size() < kMaxPathEntries;) {
    const size_t end = std::min(path.find(':', start), path.size());
    const std::string directory = path.substr(start, end - start);
    programs.push_back(directory.empty() ? name : directory + "/" + name);
    start = end + 1;
  }
  return programs;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

// Fields 48 and 49 of /proc/self/stat: where the kernel reads our command line from. Without them
// (a masked /proc) nothing is hidden, and launch fails later anyway.
void find_title(ChildPlan& plan) {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  size_t at = line.rfind(')');
  for (int field = 2; field < 48 && at != std::string::npos; ++field) at = line.find(' ', at + 1);
  if (at == std::string::npos) return;
  unsigned long start = 0, end = 0;
  if (std::sscanf(line.c_str() + at, " %lu %lu", &start, &end) != 2 || start == 0 || end <= start)
    return;
  plan.title = reinterpret_cast<char*>(start);
  plan.title_size = end - start;
}

Result<ChildPlan> make_plan(const Spec& spec) {
  CG_CHECK(check_caller());
  if (spec.argv.empty()) return fail("launch: no command", EINVAL);
  CG_CHECK(check_strings("the command", spec.argv));
  CG_CHECK(check_strings("the environment", spec.env));
  CG_CHECK(check_strings("cwd and host name", {spec.cwd, spec.hostname}));
  if (spec.hostname.empty() || spec.hostname.size() > HOST_NAME_MAX) {
    return fail("launch: host name of a wrong length", EINVAL);
  }
  ChildPlan plan;
  CG_TRY(plan.mounts, plan_mounts(spec));
  const std::string uid = std::to_string(getuid()), gid = std::to_string(getgid());
  plan.uid_map = uid + " " + uid + " 1\n";
  plan.gid_map = gid + " " + gid + " 1\n";
  plan.hostname = spec.hostname;
  plan.cwd = spec.cwd;
  plan.limits = spec.limits;
  plan.entrances = spec.entrances;
  plan.programs = programs_of(spec);
  plan.argv = pointers(spec.argv);
  plan.env = pointers(spec.env);
  plan.terminal = spec.terminal;
  plan.umask = umask(022);
  umask(plan.umask);
  find_title(plan);
  return plan;
}

struct Ends {
  UniqueFd ours, theirs;
};

Result<Ends> socket_pair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0)
    return fail_errno("socketpair", errno);
  return Ends{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// Clones init with every signal blocked, so that no handler of the caller runs in a child.
pid_t clone_init(ChildPlan& plan, int& error) {
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  const long pid =
      syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, nullptr, nullptr, nullptr, 0);
  if (pid == 0) run_init(plan);
  error = pid < 0 ? errno : 0;
  sigprocmask(SIG_SETMASK, &before, nullptr);
  return static_cast<pid_t>(pid);
}

// 0 when there is something to read (also the end), else the errno.
int wait_readable(int fd, int timeout_ms) {
  pollfd watched{fd, POLLIN, 0};
  for (;;) {
    const int ready = poll(&watched, 1, timeout_ms);
    if (ready > 0) return 0;
    if (ready == 0) return ETIMEDOUT;
    if (errno != EINTR) return errno;
  }
}

// One report with its descriptor, or what went wrong.
Failure receive_report(int socket, const char* from, UniqueFd& fd, Report& report) {
  if (const int error = wait_readable(socket, kSetUpMs); error != 0)
    return fail_step(Step::kHandshake, from, error);
  const ssize_t got = receive_message(socket, &report, sizeof report, fd);
  if (got == 0) return fail_step(Step::kHandshake, from, ECONNRESET);
  if (got < 0) return fail_step(Step::kHandshake, from, static_cast<int>(-got));
  if (got != sizeof report) return fail_step(Step::kHandshake, from, EPROTO);
  if (report.kind == Report::Kind::kReady && fd) return {};
  return report.failure ? report.failure : fail_step(Step::kHandshake, from, EPROTO);
}

int reap(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

Failure await_set_up(const Spec& spec, Sandbox& box) {
  Report report;
  if (const Failure failure = receive_report(box.control.get(), "(init)", box.root, report))
    return failure;
  box.socket_names = report.socket_names;
  if (spec.terminal != 0) {
    if (const Failure failure = receive_report(box.gate.get(), "(terminal)", box.terminal, report))
      return failure;
  }
  if (const Failure failure = receive_report(box.gate.get(), "(agent)", box.notify, report))
    return failure;
  box.interrupts = report.interrupts;
  box.init_pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, box.init, 0)));
  if (!box.init_pidfd) return fail_step(Step::kHandshake, "(pidfd_open)");
  return {};
}

// A peer that has gone is not an error here: why it went comes as its report.
Status send_filter(const Sandbox& box) {
  CG_TRY(const FilterView filter, filter_programs());
  for (const auto& program : {filter.program, filter.guard}) {
    send_message(box.gate.get(), program.data(), program.size_bytes(), -1);
  }
  return ok();
}

// Kills init, and with it everything inside.
void discard(const Sandbox& box) {
  kill(box.init, SIGKILL);
  reap(box.init);
}

}  // namespace

Result<Sandbox> launch(const Spec& spec, Failure& failure) {
  failure = {};
  CG_TRY(ChildPlan plan, make_plan(spec));
  CG_TRY(Ends control, socket_pair());
  CG_TRY(Ends gate, socket_pair());
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return fail_errno("pipe", errno);
  Sandbox box;
  box.status.reset(pipe_fds[0]);
  plan.status.reset(pipe_fds[1]);
  box.control = std::move(control.ours);
  plan.control = std::move(control.theirs);
  box.gate = std::move(gate.ours);
  plan.gate = std::move(gate.theirs);
  int error = 0;
  box.init = clone_init(plan, error);
  if (box.init < 0) {
    failure = fail_step(Step::kClone, "", error);
    return explain(failure);
  }
  plan.control.reset();
  plan.gate.reset();
  plan.status.reset();
  if (const Status sent = send_filter(box); !sent) {
    discard(box);
    return sent.error();
  }
  failure = await_set_up(spec, box);
  if (!failure) return box;
  discard(box);
  return explain(failure);
}

Result<Sandbox> launch(const Spec& spec) {
  Failure failure;
  return launch(spec, failure);
}

Status release(const Sandbox& sandbox) {
  const char go = 1;
  const int error = send_message(sandbox.gate.get(), &go, sizeof go, -1);
  if (error == 0) return ok();
  return fail_errno("release the agent's first process", -error);
}

namespace {

// One request to init and its answer; `sent` goes along unless it is -1.
Result<int> ask_init(const Sandbox& sandbox, const InitRequest& request, int sent, UniqueFd& got) {
  const int socket = sandbox.control.get();
  if (const int error = send_message(socket, &request, sizeof request, sent); error != 0) {
    return fail_errno("ask the sandbox's first process", -error);
  }
  if (const int error = wait_readable(socket, kRequestMs); error != 0) {
    return fail_errno("wait for the sandbox's first process", error);
  }
  InitReply reply;
  const ssize_t size = receive_message(socket, &reply, sizeof reply, got);
  if (size == 0) return fail_errno("ask the sandbox's first process: it has ended", ECONNRESET);
  if (size < 0) return fail_errno("answer of the sandbox", static_cast<int>(-size));
  const bool wanted = request.kind == InitRequest::Kind::kSocket && reply.error == 0;
  if (size != sizeof reply || wanted != static_cast<bool>(got)) {
    return fail_errno("answer of the sandbox: malformed", EPROTO);
  }
  return reply.error;
}

}  // namespace

Result<UniqueFd> inside_socket(const Sandbox& sandbox, int domain, int type) {
  InitRequest request;
  request.domain = domain;
  request.type = type;
  UniqueFd fd;
  CG_TRY(const int error, ask_init(sandbox, request, -1, fd));
  if (error != 0) return fail_errno("make a socket in the sandbox", error);
  return fd;
}

Result<int> bind_inside(const Sandbox& sandbox, int socket, int directory, const sockaddr_un& name,
                        socklen_t size, mode_t mask) {
  if (size > sizeof name) return EINVAL;
  InitRequest request;
  UniqueFd none;
  if (directory >= 0) {
    request.kind = InitRequest::Kind::kEnter;
    CG_TRY(const int error, ask_init(sandbox, request, directory, none));
    if (error != 0) return error;
  }
  request.kind = InitRequest::Kind::kBind;
  request.umask = mask;
  request.size = size;
  request.name = name;
  return ask_init(sandbox, request, socket, none);
}

Result<int> wait_agent(Sandbox& sandbox) {
  if (sandbox.init < 0) return fail("the sandbox has been waited for already", ECHILD);
  int status = 0;
  ssize_t got = -1;
  do {
    got = read(sandbox.status.get(), &status, sizeof status);
  } while (got < 0 && errno == EINTR);
  sandbox.gate.reset();
  reap(sandbox.init);  // returns when the kernel has removed everything inside
  sandbox.init = -1;
  if (got == sizeof status) return status;
  return fail(
      "the sandbox was killed before its agent ended; cure: look for an OOM kill in the kernel "
      "log");
}

}  // namespace certgate::sandbox
