// The filters of certgate's own processes: what the evaluator says of them, and what the kernel
// does to a process that has taken one on.
#include "sandbox/own_filter.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <functional>
#include <thread>

#include "agentd/confine.h"
#include "supervisor/confine.h"

namespace certgate::sandbox {
namespace {

using Confine = std::function<Status()>;
constexpr int kNotConfined = 98, kDone = 0, kGotThrough = 97, kOtherErrno = 96;

// Confines a child, then lets it try. The wait status of the child.
int attempt(const Confine& confine, const std::function<int()>& attack) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    if (!confine()) ::_exit(kNotConfined);
    ::_exit(attack());
  }
  int status = -1;
  ::waitpid(pid, &status, 0);
  return status;
}

// For the child: the raw call must fail with EPERM.
int refused(long result) {
  if (result >= 0) return kGotThrough;
  return errno == EPERM ? kDone : kOtherErrno;
}

bool killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }
bool held(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == kDone; }

struct Process {
  const char* name;
  Confine confine;
};

class OwnFilter : public testing::TestWithParam<Process> {
 protected:
  int child(const std::function<int()>& attack) { return attempt(GetParam().confine, attack); }
};

TEST_P(OwnFilter, ExecKills) {
  EXPECT_TRUE(killed(child([] {
    char name[] = "/bin/true";
    char* argv[] = {name, nullptr};
    ::execv(name, argv);
    return kGotThrough;
  })));
}

TEST_P(OwnFilter, ANewProcessKills) {
  EXPECT_TRUE(killed(child([] { return ::syscall(SYS_fork) < 0 ? kOtherErrno : kGotThrough; })));
  EXPECT_TRUE(killed(child([] {
    return ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0) < 0 ? kOtherErrno
                                                                           : kGotThrough;
  })));
  EXPECT_TRUE(killed(child([] { return ::syscall(SYS_vfork) < 0 ? kOtherErrno : kGotThrough; })));
}

TEST_P(OwnFilter, ANewThreadIsFineAndConfinedToo) {
  EXPECT_TRUE(held(child([] {
    int result = kGotThrough;
    std::thread([&] { result = refused(::socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)); }).join();
    return result;
  })));
}

TEST_P(OwnFilter, AThreadThatWasThereBeforeIsConfinedToo) {
  EXPECT_TRUE(killed(attempt([] { return ok(); },
                             [this] {
                               std::atomic<bool> go = false;
                               std::thread old([&] {
                                 while (!go) ::sched_yield();
                                 char name[] = "/bin/true";
                                 char* argv[] = {name, nullptr};
                                 ::execv(name, argv);
                               });
                               if (!GetParam().confine()) ::_exit(kNotConfined);
                               go = true;
                               old.join();
                               return kOtherErrno;
                             })));
}

TEST_P(OwnFilter, RawNetlinkAndPacketSocketsAreRefused) {
  for (const auto& [domain, type] : {std::pair{AF_NETLINK, SOCK_RAW},
                                     {AF_NETLINK, SOCK_DGRAM},
                                     {AF_PACKET, SOCK_RAW},
                                     {AF_INET, SOCK_RAW},
                                     {AF_VSOCK, SOCK_STREAM},
                                     {AF_ALG, SOCK_SEQPACKET}}) {
    EXPECT_TRUE(held(child([d = domain, t = type] { return refused(::socket(d, t, 0)); })))
        << domain << " " << type;
  }
}

TEST_P(OwnFilter, NoMemoryBecomesExecutable) {
  EXPECT_TRUE(held(child([] {
    void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at != MAP_FAILED ? kGotThrough : errno == EPERM ? kDone : kOtherErrno;
  })));
  EXPECT_TRUE(held(child([] {
    void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return kOtherErrno;
    return refused(::mprotect(at, 4096, PROT_READ | PROT_EXEC));
  })));
}

TEST_P(OwnFilter, NamespacesMountsCredentialsAndKernelCodeKill) {
  for (const int nr : {SYS_unshare, SYS_setns, SYS_mount, SYS_bpf, SYS_io_uring_setup, SYS_keyctl,
                       SYS_userfaultfd, SYS_setresuid, SYS_process_vm_writev, SYS_finit_module,
                       SYS_open_by_handle_at, SYS_seccomp, SYS_perf_event_open, SYS_pivot_root}) {
    EXPECT_TRUE(killed(child([nr] {
      ::syscall(nr, 0, 0, 0, 0, 0, 0);
      return kGotThrough;
    }))) << nr;
  }
}

TEST_P(OwnFilter, WritingIntoATracedProcessKills) {
  for (const int request : {PTRACE_ATTACH, PTRACE_POKEDATA, PTRACE_SETREGS, PTRACE_TRACEME}) {
    const int status =
        child([request] { return refused(::syscall(SYS_ptrace, request, ::getpid(), 0, 0)); });
    // The authority has no use for ptrace at all.
    EXPECT_TRUE(killed(status) || held(status)) << request;
    EXPECT_FALSE(WIFEXITED(status) && WEXITSTATUS(status) == kGotThrough) << request;
  }
}

TEST_P(OwnFilter, TheDeathSignalAndDumpabilityStay) {
  EXPECT_TRUE(killed(child([] { return ::prctl(PR_SET_PDEATHSIG, 0), kGotThrough; })));
  EXPECT_TRUE(killed(child([] { return ::prctl(PR_SET_DUMPABLE, 1), kGotThrough; })));
}

TEST_P(OwnFilter, FilesAndTimeStillWork) {
  EXPECT_TRUE(held(child([] {
    const int fd = ::open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    char byte = 0;
    return fd >= 0 && ::read(fd, &byte, 1) == 1 && ::usleep(1) == 0 ? kDone : kOtherErrno;
  })));
}

INSTANTIATE_TEST_SUITE_P(
    Processes, OwnFilter,
    testing::Values(Process{"supervisor", [] { return supervisor::confine_supervisor(); }},
                    Process{"authority", [] { return agentd::confine_authority(); }}),
    [](const testing::TestParamInfo<Process>& process) { return std::string(process.param.name); });

TEST(OwnFilterOfTheAuthority, HasNoSocketsAtAll) {
  for (const int domain : {AF_UNIX, AF_INET, AF_INET6}) {
    EXPECT_TRUE(held(attempt([] { return agentd::confine_authority(); },
                             [domain] { return refused(::socket(domain, SOCK_STREAM, 0)); })));
  }
}

TEST(OwnFilterOfTheSupervisor, MakesTheSocketsOfRelays) {
  for (const int domain : {AF_UNIX, AF_INET, AF_INET6}) {
    EXPECT_TRUE(held(attempt([] { return supervisor::confine_supervisor(); },
                             [domain] {
                               return ::socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0
                                          ? kDone
                                          : kOtherErrno;
                             })));
  }
}

TEST(OwnFilterProof, ACallThatIsAllowedAndForbiddenIsAnError) {
  const int both[] = {SYS_execve};
  EXPECT_FALSE(build_own_filter({ordinary_tests(), both}));
  EXPECT_TRUE(build_own_filter({ordinary_tests(), {}}));
}

TEST(OwnFilterProof, BothProgramsDoWhatTheirListsSay) {
  for (const OwnCalls& calls : {supervisor::supervisor_calls(), agentd::authority_calls()}) {
    auto program = build_own_filter(calls);
    ASSERT_TRUE(program);
    const Status proved = prove_own_filter(calls, *program);
    EXPECT_TRUE(proved) << (proved ? "" : proved.error().what);
    // And the proof sees a program that does not: one that allows what it should refuse.
    program->back().k = SECCOMP_RET_ALLOW;
    EXPECT_FALSE(prove_own_filter(calls, *program));
  }
}

TEST(GiveUpPrivileges, LeavesNoCapabilityAndNoCore) {
  EXPECT_TRUE(held(attempt([] { return give_up_privileges(); },
                           [] {
                             rlimit core{1, 1};
                             if (::getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_max != 0)
                               return kGotThrough;
                             if (::prctl(PR_GET_DUMPABLE) != 0) return kGotThrough;
                             return refused(::sethostname("x", 1));
                           })));
}

}  // namespace
}  // namespace certgate::sandbox
