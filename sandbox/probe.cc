#include "sandbox/probe.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <utility>

#include "sandbox/cgroup.h"
#include "sandbox/fd.h"
#include "sandbox/launch.h"
#include "sandbox/probe_agent.h"
#include "sandbox/steps.h"

namespace certgate::sandbox {
namespace {

constexpr uid_t kNobody = 65534;
constexpr auto kPatience = std::chrono::seconds(60);
constexpr size_t kMaxReport = 256 * 1024;
constexpr char kFieldEnd = '\x1f';
constexpr char kCheckEnd = '\x1e';

// Checks cross from the probing process to ours as text. It sends each one as soon as it is known,
// so that what a crash or a hang interrupted is still told.
void send_check(int fd, const Check& check) {
  std::string text;
  for (const std::string* field : {&check.what, &check.detail, &check.consequence, &check.cure}) {
    text += *field + kFieldEnd;
  }
  text += check.ok ? '1' : '0';
  text += check.required ? '1' : '0';
  text += kCheckEnd;
  const ssize_t sent = write(fd, text.data(), text.size());
  if (sent != static_cast<ssize_t>(text.size())) _exit(1);
}

std::vector<Check> parse_checks(const std::string& text) {
  std::vector<Check> checks;
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find(kCheckEnd, start);
    if (end == std::string::npos) break;
    Check check;
    for (std::string* field : {&check.what, &check.detail, &check.consequence, &check.cure}) {
      const size_t stop = text.find(kFieldEnd, start);
      if (stop >= end) return checks;
      *field = text.substr(start, stop - start);
      start = stop + 1;
    }
    check.ok = text[start] == '1';
    check.required = start + 1 < end && text[start + 1] == '1';
    checks.push_back(std::move(check));
    start = end + 1;
  }
  return checks;
}

Check step_check(const StepRow& row, const Failure& failure) {
  Check check;
  check.what = row.what;
  check.ok = !failure || failure.step > row.step;
  check.consequence = row.consequence;
  check.cure = row.cure;
  if (!check.ok) {
    check.detail = std::string(failure.object, strnlen(failure.object, sizeof failure.object));
    check.detail += (check.detail.empty() ? "" : ": ") + std::string(std::strerror(failure.error));
  }
  return check;
}

Check plain_check(const char* what, const Error& error) {
  return {what, false, true, error.what, "no agent can be started", "see the detail"};
}

// Every step of launch() up to the one that failed. False: a step failed.
bool report_launch(int fd, const Failure& failure, const Result<Sandbox>& launched) {
  if (!launched && !failure) {
    send_check(fd, plain_check("prepare the sandbox and its filter", launched.error()));
    return false;
  }
  send_check(fd, {"prepare the sandbox and its filter", true, true, "", "", ""});
  for (const StepRow& row : step_table()) {
    const Check check = step_check(row, failure);
    send_check(fd, check);
    if (!check.ok) return false;
  }
  return true;
}

Status drop_privileges() {
  if (geteuid() != 0) return ok();
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0) {
    return fail_errno("drop to uid 65534", errno);
  }
  return ok();
}

Spec probe_spec(const std::string& workspace) {
  Spec spec;
  spec.workspace = spec.cwd = workspace;
  spec.home = "/home/agent";
  spec.argv = {kProbeProgram, kProbeFile};
  spec.env = {"PATH=/usr/bin:/bin"};
  spec.tmp_bytes = 16 << 20;
  return spec;
}

// The probing process: never returns to the caller's code.
[[noreturn]] void probe_process(int fd, const std::string& workspace, const Cgroup& group) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (const Status dropped = drop_privileges(); !dropped) {
    send_check(fd, plain_check("drop to an ordinary user", dropped.error()));
    _exit(1);
  }
  std::array<int, 2> output{};
  const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (pipe2(output.data(), O_CLOEXEC) != 0 || null < 0 || dup2(null, 0) < 0 ||
      dup2(output[1], 1) < 0 || dup2(null, 2) < 0) {
    send_check(fd, plain_check("prepare descriptors", fail_errno("pipe", errno)));
    _exit(1);
  }
  close(output[1]);
  Failure failure;
  Spec spec = probe_spec(workspace);
  spec.entrances = group.entrances();
  Result<Sandbox> launched = launch(spec, failure);
  if (!report_launch(fd, failure, launched)) _exit(1);
  close(1);  // the agent holds the only writing end
  probe_agent(std::move(launched).value(), UniqueFd(output[0]),
              [fd](const Check& check) { send_check(fd, check); });
  _exit(0);
}

// Everything the probing process sends until it ends, or until patience does.
std::string collect(int fd, bool& timed_out) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  std::string text;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd watched{fd, POLLIN, 0};
    const int ready = left.count() <= 0 ? 0 : poll(&watched, 1, static_cast<int>(left.count()));
    if (ready < 0 && errno == EINTR) continue;
    timed_out = ready == 0;
    if (ready <= 0) return text;
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0 || text.size() > kMaxReport) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
}

bool all_required_ok(const std::vector<Check>& checks) {
  for (const Check& check : checks) {
    if (check.required && !check.ok) return false;
  }
  return true;
}

std::vector<Check> run_probe(const std::string& workspace) {
  std::array<int, 2> report{};
  if (pipe2(report.data(), O_CLOEXEC) != 0)
    return {plain_check("start the probe", fail_errno("pipe", errno))};
  const Cgroup group = Cgroup::make({.memory = 256 << 20, .processes = 256, .cpu_milli = {}}, {});
  const pid_t pid = fork();
  if (pid == 0) probe_process(report[1], workspace, group);
  const int fork_error = errno;
  close(report[1]);
  const UniqueFd reader(report[0]);
  if (pid < 0) return {plain_check("start the probe", fail_errno("fork", fork_error))};
  bool timed_out = false;
  std::vector<Check> checks = parse_checks(collect(reader.get(), timed_out));
  if (timed_out) kill(pid, SIGKILL);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  const bool finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (!finished && all_required_ok(checks)) {
    checks.push_back(plain_check("finish the probe", fail(timed_out ? "it took longer than a minute"
                                                                    : "the probing process died")));
  }
  return checks;
}

}  // namespace

std::vector<Check> probe_host() {
  char workspace[] = "/tmp/certgate-doctor-XXXXXX";
  if (mkdtemp(workspace) == nullptr)
    return {plain_check("make a workspace in /tmp", fail_errno("mkdtemp", errno))};
  // As root the agent is somebody else, and the workspace is that user's.
  std::vector<Check> checks;
  if (geteuid() == 0 && chown(workspace, kNobody, kNobody) != 0) {
    checks.push_back(plain_check("make a workspace in /tmp", fail_errno("chown", errno)));
  } else {
    checks = run_probe(workspace);
  }
  rmdir(workspace);
  return checks;
}

std::vector<Check> probe_limits() {
  struct Row {
    Resource resource;
    const char* what;
    const char* without;
  };
  constexpr Row kRows[] = {
      {Resource::kMemory, "limit the agent's memory",
       "limits.memory of a policy holds for each process, not for all together (RLIMIT_DATA)"},
      {Resource::kProcesses, "limit the agent's processes",
       "limits.processes is held by RLIMIT_NPROC in the sandbox's user namespace"},
      {Resource::kCpu, "limit the agent's processor time",
       "an agent whose policy has limits.cpu is not started"}};
  const Cgroup group =
      Cgroup::make({.memory = 64 << 20, .processes = 64, .cpu_milli = 1000}, CgroupSources{});
  std::vector<Check> checks;
  for (const Row& row : kRows) {
    const Means means = group.means(row.resource);
    Check check{row.what,
                means != Means::kNone,
                false,
                "",
                row.without,
                "start certgate in a delegated cgroup (systemd-run --user --scope -p Delegate=yes "
                "certgate …) or as root"};
    check.detail = !check.ok                  ? group.why(row.resource)
                   : means == Means::kCgroup2 ? "cgroup v2, " + group.where(row.resource)
                                              : "cgroup v1, " + group.where(row.resource);
    checks.push_back(std::move(check));
  }
  return checks;
}

}  // namespace certgate::sandbox
