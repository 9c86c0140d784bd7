#include "sandbox/own_filter.h"

#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <string>

#include "sandbox/bpf_eval.h"
#include "sandbox/call_table.h"

namespace certgate::sandbox {
namespace {

constexpr uint32_t kWord = 0xffffffff;
constexpr uint32_t kX32Bit = 0x40000000;
constexpr int kFchmodat2 = 452, kClone3 = 435, kFutexWaitv = 449, kCachestat = 451;
constexpr unsigned kBeyondNumbers = 600;  // the proof looks at every number below

constexpr int kOrdinary[] = {
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev,
    SYS_preadv2, SYS_pwritev2, SYS_lseek, SYS_close, SYS_close_range, SYS_dup, SYS_dup2, SYS_dup3,
    SYS_fcntl, SYS_flock, SYS_ioctl, SYS_pipe, SYS_pipe2, SYS_poll, SYS_ppoll, SYS_select,
    SYS_pselect6, SYS_epoll_create, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_wait,
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_signalfd4, SYS_timerfd_create,
    SYS_timerfd_settime, SYS_timerfd_gettime, SYS_splice, SYS_tee, SYS_vmsplice, SYS_sendfile,
    SYS_copy_file_range, SYS_fsync, SYS_fdatasync, SYS_sync_file_range, SYS_fallocate,
    SYS_ftruncate, SYS_fadvise64, SYS_readahead,
    // files by path
    SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_stat, SYS_fstat, SYS_lstat, SYS_newfstatat,
    SYS_statx, SYS_statfs, SYS_fstatfs, SYS_access, SYS_faccessat, SYS_faccessat2, SYS_readlink,
    SYS_readlinkat, SYS_getdents, SYS_getdents64, SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_umask,
    SYS_rename, SYS_renameat, SYS_renameat2, SYS_link, SYS_linkat, SYS_symlink, SYS_symlinkat,
    SYS_unlink, SYS_unlinkat, SYS_rmdir, SYS_mkdir, SYS_mkdirat, SYS_truncate, SYS_chmod,
    SYS_fchmod, SYS_fchmodat, kFchmodat2, SYS_chown, SYS_fchown, SYS_lchown, SYS_fchownat,
    SYS_utime, SYS_utimes, SYS_futimesat, SYS_utimensat,
    // memory, threads, time, signals of our own
    SYS_mmap, SYS_mprotect, SYS_munmap, SYS_mremap, SYS_madvise, SYS_msync, SYS_mincore, SYS_mlock,
    SYS_munlock, SYS_brk, SYS_memfd_create, SYS_membarrier, SYS_clone, SYS_exit, SYS_exit_group,
    SYS_futex, kFutexWaitv, SYS_set_robust_list, SYS_get_robust_list, SYS_rseq, SYS_set_tid_address,
    SYS_arch_prctl, SYS_prctl, SYS_prlimit64, SYS_getrlimit, SYS_getrusage, SYS_sched_yield,
    SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_getparam, SYS_sched_getscheduler,
    SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_getcpu, SYS_getpriority,
    SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday,
    SYS_time, SYS_times, SYS_alarm, SYS_setitimer, SYS_getitimer, SYS_timer_create,
    SYS_timer_settime, SYS_timer_gettime, SYS_timer_delete, SYS_timer_getoverrun, SYS_rt_sigaction,
    SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigpending, SYS_rt_sigtimedwait, SYS_rt_sigsuspend,
    SYS_sigaltstack, SYS_pause, SYS_restart_syscall, SYS_tgkill, SYS_kill, SYS_wait4, SYS_waitid,
    SYS_pidfd_open, SYS_pidfd_send_signal, SYS_getrandom, SYS_uname, SYS_sysinfo, SYS_getpid,
    SYS_gettid, SYS_getppid, SYS_getpgrp, SYS_getpgid, SYS_getsid, SYS_getuid, SYS_geteuid,
    SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_capget, kCachestat};

constexpr int kCompromise[] = {SYS_execve,
                               SYS_execveat,
                               SYS_fork,
                               SYS_vfork,
                               SYS_unshare,
                               SYS_setns,
                               SYS_mount,
                               SYS_umount2,
                               SYS_pivot_root,
                               SYS_chroot,
                               SYS_open_tree,
                               SYS_move_mount,
                               SYS_fsopen,
                               SYS_fsconfig,
                               SYS_fsmount,
                               SYS_fspick,
                               SYS_mount_setattr,
                               SYS_open_by_handle_at,
                               SYS_process_vm_writev,
                               SYS_bpf,
                               SYS_perf_event_open,
                               SYS_userfaultfd,
                               SYS_io_uring_setup,
                               SYS_io_uring_enter,
                               SYS_io_uring_register,
                               SYS_init_module,
                               SYS_finit_module,
                               SYS_delete_module,
                               SYS_kexec_load,
                               SYS_kexec_file_load,
                               SYS_reboot,
                               SYS_swapon,
                               SYS_swapoff,
                               SYS_acct,
                               SYS_keyctl,
                               SYS_add_key,
                               SYS_request_key,
                               SYS_setuid,
                               SYS_setgid,
                               SYS_setreuid,
                               SYS_setregid,
                               SYS_setresuid,
                               SYS_setresgid,
                               SYS_setfsuid,
                               SYS_setfsgid,
                               SYS_setgroups,
                               SYS_capset,
                               SYS_personality,
                               SYS_modify_ldt,
                               SYS_iopl,
                               SYS_ioperm,
                               SYS_seccomp,
                               SYS_settimeofday,
                               SYS_clock_settime,
                               SYS_adjtimex,
                               SYS_sethostname,
                               SYS_setdomainname,
                               SYS_quotactl,
                               SYS_pkey_mprotect,
                               SYS_remap_file_pages,
                               SYS_uselib,
                               SYS_process_madvise};

constexpr OwnTest kOrdinaryTests[] = {
    {SYS_ioctl, 1, kWord, TIOCSTI, OwnAnswer::kKill},
    {SYS_ioctl, 1, kWord, TIOCLINUX, OwnAnswer::kKill},
    // libc answers a refusal with a plain error: a library that it wanted to load is not there.
    {SYS_mmap, 2, PROT_EXEC, PROT_EXEC, OwnAnswer::kRefuse},
    {SYS_mprotect, 2, PROT_EXEC, PROT_EXEC, OwnAnswer::kRefuse},
    {SYS_clone, 0, CLONE_THREAD, 0, OwnAnswer::kKill},
    {SYS_clone, 0, CLONE_NEWUSER, CLONE_NEWUSER, OwnAnswer::kKill},
    {SYS_prctl, 0, kWord, PR_SET_DUMPABLE, OwnAnswer::kKill},
    {SYS_prctl, 0, kWord, PR_SET_PTRACER, OwnAnswer::kKill},
    {SYS_prctl, 0, kWord, PR_SET_PDEATHSIG, OwnAnswer::kKill},
    {SYS_prctl, 0, kWord, PR_SET_MM, OwnAnswer::kKill},
    {SYS_prctl, 0, kWord, PR_SET_SECCOMP, OwnAnswer::kKill},
    {SYS_prctl, 0, kWord, PR_SET_SYSCALL_USER_DISPATCH, OwnAnswer::kKill},
    // Signals to others: the end, and job control of our own terminal.
    {SYS_kill, 1, kWord, SIGKILL, OwnAnswer::kAllow},
    {SYS_kill, 1, kWord, SIGTERM, OwnAnswer::kAllow},
    {SYS_kill, 1, kWord, SIGHUP, OwnAnswer::kAllow},
    {SYS_kill, 1, kWord, SIGTSTP, OwnAnswer::kAllow},
    {SYS_kill, 1, kWord, SIGSTOP, OwnAnswer::kAllow},
    {SYS_kill, 1, kWord, SIGCONT, OwnAnswer::kAllow},
    {SYS_kill, 1, kWord, 0, OwnAnswer::kAllow},
    {SYS_kill, 1, 0, 0, OwnAnswer::kRefuse},
    {kClone3, 0, 0, 0, OwnAnswer::kAbsent},  // its flags are in memory
};

sock_filter statement(unsigned code, uint32_t k) { return {static_cast<uint16_t>(code), 0, 0, k}; }
sock_filter unless_equal(uint32_t k, uint8_t skip) {
  return {BPF_JMP | BPF_JEQ | BPF_K, 0, skip, k};
}
constexpr unsigned kLoad = BPF_LD | BPF_W | BPF_ABS, kReturn = BPF_RET | BPF_K;

uint32_t argument_offset(unsigned arg) {  // of the low half
  return static_cast<uint32_t>(offsetof(seccomp_data, args) + arg * sizeof(uint64_t));
}

void add_test(const OwnTest& test, std::vector<sock_filter>& program) {
  program.push_back(unless_equal(static_cast<uint32_t>(test.nr), 5));
  program.push_back(statement(kLoad, argument_offset(test.arg)));
  program.push_back(statement(BPF_ALU | BPF_AND | BPF_K, test.mask));
  program.push_back(unless_equal(test.value, 1));
  program.push_back(statement(kReturn, own_action(test.answer)));
  program.push_back(statement(kLoad, offsetof(seccomp_data, nr)));
}

void add_row(int nr, OwnAnswer answer, std::vector<sock_filter>& program) {
  program.push_back(unless_equal(static_cast<uint32_t>(nr), 1));
  program.push_back(statement(kReturn, own_action(answer)));
}

bool contains(std::span<const int> list, int nr) {
  return std::find(list.begin(), list.end(), nr) != list.end();
}

bool is_allowed(const OwnCalls& calls, int nr) {
  return contains(ordinary_calls(), nr) || contains(calls.allowed, nr);
}

// What the lists say, said a second time and without BPF.
OwnAnswer expected(const OwnCalls& calls, const seccomp_data& call) {
  for (const OwnTest& test : calls.tests) {
    if (test.nr == call.nr &&
        (static_cast<uint32_t>(call.args[test.arg]) & test.mask) == test.value)
      return test.answer;
  }
  if (contains(compromise_calls(), call.nr)) return OwnAnswer::kKill;
  return is_allowed(calls, call.nr) ? OwnAnswer::kAllow : OwnAnswer::kRefuse;
}

Status expect(std::span<const sock_filter> program, const seccomp_data& call, uint32_t action) {
  CG_TRY(const Evaluation answer, run(program, call));
  if (answer.action == action) return ok();
  return fail("own filter: " + std::string(call_name(call.nr)) + " (" + std::to_string(call.nr) +
              ") would get action " + std::to_string(answer.action) + ", not " +
              std::to_string(action));
}

}  // namespace

Status prove_own_filter(const OwnCalls& calls, std::span<const sock_filter> program) {
  seccomp_data call{};
  call.arch = AUDIT_ARCH_X86_64;
  for (call.nr = 0; call.nr < static_cast<int>(kBeyondNumbers); ++call.nr) {
    CG_CHECK(expect(program, call, own_action(expected(calls, call))));
  }
  for (const OwnTest& test : calls.tests) {
    call = {};
    call.arch = AUDIT_ARCH_X86_64;
    call.nr = test.nr;
    call.args[test.arg] = 0xdeadbeef00000000 | test.value;
    CG_CHECK(expect(program, call, own_action(expected(calls, call))));
  }
  for (const int nr : {SYS_read, SYS_execve}) {
    call = {};
    call.arch = AUDIT_ARCH_X86_64;
    call.nr = nr | static_cast<int>(kX32Bit);
    CG_CHECK(expect(program, call, SECCOMP_RET_KILL_PROCESS));
    call.nr = nr;
    call.arch = AUDIT_ARCH_I386;
    CG_CHECK(expect(program, call, SECCOMP_RET_KILL_PROCESS));
  }
  return ok();
}

std::span<const int> ordinary_calls() { return kOrdinary; }
std::span<const int> compromise_calls() { return kCompromise; }
std::span<const OwnTest> ordinary_tests() { return kOrdinaryTests; }

uint32_t own_action(OwnAnswer answer) {
  switch (answer) {
    case OwnAnswer::kAllow:
      return SECCOMP_RET_ALLOW;
    case OwnAnswer::kRefuse:
      return SECCOMP_RET_ERRNO | EPERM;
    case OwnAnswer::kAbsent:
      return SECCOMP_RET_ERRNO | ENOSYS;
    case OwnAnswer::kKill:
      break;
  }
  return SECCOMP_RET_KILL_PROCESS;
}

Result<std::vector<sock_filter>> build_own_filter(const OwnCalls& calls) {
  std::vector<sock_filter> program{
      statement(kLoad, offsetof(seccomp_data, arch)),
      {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64},
      statement(kReturn, SECCOMP_RET_KILL_PROCESS),
      statement(kLoad, offsetof(seccomp_data, nr)),
      {BPF_JMP | BPF_JGE | BPF_K, 0, 1, kX32Bit},
      statement(kReturn, SECCOMP_RET_KILL_PROCESS),
  };
  for (const OwnTest& test : calls.tests) add_test(test, program);
  for (const int nr : compromise_calls()) {
    if (is_allowed(calls, nr))
      return fail("own filter: " + std::string(call_name(nr)) + " is allowed and forbidden");
    add_row(nr, OwnAnswer::kKill, program);
  }
  for (const std::span<const int> list : {ordinary_calls(), calls.allowed}) {
    for (const int nr : list) add_row(nr, OwnAnswer::kAllow, program);
  }
  program.push_back(statement(kReturn, own_action(OwnAnswer::kRefuse)));
  if (program.size() > BPF_MAXINSNS) return fail("own filter: too long for the kernel");
  return program;
}

Status install_on_all_threads(std::span<const sock_filter> program) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("no_new_privs", errno);
  // The kernel's interface takes a pointer to non-const and only reads it.
  const sock_fprog wanted{static_cast<unsigned short>(program.size()),
                          const_cast<sock_filter*>(program.data())};
  // LOG: where the host audits seccomp, its log names the calls that were refused.
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG, &wanted);
  if (result == 0) return ok();
  // A positive number is a thread whose filters differ from ours.
  return fail_errno(
      "confine certgate's own process (seccomp); cure: a kernel with CONFIG_SECCOMP_FILTER, and an "
      "outer sandbox that allows seccomp(2)",
      result < 0 ? errno : EBUSY);
}

Status give_up_privileges(Keep keep) {
  const rlimit none{0, 0};
  if (::setrlimit(RLIMIT_CORE, &none) != 0) return fail_errno("give up core dumps", errno);
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail_errno("become non-dumpable", errno);
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  // The bounding set matters only to an exec, which there will be none of; it shrinks where
  // allowed.
  for (unsigned long cap = 0; ::prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
    ::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
  }
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capget, &header, data) != 0) return fail_errno("read own capabilities", errno);
  constexpr uint32_t kEndOfRun = 1u << CAP_KILL | 1u << CAP_DAC_OVERRIDE;
  const uint32_t kept = keep == Keep::kEndOfRun ? data[0].permitted & kEndOfRun : 0;
  data[0] = {kept, kept, 0};
  data[1] = {};
  if (::syscall(SYS_capset, &header, data) != 0) return fail_errno("give up capabilities", errno);
  if (::syscall(SYS_capget, &header, data) != 0) return fail_errno("read own capabilities", errno);
  const uint32_t low = data[0].effective | data[0].permitted | data[0].inheritable;
  const uint32_t high = data[1].effective | data[1].permitted | data[1].inheritable;
  if ((low & ~kept) != 0 || high != 0)
    return fail("capabilities are still there after giving them up", EPERM);
  return ok();
}

}  // namespace certgate::sandbox
