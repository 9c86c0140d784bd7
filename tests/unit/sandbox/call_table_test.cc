#include "sandbox/call_table.h"

#include <asm/unistd.h>
#include <gtest/gtest.h>
#include <seccomp.h>

#include <cerrno>
#include <cstdlib>
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
  for (const int nr : {-1, 335, 423, 999, 0x40000000}) {
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
      EXPECT_GE(nr, __NR_process_mrelease) << row->name;
    }
    std::free(name);
  }
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
