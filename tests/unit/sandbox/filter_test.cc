// The filter, proved with the evaluator: every number, three architectures, and arguments with
// every high half dirty, since the kernel drops the high half of an int and the filter must too.
#include "sandbox/filter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <random>

#include "sandbox/bpf_eval.h"
#include "sandbox/call_table.h"

namespace certgate::sandbox {
namespace {

constexpr int kLastNumber = 600;
constexpr uint32_t kPerm = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t kNoSys = SECCOMP_RET_ERRNO | ENOSYS;
constexpr uint32_t kNoFamily = SECCOMP_RET_ERRNO | EAFNOSUPPORT;
constexpr uint64_t kHighHalves[] = {0, 0x100000000, 0xffffffff00000000, 0xdeadbeef00000000};

using Arguments = std::array<uint64_t, 6>;

const Filter& filter() {
  static const auto built = build_filter();
  if (!built) throw std::runtime_error(built.error().what);  // test code: fails the test
  return *built;
}

Evaluation evaluate(int nr, const Arguments& arguments, uint32_t arch = AUDIT_ARCH_X86_64) {
  seccomp_data call{};
  call.nr = nr;
  call.arch = arch;
  call.instruction_pointer = 0x7fff12345678;
  std::copy(arguments.begin(), arguments.end(), call.args);
  const auto answer = run(filter(), call);
  EXPECT_TRUE(answer) << (answer ? "" : answer.error().what);
  return answer ? *answer : Evaluation{};
}

// The action for the low halves, which must be the same under every high half.
uint32_t action(int nr, const Arguments& low) {
  const uint32_t result = evaluate(nr, low).action;
  for (const uint64_t high : kHighHalves) {
    Arguments dirty = low;
    for (uint64_t& argument : dirty) argument |= high;
    EXPECT_EQ(evaluate(nr, dirty).action, result)
        << call_name(nr) << " with high half " << std::hex << high;
  }
  return result;
}

bool tests_arguments(int nr) {
  for (const int tested :
       {SYS_open, SYS_openat, SYS_socket, SYS_socketpair, SYS_sendto, SYS_sendmsg, SYS_sendmmsg,
        SYS_ioctl, SYS_fcntl, SYS_clone, SYS_prctl, SYS_prlimit64, SYS_personality}) {
    if (nr == tested) return true;
  }
  return false;
}

uint32_t action_of_class(int nr) {
  const CallRow* row = find_call(nr);
  if (row == nullptr) return kNoSys;
  switch (row->call_class) {
    case CallClass::kAllow:
      return SECCOMP_RET_ALLOW;
    case CallClass::kTrap:
      return SECCOMP_RET_USER_NOTIF;
    case CallClass::kErrno:
      return SECCOMP_RET_ERRNO | static_cast<uint32_t>(row->error);
    case CallClass::kUnknown:
      break;
  }
  return kNoSys;
}

std::vector<Arguments> samples() {
  std::vector<Arguments> result{{0, 0, 0, 0, 0, 0}};
  result.push_back({~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull});
  std::mt19937_64 random(20260101);  // a fixed seed: the same test every time
  for (int i = 0; i < 6; ++i) {
    Arguments arguments{};
    for (uint64_t& argument : arguments) argument = random();
    result.push_back(arguments);
  }
  return result;
}

TEST(Filter, EveryNumberHasTheClassOfItsRow) {
  for (int nr = 0; nr <= kLastNumber; ++nr) {
    if (tests_arguments(nr)) continue;
    for (const Arguments& arguments : samples()) {
      EXPECT_EQ(evaluate(nr, arguments).action, action_of_class(nr)) << call_name(nr) << " " << nr;
    }
  }
}

TEST(Filter, NumbersOutOfRangeAreUnknownOrKilled) {
  for (const int nr : {1000, 0x7fff, 0x3fffffff}) EXPECT_EQ(evaluate(nr, {}).action, kNoSys) << nr;
  for (const int nr : {0x40000000, 0x7fffffff, -2, INT32_MIN}) {
    EXPECT_EQ(evaluate(nr, {}).action, SECCOMP_RET_KILL_PROCESS) << nr;
  }
  EXPECT_EQ(evaluate(-1, {}).action, kNoSys);  // what a tracer sets to skip a call
}

TEST(Filter, ForeignArchitecturesAreKilled) {
  for (int nr = 0; nr <= kLastNumber; ++nr) {
    for (const uint32_t arch :
         {uint32_t{AUDIT_ARCH_I386}, uint32_t{AUDIT_ARCH_ARM}, uint32_t{AUDIT_ARCH_AARCH64}, 0u}) {
      EXPECT_EQ(evaluate(nr, {}, arch).action, SECCOMP_RET_KILL_PROCESS) << nr;
    }
    EXPECT_EQ(evaluate(nr | 0x40000000, {}).action, SECCOMP_RET_KILL_PROCESS) << "x32 " << nr;
  }
}

// The kernel answers such calls from a bitmap, without running the programs.
TEST(Filter, AllowedCallsReadNoArguments) {
  for (const CallRow& row : call_table()) {
    if (row.call_class != CallClass::kAllow || tests_arguments(row.nr)) continue;
    EXPECT_FALSE(evaluate(row.nr, {}).read_arguments) << row.name;
  }
}

// A lease would make the supervisor wait for the agent; these ioctls change what is open for
// reading.
TEST(Filter, ChangesThroughReadOnlyDescriptorsAreRefused) {
  EXPECT_EQ(action(SYS_fcntl, {3, F_SETLEASE, 0, 0, 0, 0}), SECCOMP_RET_ERRNO | EPERM);
  EXPECT_EQ(action(SYS_fcntl, {3, F_GETFL, F_SETLEASE, 0, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(action(SYS_ioctl, {3, 0x40086602, 0, 0, 0, 0}),
            SECCOMP_RET_ERRNO | EPERM);                                      // FS_IOC_SETFLAGS
  EXPECT_EQ(action(SYS_ioctl, {3, 0x5401, 0, 0, 0, 0}), SECCOMP_RET_ALLOW);  // TCGETS
}

TEST(Filter, OpenTrapsUnlessPathOnly) {
  for (const uint64_t flags : {0ul, 1ul, 2ul, 0x80000ul, 0xffdffffful}) {
    EXPECT_EQ(action(SYS_open, {1, flags, 0, 0, 0, 0}), SECCOMP_RET_USER_NOTIF);
    EXPECT_EQ(action(SYS_openat, {1, 1, flags, 0, 0, 0}), SECCOMP_RET_USER_NOTIF);
  }
  for (const uint64_t flags :
       {0ul, uint64_t{O_CLOEXEC}, uint64_t{O_CREAT | O_RDWR}, 0xfffffffful}) {
    EXPECT_EQ(action(SYS_open, {1, flags | O_PATH, 0, 0, 0, 0}), SECCOMP_RET_ALLOW);
    EXPECT_EQ(action(SYS_openat, {1, 1, flags | O_PATH, 0, 0, 0}), SECCOMP_RET_ALLOW);
  }
  // O_PATH in a register that is not the flags, or only in the high half, changes nothing.
  EXPECT_EQ(action(SYS_open, {O_PATH, 0, O_PATH, 0, 0, 0}), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(action(SYS_openat, {O_PATH, O_PATH, 0, O_PATH, 0, 0}), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(evaluate(SYS_openat, {1, 1, uint64_t{O_PATH} << 32, 0, 0, 0}).action,
            SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(action(SYS_openat2, {1, 1, O_PATH, O_PATH, 0, 0}), SECCOMP_RET_USER_NOTIF);
}

uint32_t expected_socket(uint32_t domain, uint32_t type, uint32_t protocol) {
  const uint32_t kind = type & 0xf;
  switch (domain) {
    case AF_UNIX:
      return kind == SOCK_STREAM || kind == SOCK_SEQPACKET ? SECCOMP_RET_ALLOW : kPerm;
    case AF_INET:
    case AF_INET6:
      return kind == SOCK_STREAM || kind == SOCK_DGRAM ? SECCOMP_RET_ALLOW : kPerm;
    case AF_NETLINK:
      return (kind == SOCK_RAW || kind == SOCK_DGRAM) && protocol == 0 ? SECCOMP_RET_ALLOW : kPerm;
    default:
      return kNoFamily;
  }
}

TEST(Filter, SocketAllowList) {
  std::vector<uint32_t> domains;
  for (uint32_t domain = 0; domain < 300; ++domain) domains.push_back(domain);
  for (unsigned bit = 0; bit < 32; ++bit)
    domains.push_back(1u << bit), domains.push_back((1u << bit) | AF_UNIX);
  for (const uint32_t domain : domains) {
    for (uint32_t type = 0; type < 16; ++type) {
      for (const uint32_t flags : {0u, uint32_t{SOCK_CLOEXEC | SOCK_NONBLOCK}, 0xfffffff0u}) {
        for (const uint32_t protocol : {0u, 1u, 6u, 15u, 31u, 0x80000000u, 0xffffffffu}) {
          ASSERT_EQ(action(SYS_socket, {domain, type | flags, protocol, 0, 0, 0}),
                    expected_socket(domain, type | flags, protocol))
              << "socket(" << domain << ", " << (type | flags) << ", " << protocol << ")";
        }
      }
    }
  }
}

TEST(Filter, SocketpairOnlyConnectedUnixOnes) {
  for (uint32_t domain = 0; domain < 300; ++domain) {
    for (uint32_t type = 0; type < 16; ++type) {
      const bool good = domain == AF_UNIX && (type == SOCK_STREAM || type == SOCK_SEQPACKET);
      EXPECT_EQ(action(SYS_socketpair, {domain, type | SOCK_CLOEXEC, 0, 0, 0, 0}),
                good ? SECCOMP_RET_ALLOW : kPerm)
          << domain << " " << type;
    }
  }
}

TEST(Filter, NoFastOpen) {
  const std::array<std::pair<int, size_t>, 3> sends{
      {{SYS_sendto, 3}, {SYS_sendmsg, 2}, {SYS_sendmmsg, 3}}};
  for (const auto& [nr, flags_arg] : sends) {
    for (unsigned bit = 0; bit < 32; ++bit) {
      Arguments arguments{};
      arguments[flags_arg] = 1u << bit;
      EXPECT_EQ(action(nr, arguments), (1u << bit) == MSG_FASTOPEN ? kPerm : SECCOMP_RET_ALLOW)
          << bit;
    }
    Arguments all{};
    all[flags_arg] = 0xffffffff;
    EXPECT_EQ(action(nr, all), kPerm);
  }
}

TEST(Filter, IoctlRefusesTerminalInjectionAndNotifications) {
  for (uint32_t low = 0; low < 0x10000; low += 1) {
    const bool bad = low == TIOCSTI || low == 0x541C || low == TIOCSETD || (low & 0xff00) == 0x2100;
    ASSERT_EQ(evaluate(SYS_ioctl, {0, low, 0, 0, 0, 0}).action, bad ? kPerm : SECCOMP_RET_ALLOW)
        << low;
  }
  for (const unsigned long command : {SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND,
                                      SECCOMP_IOCTL_NOTIF_ID_VALID, SECCOMP_IOCTL_NOTIF_ADDFD}) {
    EXPECT_EQ(action(SYS_ioctl, {3, command & 0xffffffff, 0, 0, 0, 0}), kPerm);
  }
  EXPECT_EQ(action(SYS_ioctl, {0, TIOCSTI, 0, 0, 0, 0}), kPerm);
  EXPECT_EQ(action(SYS_ioctl, {0, TCGETS, 0, 0, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(action(SYS_ioctl, {0, FIONREAD, 0, 0, 0, 0}), SECCOMP_RET_ALLOW);
}

TEST(Filter, CloneMakesNoNamespacesAndNoUntracedChildren) {
  constexpr uint32_t kBad = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                            CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_UNTRACED;
  for (unsigned first = 0; first < 32; ++first) {
    for (unsigned second = 0; second < 32; ++second) {
      const uint32_t flags = (1u << first) | (1u << second);
      EXPECT_EQ(action(SYS_clone, {flags, 0, 0, 0, 0, 0}),
                (flags & kBad) != 0 ? kPerm : SECCOMP_RET_ALLOW)
          << flags;
    }
  }
  constexpr uint64_t kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                               CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                               CLONE_CHILD_CLEARTID;
  EXPECT_EQ(action(SYS_clone, {kThread, 0, 0, 0, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(action(SYS_clone, {0xffffffff, 0, 0, 0, 0, 0}), kPerm);
  EXPECT_EQ(action(SYS_clone3, {0, 0, 0, 0, 0, 0}), kNoSys);
}

TEST(Filter, PrctlRefusesWhatWouldVoidTheProofAtExec) {
  for (uint32_t option = 0; option < 256; ++option) {
    const bool bad = option == PR_SET_MM || option == PR_SET_SYSCALL_USER_DISPATCH ||
                     option == PR_SET_SECCOMP || option == PR_TASK_PERF_EVENTS_DISABLE ||
                     option == PR_TASK_PERF_EVENTS_ENABLE;
    EXPECT_EQ(action(SYS_prctl, {option, 0, 0, 0, 0, 0}), bad ? kPerm : SECCOMP_RET_ALLOW)
        << option;
  }
  EXPECT_EQ(action(SYS_prctl, {PR_SET_PTRACER, 0, 0, 0, 0, 0}), kPerm);
}

TEST(Filter, PersonalityOnlyPlainAndQuery) {
  EXPECT_EQ(action(SYS_personality, {0, 0, 0, 0, 0, 0}), SECCOMP_RET_ALLOW);
  EXPECT_EQ(action(SYS_personality, {0xffffffff, 0, 0, 0, 0, 0}), SECCOMP_RET_ALLOW);
  for (unsigned bit = 0; bit < 32; ++bit) {
    EXPECT_EQ(action(SYS_personality, {1u << bit, 0, 0, 0, 0, 0}), kPerm) << bit;
    EXPECT_EQ(action(SYS_personality, {~(1u << bit), 0, 0, 0, 0, 0}), kPerm) << bit;
  }
}

TEST(Filter, SeccompIsRefusedWhateverTheOperation) {
  for (uint32_t operation = 0; operation < 8; ++operation) {
    EXPECT_EQ(action(SYS_seccomp, {operation, 0, 0, 0, 0, 0}), kPerm);
  }
}

TEST(Filter, SameBytesEveryTimeAndBuiltIn) {
  const auto again = build_filter();
  const auto built_in = filter_programs();
  ASSERT_TRUE(again);
  ASSERT_TRUE(built_in);
  const auto same = [](const sock_filter& left, const sock_filter& right) {
    return left.code == right.code && left.jt == right.jt && left.jf == right.jf &&
           left.k == right.k;
  };
  EXPECT_TRUE(std::equal(again->program.begin(), again->program.end(), filter().program.begin(),
                         filter().program.end(), same));
  EXPECT_TRUE(std::equal(again->guard.begin(), again->guard.end(), filter().guard.begin(),
                         filter().guard.end(), same));
  EXPECT_TRUE(std::equal(built_in->program.begin(), built_in->program.end(),
                         filter().program.begin(), filter().program.end(), same));
  EXPECT_TRUE(std::equal(built_in->guard.begin(), built_in->guard.end(), filter().guard.begin(),
                         filter().guard.end(), same));
}

}  // namespace
}  // namespace certgate::sandbox
