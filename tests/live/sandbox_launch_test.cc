// launch() on the running kernel, as root (dropped to an unprivileged uid first) and as an ordinary
// user. Each test forks a host process, which launches one sandbox and answers every notification
// with CONTINUE: here the namespaces, the mounts, the credentials and the life cycle are judged,
// not the calls.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "sandbox/cgroup_places.h"
#include "sandbox/launch.h"
#include "sandbox/notify.h"
#include "sandbox/steps.h"

namespace certgate::sandbox {
namespace {

constexpr uid_t kNobody = 65534;
constexpr int kHarnessFailed = 99;
constexpr auto kPatience = std::chrono::seconds(20);

using Clock = std::chrono::steady_clock;

// What a test does with a running sandbox beside the notifications; true: stop serving.
using Hook = std::function<bool(Sandbox&)>;

struct Outcome {
  int harness = -1;        // wait status of the host process
  int agent = -1;          // wait status of the agent
  std::string output;      // stdout and stderr of everything
  double end_seconds = 0;  // how long wait_agent() took
};

struct Numbers {
  int agent;
  double end_seconds;
};

class SandboxLaunch : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/certgate-launch-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    workspace = name;
    if (geteuid() == 0) {
      ASSERT_EQ(chown(name, kNobody, kNobody), 0);
    }
    spec.workspace = workspace;
    spec.cwd = workspace;
    spec.home = "/home/agent";
    spec.env = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/agent", "LC_ALL=C"};
    spec.tmp_bytes = 64 << 20;
  }
  void TearDown() override { std::filesystem::remove_all(workspace); }

  std::string workspace;
  Spec spec;
};

void drop_to_nobody() {
  if (geteuid() != 0) return;
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0) {
    _exit(kHarnessFailed);
  }
}

void proceed_once(int listener) {
  seccomp_notif call{};
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) return;
  seccomp_notif_resp answer{};
  answer.id = call.id;
  answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

// Serves until the agent's first process has ended, the hook says stop, or patience runs out.
void serve(Sandbox& box, int listener, const Hook& hook) {
  const auto deadline = Clock::now() + kPatience;
  while (Clock::now() < deadline) {
    pollfd watched[] = {{listener, POLLIN, 0}, {box.status.get(), POLLIN, 0}};
    poll(watched, 2, 20);
    if ((watched[0].revents & POLLIN) != 0) proceed_once(listener);
    if (watched[1].revents != 0) return;
    if (hook && hook(box)) return;
  }
  kill(box.init, SIGKILL);
}

int host(const Spec& spec, const Hook& hook, int result_fd) {
  drop_to_nobody();
  auto launched = launch(spec);
  if (!launched) {
    dprintf(2, "launch: %s\n", launched.error().what.c_str());
    return kHarnessFailed;
  }
  Sandbox box = std::move(launched).value();
  const UniqueFd listener = std::move(box.notify);
  if (!release(box)) return kHarnessFailed;
  serve(box, listener.get(), hook);
  const auto start = Clock::now();
  const auto status = wait_agent(box);
  const Numbers result{status ? *status : -1,
                       std::chrono::duration<double>(Clock::now() - start).count()};
  return write(result_fd, &result, sizeof result) == sizeof result ? 0 : kHarnessFailed;
}

std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  return text;
}

Outcome run_spec(const Spec& spec, const Hook& hook = {}) {
  int output[2], result[2];
  if (pipe2(output, O_CLOEXEC) != 0 || pipe2(result, O_CLOEXEC) != 0) return {};
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(output[1], 1);
    dup2(output[1], 2);
    fcntl(dup(1), F_SETFD, 0);  // an inheritable descriptor that must not reach the agent
    _exit(host(spec, hook, result[1]));
  }
  close(output[1]);
  close(result[1]);
  Outcome outcome;
  outcome.output = read_all(output[0]);
  Numbers numbers{};
  if (read(result[0], &numbers, sizeof numbers) == sizeof numbers) {
    outcome.agent = numbers.agent;
    outcome.end_seconds = numbers.end_seconds;
  }
  waitpid(pid, &outcome.harness, 0);
  close(output[0]);
  close(result[0]);
  return outcome;
}

Outcome run_shell(Spec spec, const std::string& script, const Hook& hook = {}) {
  spec.argv = {"sh", "-c", script};
  return run_spec(spec, hook);
}

// Processes of this host whose command line holds `marker`.
int count_processes(const std::string& marker) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const UniqueFd file(open((entry.path() / "cmdline").c_str(), O_RDONLY | O_CLOEXEC));
    if (file && read_all(file.get()).find(marker) != std::string::npos &&
        name != std::to_string(getpid()))
      ++count;
  }
  return count;
}

// Waits until exactly none is left; the number left after `seconds`.
int remaining(const std::string& marker, double seconds) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < deadline && count_processes(marker) > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return count_processes(marker);
}

// A `sleep` argument that no other process has.
std::string unique_sleep(int seed) {
  return "30" + std::to_string(seed) + "." + std::to_string(getpid());
}

#define EXPECT_AGENT_EXIT(outcome, code)                                            \
  do {                                                                              \
    EXPECT_EQ((outcome).harness, 0) << (outcome).output;                            \
    EXPECT_TRUE(WIFEXITED((outcome).agent)) << (outcome).agent << (outcome).output; \
    EXPECT_EQ(WEXITSTATUS((outcome).agent), code) << (outcome).output;              \
  } while (false)

TEST_F(SandboxLaunch, ExitStatusPassesThrough) {
  spec.argv = {"/bin/true"};
  EXPECT_AGENT_EXIT(run_spec(spec), 0);
  EXPECT_AGENT_EXIT(run_shell(spec, "exit 7"), 7);
  const Outcome killed = run_shell(spec, "kill -9 $$");
  EXPECT_TRUE(WIFSIGNALED(killed.agent)) << killed.output;
  EXPECT_EQ(WTERMSIG(killed.agent), SIGKILL);
}

TEST_F(SandboxLaunch, MissingAndUnusableCommands) {
  spec.argv = {"certgate-no-such-command"};
  EXPECT_AGENT_EXIT(run_spec(spec), 127);
  spec.argv = {"/etc/passwd"};
  EXPECT_AGENT_EXIT(run_spec(spec), 126);
}

TEST_F(SandboxLaunch, RunsAsTheCallersUserNeverRoot) {
  const Outcome outcome = run_shell(spec, "id -u; id -g; hostname");
  const uid_t expected = geteuid() == 0 ? kNobody : geteuid();
  const gid_t group = geteuid() == 0 ? kNobody : getegid();
  EXPECT_EQ(outcome.output,
            std::to_string(expected) + "\n" + std::to_string(group) + "\ncertgate\n");
}

TEST_F(SandboxLaunch, NoPrivileges) {
  const Outcome outcome = run_shell(spec, "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status");
  for (const char* line : {"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000",
                           "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000",
                           "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"}) {
    EXPECT_NE(outcome.output.find(line), std::string::npos) << line << "\n" << outcome.output;
  }
  EXPECT_AGENT_EXIT(
      run_shell(spec, "! unshare -U true 2>/dev/null && ! unshare -r true 2>/dev/null"), 0);
}

TEST_F(SandboxLaunch, UserlandIsReadOnlyAndTheRestIsOurs) {
  EXPECT_AGENT_EXIT(
      run_shell(spec,
                "for f in /usr/x /etc/x /opt/x /x /dev/x /var/x /proc/sys/kernel/x; do "
                "touch $f 2>/dev/null && { echo $f; exit 1; }; done; exit 0"),
      0);
  const Outcome types = run_shell(
      spec, "stat -f -c %T / /tmp /var/tmp $HOME /run /proc /dev/shm; stat -c %a $HOME /tmp");
  EXPECT_EQ(types.output, "tmpfs\ntmpfs\ntmpfs\ntmpfs\ntmpfs\nproc\ntmpfs\n700\n1777\n");
  EXPECT_AGENT_EXIT(
      run_shell(spec,
                "touch $HOME/a /tmp/a /var/tmp/a /dev/shm/a && echo x >/dev/null && "
                "[ $(head -c 9 /dev/zero | wc -c) = 9 ] && [ -e /dev/fd/0 ] && [ -c /dev/ptmx ]"),
      0);
  EXPECT_EQ(
      run_shell(spec, "ls /run /home; ls -A /tmp").output,
      "/home:\nagent\n\n/run:\n" + std::filesystem::path(workspace).filename().string() + "\n");
}

TEST_F(SandboxLaunch, WorkspaceIsTheHostsUnderItsOwnPath) {
  std::ofstream(workspace + "/in") << "from outside\n";
  const Outcome outcome = run_shell(spec, "pwd; cat in; echo from inside > out");
  EXPECT_EQ(outcome.output, workspace + "\nfrom outside\n");
  std::ifstream file(workspace + "/out");
  std::string line;
  std::getline(file, line);
  EXPECT_EQ(line, "from inside");
}

TEST_F(SandboxLaunch, WorkspaceBelowHomeAndReadOnlyBelowWorkspace) {
  std::filesystem::create_directories(workspace + "/project/.git");
  std::filesystem::permissions(workspace + "/project", std::filesystem::perms::all);
  std::filesystem::permissions(workspace + "/project/.git", std::filesystem::perms::all);
  spec.home = workspace;
  spec.workspace = spec.cwd = workspace + "/project";
  spec.read_only = {workspace + "/project/.git"};
  EXPECT_AGENT_EXIT(run_shell(spec, "touch here && ! touch .git/hook 2>/dev/null && touch " +
                                        workspace + "/home"),
                    0);
  EXPECT_TRUE(std::filesystem::exists(workspace + "/project/here"));
  EXPECT_FALSE(std::filesystem::exists(workspace + "/home"));
}

TEST_F(SandboxLaunch, ResolverConfigurationIsOurs) {
  const Outcome outcome =
      run_shell(spec, "cat /etc/resolv.conf /etc/hosts; grep ^hosts: /etc/nsswitch.conf");
  EXPECT_NE(
      outcome.output.find(
          "nameserver 127.0.53.53\noptions timeout:2 attempts:2\n127.0.0.1 localhost certgate\n"),
      std::string::npos)
      << outcome.output;
  if (access("/etc/nsswitch.conf", F_OK) == 0) {
    EXPECT_NE(outcome.output.find("hosts: files dns\n"), std::string::npos);
  }
}

TEST_F(SandboxLaunch, OwnPidNamespaceShowsNothingOfTheHost) {
  // At most init, sh and the two ends of a pipe can be there while the shell expands the pattern.
  const Outcome outcome = run_shell(
      spec,
      "echo $$; set -- /proc/[0-9]*; [ $# -le 4 ] && echo few; cat /proc/1/comm; "
      "tr -d '\\0' </proc/1/cmdline; echo; cat /proc/1/environ /proc/1/maps 2>/dev/null | wc -c");
  EXPECT_EQ(outcome.output, "2\nfew\ninit\ninit\n0\n");
}

TEST_F(SandboxLaunch, NoInheritedDescriptors) {
  const Outcome outcome = run_shell(spec, "ls /proc/$$/fd; true");
  EXPECT_EQ(outcome.output, "0\n1\n2\n");
}

TEST_F(SandboxLaunch, LimitsAreSet) {
  spec.limits = {{RLIMIT_NOFILE, 123}, {RLIMIT_CORE, 0}};
  EXPECT_EQ(run_shell(spec, "ulimit -n; ulimit -Hn; ulimit -c").output, "123\n123\n0\n");
}

TEST_F(SandboxLaunch, DescendantsDieWithTheFirstProcess) {
  const std::string time = unique_sleep(1);
  const Outcome outcome = run_shell(spec, "setsid sh -c 'trap \"\" TERM HUP; sleep " + time +
                                              "' >/dev/null 2>&1 & "
                                              "while ! ps ax | grep -q '[s]leep " +
                                              time + "'; do :; done; exit 5");
  EXPECT_AGENT_EXIT(outcome, 5);
  EXPECT_LT(outcome.end_seconds, 1.0);
  EXPECT_EQ(count_processes(time), 0);  // wait_agent returned, so they are gone already
}

TEST_F(SandboxLaunch, ClosingTheControlSocketKillsAll) {
  const std::string time = unique_sleep(2);
  const Outcome outcome = run_shell(spec, "sleep " + time + " & sleep " + time, [&](Sandbox& box) {
    if (count_processes("sleep" + std::string(1, '\0') + time) < 2) return false;
    box.control.reset();
    return true;
  });
  EXPECT_EQ(outcome.harness, 0) << outcome.output;
  EXPECT_EQ(outcome.agent, -1);  // killed before it ended
  EXPECT_LT(outcome.end_seconds, 1.0);
  EXPECT_EQ(count_processes(time), 0);
}

TEST_F(SandboxLaunch, DeathOfTheCallerKillsAll) {
  const std::string time = unique_sleep(3);
  const Outcome outcome = run_shell(spec, "sleep " + time + " & sleep " + time, [&](Sandbox&) {
    if (count_processes("sleep" + std::string(1, '\0') + time) >= 2) kill(getpid(), SIGKILL);
    return false;
  });
  EXPECT_TRUE(WIFSIGNALED(outcome.harness)) << outcome.output;
  EXPECT_EQ(remaining(time, 1.0), 0);
}

// A listener inside, bound to `address`, that the agent reaches although it is not an address of
// lo.
size_t processes_in(const std::string& group) {
  std::ifstream in(group + "/cgroup.procs");
  size_t count = 0;
  for (std::string line; std::getline(in, line);) ++count;
  return count;
}

// A group of a version 2 tree, with no controller needed. Empty: why not is in errno.
std::string make_group() {
  for (const CgroupTree& tree : find_cgroup_trees({})) {
    const std::string path = tree.own + "/launch-test-" + std::to_string(getpid());
    if (tree.version == CgroupVersion::kTwo) return mkdir(path.c_str(), 0755) == 0 ? path : "";
  }
  errno = ENODEV;
  return "";
}

// Through a descriptor that was opened before its owner became an ordinary user.
TEST_F(SandboxLaunch, AVersionTwoGroupIsEnteredBeforeAllElseAndEndsAllInside) {
  const std::string group = make_group();
  if (group.empty()) GTEST_SKIP() << "no version 2 cgroup can be made: " << std::strerror(errno);
  const UniqueFd entrance(open((group + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
  spec.entrances = {entrance.get()};
  const std::string sleep = unique_sleep(7);
  size_t most = 0;
  std::thread killer([&] {
    const auto deadline = Clock::now() + std::chrono::seconds(10);
    while (Clock::now() < deadline && most < 4) {  // init, the shell, two sleeps
      most = std::max(most, processes_in(group));
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    std::ofstream(group + "/cgroup.kill") << "1";
  });
  const Outcome outcome =
      run_shell(spec, "grep ^0 /proc/self/cgroup; sleep " + sleep + " & sleep " + sleep);
  killer.join();
  EXPECT_EQ(most, 4u) << outcome.output;
  EXPECT_NE(outcome.output.find("0::/\n"), std::string::npos) << outcome.output;
  EXPECT_EQ(outcome.agent, -1);  // pid 1 went with the others
  EXPECT_EQ(remaining(sleep, 1), 0);
  EXPECT_EQ(rmdir(group.c_str()), 0) << std::strerror(errno);
}

Hook answer_on(int family, const sockaddr* address, socklen_t size, int* listener) {
  return [=](Sandbox& box) {
    if (*listener < 0) {
      auto made = inside_socket(box, family, SOCK_STREAM | SOCK_NONBLOCK);
      if (!made) return true;
      const int one = 1;
      if (family == AF_INET6)
        setsockopt(made->get(), IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof one);
      if (bind(made->get(), address, size) != 0 || listen(made->get(), 4) != 0) return true;
      *listener = made->release();
    }
    const UniqueFd peer(accept4(*listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (peer) dprintf(peer.get(), "reached\n");
    return false;
  };
}

std::string fetch_script(const std::string& address) {
  return "for i in 1 2 3 4 5 6 7 8 9 10; do "
         "if exec 3<>/dev/tcp/" +
         address + "/80; then cat <&3; exit 0; fi 2>/dev/null; sleep 0.1; done; exit 1";
}

TEST_F(SandboxLaunch, AnyAddressReachesTheSupervisorsListener) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(80);
  inet_pton(AF_INET, "93.184.216.34", &address.sin_addr);
  int listener = -1;
  spec.argv = {"bash", "-c", fetch_script("93.184.216.34")};
  const Outcome outcome = run_spec(
      spec, answer_on(AF_INET, reinterpret_cast<sockaddr*>(&address), sizeof address, &listener));
  EXPECT_EQ(outcome.output, "reached\n");
}

TEST_F(SandboxLaunch, AnyIpv6AddressToo) {
  if (access("/proc/net/if_inet6", F_OK) != 0) GTEST_SKIP() << "this kernel has no IPv6";
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_port = htons(80);
  inet_pton(AF_INET6, "2606:2800:220:1::1", &address.sin6_addr);
  int listener = -1;
  spec.argv = {"bash", "-c", fetch_script("2606:2800:220:1::1")};
  const Outcome outcome = run_spec(
      spec, answer_on(AF_INET6, reinterpret_cast<sockaddr*>(&address), sizeof address, &listener));
  EXPECT_EQ(outcome.output, "reached\n");
}

// launch() in a forked host, for failures: its error text.
std::string launch_error(const Spec& spec, bool drop = true) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return "pipe";
  const pid_t pid = fork();
  if (pid == 0) {
    if (drop) drop_to_nobody();
    const auto launched = launch(spec);
    const std::string text = launched ? "launched" : launched.error().what;
    // Nothing is left behind: no child, and no descriptor but the standard ones and this pipe.
    if (!launched && waitpid(-1, nullptr, WNOHANG) != -1) dprintf(fds[1], "a child is left; ");
    dprintf(fds[1], "%s", text.c_str());
    _exit(0);
  }
  close(fds[1]);
  const std::string text = read_all(fds[0]);
  close(fds[0]);
  waitpid(pid, nullptr, 0);
  return text;
}

TEST_F(SandboxLaunch, FailuresNameTheStepAndTheCure) {
  spec.argv = {"/bin/true"};
  const auto expect = [&](const Spec& bad, const std::string& part) {
    const std::string text = launch_error(bad);
    EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_NE(text.find("cure: "), std::string::npos) << text;
    EXPECT_EQ(text.find("a child is left"), std::string::npos) << text;
  };
  Spec bad = spec;
  bad.workspace = workspace + "/missing";
  expect(bad, "take a host path into the sandbox " + bad.workspace + ": No such file or directory");
  bad = spec;
  bad.cwd = "/nowhere";
  expect(bad, "enter the working directory /nowhere: No such file or directory");
  bad = spec;
  bad.limits = {{RLIMIT_NOFILE, 1 << 30}};
  expect(bad, "set resource limits");
  for (const char* place : {"/", "/usr", "/tmp", "/proc/1", "relative", "/tmp/../etc"}) {
    bad = spec;
    bad.workspace = place;
    expect(bad, "workspace");
  }
  std::filesystem::create_directory_symlink("/etc", workspace + "/link");
  bad = spec;
  bad.read_only = {workspace + "/link"};
  expect(bad, "Too many levels of symbolic links");
  bad = spec;
  bad.home = "/usr/home";
  expect(bad, "home");
}

TEST_F(SandboxLaunch, RootIsRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  spec.argv = {"/bin/true"};
  EXPECT_NE(launch_error(spec, false).find("the caller is root"), std::string::npos);
}

TEST_F(SandboxLaunch, ManyAtOnce) {
  std::vector<std::thread> threads;
  std::vector<Outcome> outcomes(6);
  for (size_t i = 0; i < outcomes.size(); ++i) {
    threads.emplace_back([&, i] { outcomes[i] = run_shell(spec, "exit " + std::to_string(i)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < outcomes.size(); ++i) EXPECT_AGENT_EXIT(outcomes[i], static_cast<int>(i));
}

}  // namespace
}  // namespace certgate::sandbox
