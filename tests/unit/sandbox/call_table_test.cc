#include "sandbox/call_table.h"

#include <asm/unistd.h>
#include <gtest/gtest.h>
#include <seccomp.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <string>

namespace certgate::sandbox {
namespace {

constexpr int kLastNumber = 600;

TEST(CallTable, SortedAndFound) {
  int before = -1;
  for (const CallRow& row : call_table()) {
    EXPECT_GT(row.nr, before) << row.name;
    before = row.nr;
    EXPECT_EQ(find_call(row.nr), &row);
    EXPECT_EQ(call_name(row.nr), row.name);
    EXPECT_EQ(call_class(row.nr), row.call_class);
  }
  for (const int nr : {-1, 337, 423, 999, 0x40000000}) {
    EXPECT_EQ(find_call(nr), nullptr) << nr;
    EXPECT_EQ(call_class(nr), CallClass::kUnknown) << nr;
    EXPECT_EQ(call_name(nr), "unknown") << nr;
  }
}

// Every number that the host's library knows has the same name here; a row it does not know is
// young.
TEST(CallTable, NumbersAndNamesAgreeWithLibseccomp) {
  for (int nr = 0; nr <= kLastNumber; ++nr) {
    char* name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, nr);
    const CallRow* row = find_call(nr);
    if (name != nullptr) {
      ASSERT_NE(row, nullptr) << name << " is in no row";
      EXPECT_EQ(std::string(row->name), name) << nr;
    } else if (row != nullptr) {
      const bool in_the_gap = nr > __NR_rseq && nr < __NR_pidfd_send_signal;
      EXPECT_TRUE(in_the_gap || nr >= __NR_process_mrelease) << row->name;
    }
    std::free(name);
  }
}

// The headers that this was built with are the kernel's own list; nobody may add a call unseen.
TEST(CallTable, HasEveryNumberThatTheBuildHostsHeadersKnow) {
  std::ifstream header;
  for (const char* path :
       {"/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"}) {
    if (!header.is_open() || !header) header.open(path);
  }
  if (!header.is_open()) GTEST_SKIP() << "asm/unistd_64.h is not installed";
  static const std::regex kDefine(R"(#define __NR_(\w+) (\d+))");
  size_t known = 0;
  for (std::string line; std::getline(header, line);) {
    std::smatch match;
    if (!std::regex_match(line, match, kDefine)) continue;
    ++known;
    const CallRow* row = find_call(std::stoi(match[2]));
    ASSERT_NE(row, nullptr) << match[1] << " is in no row";
    EXPECT_EQ(row->name, match[1].str());
  }
  EXPECT_GT(known, 350u);
}

TEST(CallTable, ErrnoOnlyWhereRefused) {
  for (const CallRow& row : call_table()) {
    EXPECT_EQ(row.error != 0, row.call_class == CallClass::kErrno) << row.name;
    if (row.error != 0) {
      EXPECT_TRUE(row.error == EPERM || row.error == ENOSYS) << row.name;
    }
  }
}

TEST(CallTable, TrapsExactlyWhatTheSupervisorPerforms) {
  std::set<std::string> trapped;
  for (const CallRow& row : call_table()) {
    if (row.call_class == CallClass::kTrap) trapped.insert(row.name);
  }
  EXPECT_EQ(trapped,
            (std::set<std::string>{
                "open",         "openat",       "openat2",    "creat",      "execve",
                "execveat",     "connect",      "bind",       "rename",     "renameat",
                "renameat2",    "link",         "linkat",     "symlink",    "symlinkat",
                "unlink",       "unlinkat",     "rmdir",      "mkdir",      "mkdirat",
                "mknod",        "mknodat",      "truncate",   "chmod",      "fchmodat",
                "fchmodat2",    "chown",        "lchown",     "fchownat",   "utime",
                "utimes",       "futimesat",    "utimensat",  "setxattr",   "lsetxattr",
                "removexattr",  "lremovexattr", "fchmod",     "fchown",     "fsetxattr",
                "fremovexattr", "readlink",     "readlinkat", "getxattr",   "lgetxattr",
                "fgetxattr",    "listxattr",    "llistxattr", "flistxattr", "inotify_add_watch"}));
}

// Losing one of these from the table is losing the sandbox.
TEST(CallTable, HardBlocked) {
  for (const char* name : {"ptrace",
                           "process_vm_readv",
                           "process_vm_writev",
                           "process_madvise",
                           "process_mrelease",
                           "pidfd_getfd",
                           "kcmp",
                           "mount",
                           "umount2",
                           "pivot_root",
                           "chroot",
                           "fsopen",
                           "fsconfig",
                           "fsmount",
                           "fspick",
                           "move_mount",
                           "open_tree",
                           "open_tree_attr",
                           "mount_setattr",
                           "open_by_handle_at",
                           "name_to_handle_at",
                           "bpf",
                           "perf_event_open",
                           "userfaultfd",
                           "fanotify_init",
                           "keyctl",
                           "add_key",
                           "request_key",
                           "init_module",
                           "finit_module",
                           "delete_module",
                           "kexec_load",
                           "kexec_file_load",
                           "reboot",
                           "swapon",
                           "swapoff",
                           "acct",
                           "quotactl",
                           "quotactl_fd",
                           "settimeofday",
                           "clock_settime",
                           "adjtimex",
                           "clock_adjtime",
                           "iopl",
                           "ioperm",
                           "modify_ldt",
                           "vhangup",
                           "uselib",
                           "memfd_secret",
                           "unshare",
                           "setns",
                           "seccomp",
                           "clone3",
                           "io_uring_setup",
                           "io_uring_enter",
                           "io_uring_register"}) {
    bool refused = false;
    for (const CallRow& row : call_table()) {
      if (row.name == std::string(name)) refused = row.call_class == CallClass::kErrno;
    }
    EXPECT_TRUE(refused) << name;
  }
}

}  // namespace
}  // namespace certgate::sandbox
