// Every system call number, made for real inside a real sandbox, against the call table: what the
// table calls denied gets exactly that errno, what it calls trapped arrives at the listener, what
// it does not know gets ENOSYS, and foreign ABIs die.
//
// The agent is this program itself, copied into the workspace; an environment variable tells it to
// make calls instead of running tests. Each call is made in a child of its own, twice: with all
// arguments 0 and with all arguments -1. The calls that the table allows are made natively too, by
// an ordinary user: the control for errnos that the kernel itself gives.
#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>

#include "sandbox/call_table.h"
#include "sandbox/launch.h"
#include "sandbox/notify.h"

namespace certgate::sandbox {
namespace {

constexpr int kLastNumber = 600;
constexpr int kX32Bit = 0x40000000;
constexpr int kTrapped = 997;  // no errno of the kernel's: what the listener answers
constexpr int kHarnessFailed = 99;
constexpr uid_t kNobody = 65534;
constexpr const char* kInside = "CERTGATE_TEST_MAKES_CALLS";
constexpr auto kBlocksAfter = std::chrono::milliseconds(150);
constexpr auto kPatience = std::chrono::seconds(120);

using Clock = std::chrono::steady_clock;

enum class How : int { kReturned, kEnded, kBlocked };  // kEnded: the caller died or exited

struct Observation {
  How how = How::kReturned;
  long value = 0;  // kReturned: the raw result; kEnded: the wait status
};

// One call: `argument` six times, by the way that `abi` says.
enum class Abi : int { kNative, kInt80 };
struct Probe {
  int nr = 0;
  long argument = 0;
  Abi abi = Abi::kNative;
  auto operator<=>(const Probe&) const = default;
};
using Observations = std::map<Probe, Observation>;

// Inline, and nothing on the stack between call and exit: after vfork both sides use one stack.
__attribute__((always_inline)) inline long raw_call(long nr, long argument) {
  register long r10 __asm__("r10") = argument;
  register long r8 __asm__("r8") = argument;
  register long r9 __asm__("r9") = argument;
  long result = nr;
  __asm__ volatile("syscall"
                   : "+a"(result)
                   : "D"(argument), "S"(argument), "d"(argument), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

__attribute__((always_inline)) inline long int80_call(long nr) {
  long result = nr;
  __asm__ volatile("int $0x80" : "+a"(result) : "b"(0L), "c"(0L), "d"(0L) : "memory");
  return result;
}

struct Slot {
  volatile long returned;
  volatile long value;
};

[[noreturn]] void call_and_exit(const Probe& probe, Slot* slot) {
  const long result =
      probe.abi == Abi::kInt80 ? int80_call(probe.nr) : raw_call(probe.nr, probe.argument);
  slot->value = result;
  slot->returned = 1;
  for (;;) raw_call(SYS_exit_group, 0);
}

Observation observe(const Probe& probe, Slot* slot) {
  slot->returned = 0;
  slot->value = 0;
  const pid_t child = fork();
  if (child < 0) _exit(kHarnessFailed);
  if (child == 0) call_and_exit(probe, slot);
  const auto deadline = Clock::now() + kBlocksAfter;
  int status = 0;
  pid_t ended = 0;
  while ((ended = waitpid(child, &status, WNOHANG)) == 0 && Clock::now() < deadline) usleep(200);
  if (ended == 0) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (slot->returned == 0) return {How::kBlocked, 0};
  }
  if (slot->returned != 0) return {How::kReturned, slot->value};
  return {How::kEnded, status};
}

std::vector<Probe> all_probes() {
  std::vector<Probe> out;
  for (int nr = 0; nr <= kLastNumber; ++nr) {
    out.push_back({nr, 0});
    out.push_back({nr, -1});
  }
  for (const int nr : {0x7fffffff, -1}) out.push_back({nr, 0});
  for (const int nr : {0, 1, 59, 322, 520, 547}) out.push_back({kX32Bit | nr, 0});
  for (const int nr : {5, 11, 20, 295, 358, 362}) out.push_back({nr, 0, Abi::kInt80});
  return out;
}

void make_calls(const std::vector<Probe>& probes) {
  auto* slot = static_cast<Slot*>(
      mmap(nullptr, sizeof(Slot), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  if (slot == MAP_FAILED) _exit(kHarnessFailed);
  for (const Probe& probe : probes) {
    const Observation seen = observe(probe, slot);
    dprintf(1, "%d %ld %d %d %ld\n", probe.nr, probe.argument, static_cast<int>(probe.abi),
            static_cast<int>(seen.how), seen.value);
  }
}

// Before main(): as the agent, this program makes calls and nothing else. The first mkdir tells the
// listener that the program has been loaded: from then on it refuses everything.
__attribute__((constructor)) void agent_main() {
  if (getenv(kInside) == nullptr) return;
  raw_call(SYS_mkdir, 0);
  make_calls(all_probes());
  _exit(0);
}

Observations parse(const std::string& output) {
  Observations out;
  std::istringstream in(output);
  Probe probe;
  Observation seen;
  int abi = 0, how = 0;
  while (in >> probe.nr >> probe.argument >> abi >> how >> seen.value) {
    probe.abi = static_cast<Abi>(abi);
    seen.how = static_cast<How>(how);
    out[probe] = seen;
  }
  return out;
}

std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = read(fd, buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  return text;
}

void drop_to_nobody() {
  if (geteuid() != 0) return;
  if (setgroups(0, nullptr) != 0 || setresgid(kNobody, kNobody, kNobody) != 0 ||
      setresuid(kNobody, kNobody, kNobody) != 0)
    _exit(kHarnessFailed);
}

// The output of `body` in a child, as an ordinary user.
template <typename Body>
std::string output_of(Body body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  const pid_t pid = fork();
  if (pid == 0) {
    dup2(ends[1], 1);
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 0);
    drop_to_nobody();
    body();
    _exit(0);
  }
  close(ends[1]);
  std::string text = read_all(ends[0]);
  close(ends[0]);
  waitpid(pid, nullptr, 0);
  return text;
}

// Lets the program load, then refuses everything; says which numbers arrived.
void serve(const Sandbox& box, const Listener& listener) {
  bool loaded = false;
  std::set<int> arrived;
  const auto deadline = Clock::now() + kPatience;
  while (Clock::now() < deadline) {
    pollfd watched[] = {{listener.fd(), POLLIN, 0}, {box.status.get(), POLLIN, 0}};
    poll(watched, 2, 100);
    if ((watched[0].revents & POLLIN) != 0) {
      const auto call = listener.receive();
      if (!call) break;
      loaded = loaded || call->nr == SYS_mkdir;
      if (loaded) {
        arrived.insert(call->nr);
        listener.refuse(call->id, kTrapped);
      } else {
        listener.proceed_to_exec(call->id);
      }
    } else if (watched[1].revents != 0) {
      break;
    }
  }
  for (const int nr : arrived) dprintf(1, "%d 997 0 0 0\n", nr);
}

void host(const Spec& spec) {
  auto box = launch(spec);
  if (!box) {
    dprintf(1, "launch: %s\n", box.error().what.c_str());
    return;
  }
  const Listener listener(std::move(box->notify));
  if (!release(*box)) return;
  serve(*box, listener);
  static_cast<void>(wait_agent(*box));
}

class SystemCalls : public testing::Test {
 protected:
  // Both worlds are asked once for all tests.
  static void SetUpTestSuite() {
    char name[] = "/tmp/certgate-calls-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    const std::string program = std::string(name) + "/agent";
    std::filesystem::copy_file("/proc/self/exe", program);
    chmod(program.c_str(), 0755);
    if (geteuid() == 0) {
      ASSERT_EQ(chown(name, kNobody, kNobody), 0);
    }
    Spec spec;
    spec.workspace = spec.cwd = name;
    spec.home = "/home/agent";
    spec.argv = {program};
    spec.env = {"PATH=/usr/bin:/bin", std::string(kInside) + "=1"};
    const std::string output = output_of([&] { host(spec); });
    inside_ = parse(output);
    head_ = output.substr(0, 300);
    std::vector<Probe> allowed;
    for (const CallRow& row : call_table()) {
      if (row.call_class != CallClass::kAllow) continue;
      allowed.push_back({row.nr, 0});
      allowed.push_back({row.nr, -1});
    }
    native_ = parse(output_of([&] { make_calls(allowed); }));
    std::filesystem::remove_all(name);
  }
  void SetUp() override { ASSERT_GE(inside_.size(), all_probes().size()) << head_; }

  static Observation inside(const Probe& probe) { return inside_.at(probe); }
  static bool arrived(int nr) { return inside_.contains({nr, kTrapped}); }
  static bool refused(const Observation& seen, int error) {
    return seen.how == How::kReturned && seen.value == -error;
  }

  static Observations inside_, native_;
  static std::string head_;
};
Observations SystemCalls::inside_, SystemCalls::native_;
std::string SystemCalls::head_;

// The flags of open and openat are tested in the filter: all ones holds O_PATH, which gives no
// content. -1 as openat's directory does not matter for that.
bool is_o_path(const Probe& probe) {
  return (probe.nr == SYS_open || probe.nr == SYS_openat) && probe.argument == -1;
}

// Allowed, but not with every bit of an argument set (filter.cc).
bool refused_by_arguments(const Probe& probe) {
  static const std::set<int> kAllOnes = {SYS_clone,  SYS_socket,  SYS_socketpair,
                                         SYS_sendto, SYS_sendmsg, SYS_sendmmsg};
  static const std::set<int> kAllZero = {SYS_socket, SYS_socketpair};
  return (probe.argument == 0 ? kAllZero : kAllOnes).contains(probe.nr);
}

TEST_F(SystemCalls, ADeniedCallGetsExactlyTheErrnoOfItsRow) {
  for (const CallRow& row : call_table()) {
    if (row.call_class != CallClass::kErrno) continue;
    for (const long argument : {0, -1}) {
      const Observation seen = inside({row.nr, argument});
      EXPECT_TRUE(refused(seen, row.error))
          << row.name << "(" << argument << "): " << seen.value << ", wanted " << -row.error;
    }
  }
}

TEST_F(SystemCalls, ATrappedCallArrivesAtTheListenerAndGetsItsAnswer) {
  for (const CallRow& row : call_table()) {
    if (row.call_class != CallClass::kTrap) continue;
    EXPECT_TRUE(arrived(row.nr)) << row.name;
    for (const long argument : {0, -1}) {
      const Probe probe{row.nr, argument};
      if (is_o_path(probe)) continue;
      EXPECT_TRUE(refused(inside(probe), kTrapped)) << row.name << "(" << argument << ")";
    }
  }
}

TEST_F(SystemCalls, NothingElseArrivesAtTheListener) {
  for (const auto& [probe, seen] : inside_) {
    if (probe.argument != kTrapped) continue;
    EXPECT_EQ(call_class(probe.nr), CallClass::kTrap) << call_name(probe.nr);
  }
}

TEST_F(SystemCalls, ANumberInNoRowGetsENOSYS) {
  size_t unknown = 0;
  for (const auto& [probe, seen] : inside_) {
    if (probe.abi != Abi::kNative || probe.argument == kTrapped) continue;
    if ((probe.nr & kX32Bit) != 0 && probe.nr > 0) continue;
    if (find_call(probe.nr) != nullptr) continue;
    ++unknown;
    EXPECT_TRUE(refused(seen, ENOSYS)) << probe.nr << "(" << probe.argument << "): " << seen.value;
  }
  EXPECT_GT(unknown, 200u);
}

// The control tells a refusal of ours from one of the kernel's.
TEST_F(SystemCalls, AnAllowedCallIsRefusedOnlyWhereTheKernelRefusesItToAnyone) {
  size_t allowed = 0;
  for (const auto& [probe, outside] : native_) {
    if (refused_by_arguments(probe)) {
      EXPECT_TRUE(refused(inside(probe), EPERM) || refused(inside(probe), EAFNOSUPPORT))
          << call_name(probe.nr) << "(" << probe.argument << ")";
      continue;
    }
    ++allowed;
    const Observation seen = inside(probe);
    EXPECT_FALSE(refused(seen, kTrapped)) << call_name(probe.nr);
    for (const int error : {EPERM, ENOSYS}) {
      EXPECT_TRUE(!refused(seen, error) || refused(outside, error))
          << call_name(probe.nr) << "(" << probe.argument << "): " << seen.value << ", natively "
          << outside.value;
    }
  }
  EXPECT_GT(allowed, 400u);
}

TEST_F(SystemCalls, ForeignAbisDie) {
  size_t foreign = 0;
  for (const auto& [probe, seen] : inside_) {
    const bool x32 = probe.nr > 0 && (probe.nr & kX32Bit) != 0;
    if (probe.abi != Abi::kInt80 && !x32) continue;
    ++foreign;
    EXPECT_TRUE(seen.how == How::kEnded && WIFSIGNALED(static_cast<int>(seen.value)) &&
                WTERMSIG(static_cast<int>(seen.value)) == SIGSYS)
        << (x32 ? "x32 " : "int 0x80 ") << std::hex << probe.nr << ": " << seen.value;
  }
  EXPECT_EQ(foreign, 13u);
}

}  // namespace
}  // namespace certgate::sandbox
