// The supervisor's own view of the host, on the running kernel: what a process of the same user
// reaches without it, and no longer reaches within it.
#include "supervisor/own_root.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "sandbox/own_filter.h"
#include "supervisor/confine.h"

namespace certgate::supervisor {
namespace {

constexpr uid_t kNobody = 65534;
constexpr int kNotSetUp = 99;

// What was reached, one bit each.
enum Reached : int {
  kKey = 1,          // the file itself
  kByRoot = 2,       // the same through another process's root
  kByDirectory = 4,  // and through its working directory
  kMemory = 8,       // its memory
  kDescriptor = 16,  // its descriptors
  kTraced = 32,      // itself
  kAll = 63,
};

bool opens(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ::close(fd);
  return true;
}

// `bystander`: a process of the same user, with its working directory beside the key.
int reach(const std::string& directory, pid_t bystander, const char* secret) {
  const std::string process = "/proc/" + std::to_string(bystander);
  int reached = 0;
  if (opens(directory + "/key")) reached |= kKey;
  if (opens(process + "/root" + directory + "/key")) reached |= kByRoot;
  if (opens(process + "/cwd/key")) reached |= kByDirectory;
  char copy = 0;
  iovec to{&copy, 1}, from{const_cast<char*>(secret), 1};
  if (::process_vm_readv(bystander, &to, 1, &from, 1, 0) == 1) reached |= kMemory;
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, bystander, 0));
  if (::syscall(SYS_pidfd_getfd, pidfd, 0, 0) >= 0) reached |= kDescriptor;
  if (::ptrace(PTRACE_SEIZE, bystander, nullptr, nullptr) == 0) reached |= kTraced;
  return reached;
}

class OwnRoot : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/var/tmp/certgate-own-root-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory = name;
    std::ofstream(directory + "/key") << "secret";
    if (::geteuid() == 0) {
      ASSERT_EQ(::chown(name, kNobody, kNobody), 0);
      ASSERT_EQ(::chown((directory + "/key").c_str(), kNobody, kNobody), 0);
    }
  }
  void TearDown() override { std::filesystem::remove_all(directory); }

  // What an ordinary user's process reaches after `prepare`.
  int reached_after(const std::function<Status()>& prepare) const {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(try_all(prepare));
    int status = -1;
    ::waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -status;
  }

  std::string directory;

 private:
  int try_all(const std::function<Status()>& prepare) const {
    if (::geteuid() == 0 &&
        (::setgroups(0, nullptr) != 0 || ::setresgid(kNobody, kNobody, kNobody) != 0 ||
         ::setresuid(kNobody, kNobody, kNobody) != 0)) {
      return kNotSetUp;
    }
    ::prctl(PR_SET_DUMPABLE, 1);
    static const char kSecret = 's';
    int ready[2];
    if (::pipe(ready) != 0) return kNotSetUp;
    const pid_t bystander = ::fork();
    if (bystander == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::chdir(directory.c_str()) != 0 || ::write(ready[1], "r", 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    char byte = 0;
    if (bystander < 0 || ::read(ready[0], &byte, 1) != 1) return kNotSetUp;
    if (const Status prepared = prepare(); !prepared) {
      std::fprintf(stderr, "%s\n", prepared.error().what.c_str());
      return kNotSetUp;
    }
    return reach(directory, bystander, &kSecret);
  }
};

Status as_the_supervisor() {
  CG_CHECK(enter_own_namespaces());
  CG_CHECK(enter_own_root());
  CG_CHECK(sandbox::give_up_privileges());
  return confine_supervisor();
}

TEST_F(OwnRoot, WithoutItTheUsersFilesAndProcessesAreReached) {
  EXPECT_EQ(reached_after([] { return ok(); }), kAll);
}

TEST_F(OwnRoot, TheFilterAndNoCapabilitiesDoNotHideThem) {
  EXPECT_EQ(reached_after([]() -> Status {
              CG_CHECK(sandbox::give_up_privileges());
              return confine_supervisor();
            }) & (kKey | kByRoot | kByDirectory | kMemory),
            kKey | kByRoot | kByDirectory | kMemory);
}

TEST_F(OwnRoot, NeitherTheKeyNorAnotherProcessOfTheUserIsReached) {
  EXPECT_EQ(reached_after(as_the_supervisor), 0);
}

TEST_F(OwnRoot, TheRootHoldsOnlyWhatNamesAreLookedUpWith) {
  EXPECT_EQ(reached_after([]() -> Status {
              CG_CHECK(as_the_supervisor());
              for (const auto& entry : std::filesystem::directory_iterator("/")) {
                const std::string name = entry.path().filename();
                if (name != "etc" && name != "proc" && name != "run" && name != "var")
                  return fail("/" + name + " is shown");
              }
              if (::open("/made", O_CREAT | O_WRONLY, 0600) >= 0) return fail("it can be written");
              return opens("/proc/self/status") && opens("/etc/passwd") ? ok()
                                                                        : Status(fail("not shown"));
            }),
            0);
}

// A policy that names a host: then the name services are loaded before the confinement.
kernel::Policy policy_with_a_host() {
  kernel::Policy policy;
  kernel::Rule rule;
  rule.effect = kernel::Effect::kAllow;
  rule.verbs = {kernel::Verb::kConnect};
  auto endpoint = kernel::EndpointPattern::parse("a.test:443");
  if (endpoint) rule.endpoints.push_back(*endpoint);
  policy.rules.push_back(std::move(rule));
  return policy;
}

// The supervisor's confinement on a host with this /etc/nsswitch.conf; then a lookup of `name`.
Status lookup_under(const std::string& switch_file, const char* name) {
  CG_CHECK(enter_own_namespaces());
  if (::mount(switch_file.c_str(), "/etc/nsswitch.conf", nullptr, MS_BIND, nullptr) != 0)
    return fail_errno("bind nsswitch.conf", errno);
  preload_name_services(policy_with_a_host());
  CG_CHECK(enter_own_root());
  CG_CHECK(sandbox::give_up_privileges());
  CG_CHECK(confine_supervisor());
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(name, nullptr, nullptr, &found); error != 0)
    return fail(::gai_strerror(error));
  ::freeaddrinfo(found);
  return ok();
}

TEST_F(OwnRoot, NamesAreLookedUpWithTheServicesThatTheHostHas) {
  if (::access("/etc/nsswitch.conf", F_OK) != 0) GTEST_SKIP() << "no /etc/nsswitch.conf";
  const std::string file = directory + "/nsswitch.conf";
  struct Row {
    const char* hosts;
    bool found;
  };
  // A service that is not installed, or wants what the filter refuses (netlink), is passed over;
  // where there is no other, nothing is found. None of it kills the supervisor.
  for (const Row& row : {Row{"files", true}, Row{"nowhere files", true},
                         Row{"nis myhostname mymachines resolve files", true},
                         Row{"nowhere", false}, Row{"nowhere nis [NOTFOUND=return]", false}}) {
    std::ofstream(file) << "hosts: " << row.hosts << "\n";
    EXPECT_EQ(reached_after([&]() -> Status { return lookup_under(file, "localhost"); }),
              row.found ? 0 : kNotSetUp)
        << row.hosts;
  }
}

}  // namespace
}  // namespace certgate::supervisor
