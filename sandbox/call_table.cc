#include "sandbox/call_table.h"

#include <algorithm>
#include <cerrno>

namespace certgate::sandbox {
namespace {

// Numbers are written out, so that the table also knows calls younger than the build host's headers
// (a unit test compares the two). Why a call is denied:
// EPERM: it reaches another process's memory or descriptors, makes namespaces or mounts, loads code
// into the kernel, changes clocks or the machine, or enlarges the attack surface for nothing an
// ordinary program needs. ENOSYS: programs know how to live without it (io_uring, clone3, the at
// forms of the xattr calls) or it has long been gone.
// uretprobe and uprobe: recent kernels run them whatever a filter says. A probe that the host's root
// has set makes them, from the kernel's own page; from anywhere else they are SIGILL and ENXIO.
#define ALLOW(nr, name) \
  CallRow { nr, #name, CallClass::kAllow, 0 }
#define TRAP(nr, name) \
  CallRow { nr, #name, CallClass::kTrap, 0 }
#define DENY(nr, name, error) \
  CallRow { nr, #name, CallClass::kErrno, error }

// clang-format off
constexpr CallRow kTable[] = {
    ALLOW(0, read), ALLOW(1, write), TRAP(2, open), ALLOW(3, close), ALLOW(4, stat),
    ALLOW(5, fstat), ALLOW(6, lstat), ALLOW(7, poll), ALLOW(8, lseek), ALLOW(9, mmap),
    ALLOW(10, mprotect), ALLOW(11, munmap), ALLOW(12, brk), ALLOW(13, rt_sigaction),
    ALLOW(14, rt_sigprocmask), ALLOW(15, rt_sigreturn), ALLOW(16, ioctl), ALLOW(17, pread64),
    ALLOW(18, pwrite64), ALLOW(19, readv), ALLOW(20, writev), ALLOW(21, access), ALLOW(22, pipe),
    ALLOW(23, select), ALLOW(24, sched_yield), ALLOW(25, mremap), ALLOW(26, msync),
    ALLOW(27, mincore), ALLOW(28, madvise), ALLOW(29, shmget), ALLOW(30, shmat), ALLOW(31, shmctl),
    ALLOW(32, dup), ALLOW(33, dup2), ALLOW(34, pause), ALLOW(35, nanosleep), ALLOW(36, getitimer),
    ALLOW(37, alarm), ALLOW(38, setitimer), ALLOW(39, getpid), ALLOW(40, sendfile),
    ALLOW(41, socket), TRAP(42, connect), ALLOW(43, accept), ALLOW(44, sendto),
    ALLOW(45, recvfrom), ALLOW(46, sendmsg), ALLOW(47, recvmsg), ALLOW(48, shutdown),
    TRAP(49, bind), ALLOW(50, listen), ALLOW(51, getsockname), ALLOW(52, getpeername),
    ALLOW(53, socketpair), ALLOW(54, setsockopt), ALLOW(55, getsockopt), ALLOW(56, clone),
    ALLOW(57, fork), ALLOW(58, vfork), TRAP(59, execve), ALLOW(60, exit), ALLOW(61, wait4),
    ALLOW(62, kill), ALLOW(63, uname), ALLOW(64, semget), ALLOW(65, semop), ALLOW(66, semctl),
    ALLOW(67, shmdt), ALLOW(68, msgget), ALLOW(69, msgsnd), ALLOW(70, msgrcv), ALLOW(71, msgctl),
    ALLOW(72, fcntl), ALLOW(73, flock), ALLOW(74, fsync), ALLOW(75, fdatasync),
    TRAP(76, truncate), ALLOW(77, ftruncate), ALLOW(78, getdents), ALLOW(79, getcwd),
    ALLOW(80, chdir), ALLOW(81, fchdir), TRAP(82, rename), TRAP(83, mkdir), TRAP(84, rmdir),
    TRAP(85, creat), TRAP(86, link), TRAP(87, unlink), TRAP(88, symlink), TRAP(89, readlink),
    TRAP(90, chmod), TRAP(91, fchmod), TRAP(92, chown), TRAP(93, fchown), TRAP(94, lchown),
    ALLOW(95, umask), ALLOW(96, gettimeofday), ALLOW(97, getrlimit), ALLOW(98, getrusage),
    ALLOW(99, sysinfo), ALLOW(100, times), DENY(101, ptrace, EPERM), ALLOW(102, getuid),
    DENY(103, syslog, EPERM), ALLOW(104, getgid), ALLOW(105, setuid), ALLOW(106, setgid),
    ALLOW(107, geteuid), ALLOW(108, getegid), ALLOW(109, setpgid), ALLOW(110, getppid),
    ALLOW(111, getpgrp), ALLOW(112, setsid), ALLOW(113, setreuid), ALLOW(114, setregid),
    ALLOW(115, getgroups), ALLOW(116, setgroups), ALLOW(117, setresuid), ALLOW(118, getresuid),
    ALLOW(119, setresgid), ALLOW(120, getresgid), ALLOW(121, getpgid), ALLOW(122, setfsuid),
    ALLOW(123, setfsgid), ALLOW(124, getsid), ALLOW(125, capget), ALLOW(126, capset),
    ALLOW(127, rt_sigpending), ALLOW(128, rt_sigtimedwait), ALLOW(129, rt_sigqueueinfo),
    ALLOW(130, rt_sigsuspend), ALLOW(131, sigaltstack), TRAP(132, utime), TRAP(133, mknod),
    DENY(134, uselib, EPERM), ALLOW(135, personality), DENY(136, ustat, ENOSYS),
    ALLOW(137, statfs), ALLOW(138, fstatfs), DENY(139, sysfs, ENOSYS), ALLOW(140, getpriority),
    ALLOW(141, setpriority), ALLOW(142, sched_setparam), ALLOW(143, sched_getparam),
    ALLOW(144, sched_setscheduler), ALLOW(145, sched_getscheduler),
    ALLOW(146, sched_get_priority_max), ALLOW(147, sched_get_priority_min),
    ALLOW(148, sched_rr_get_interval), ALLOW(149, mlock), ALLOW(150, munlock),
    ALLOW(151, mlockall), ALLOW(152, munlockall), DENY(153, vhangup, EPERM),
    DENY(154, modify_ldt, EPERM), DENY(155, pivot_root, EPERM), DENY(156, _sysctl, ENOSYS),
    ALLOW(157, prctl), ALLOW(158, arch_prctl), DENY(159, adjtimex, EPERM), ALLOW(160, setrlimit),
    DENY(161, chroot, EPERM), ALLOW(162, sync), DENY(163, acct, EPERM),
    DENY(164, settimeofday, EPERM), DENY(165, mount, EPERM), DENY(166, umount2, EPERM),
    DENY(167, swapon, EPERM), DENY(168, swapoff, EPERM), DENY(169, reboot, EPERM),
    DENY(170, sethostname, EPERM), DENY(171, setdomainname, EPERM), DENY(172, iopl, EPERM),
    DENY(173, ioperm, EPERM), DENY(174, create_module, ENOSYS), DENY(175, init_module, EPERM),
    DENY(176, delete_module, EPERM), DENY(177, get_kernel_syms, ENOSYS),
    DENY(178, query_module, ENOSYS), DENY(179, quotactl, EPERM), DENY(180, nfsservctl, ENOSYS),
    DENY(181, getpmsg, ENOSYS), DENY(182, putpmsg, ENOSYS), DENY(183, afs_syscall, ENOSYS),
    DENY(184, tuxcall, ENOSYS), DENY(185, security, ENOSYS), ALLOW(186, gettid),
    ALLOW(187, readahead), TRAP(188, setxattr), TRAP(189, lsetxattr), TRAP(190, fsetxattr),
    TRAP(191, getxattr), TRAP(192, lgetxattr), TRAP(193, fgetxattr), TRAP(194, listxattr),
    TRAP(195, llistxattr), TRAP(196, flistxattr), TRAP(197, removexattr),
    TRAP(198, lremovexattr), TRAP(199, fremovexattr), ALLOW(200, tkill), ALLOW(201, time),
    ALLOW(202, futex), ALLOW(203, sched_setaffinity), ALLOW(204, sched_getaffinity),
    DENY(205, set_thread_area, ENOSYS), ALLOW(206, io_setup), ALLOW(207, io_destroy),
    ALLOW(208, io_getevents), ALLOW(209, io_submit), ALLOW(210, io_cancel),
    DENY(211, get_thread_area, ENOSYS), DENY(212, lookup_dcookie, EPERM), ALLOW(213, epoll_create),
    DENY(214, epoll_ctl_old, ENOSYS), DENY(215, epoll_wait_old, ENOSYS),
    DENY(216, remap_file_pages, ENOSYS), ALLOW(217, getdents64), ALLOW(218, set_tid_address),
    ALLOW(219, restart_syscall), ALLOW(220, semtimedop), ALLOW(221, fadvise64),
    ALLOW(222, timer_create), ALLOW(223, timer_settime), ALLOW(224, timer_gettime),
    ALLOW(225, timer_getoverrun), ALLOW(226, timer_delete), DENY(227, clock_settime, EPERM),
    ALLOW(228, clock_gettime), ALLOW(229, clock_getres), ALLOW(230, clock_nanosleep),
    ALLOW(231, exit_group), ALLOW(232, epoll_wait), ALLOW(233, epoll_ctl), ALLOW(234, tgkill),
    TRAP(235, utimes), DENY(236, vserver, ENOSYS), ALLOW(237, mbind), ALLOW(238, set_mempolicy),
    ALLOW(239, get_mempolicy), ALLOW(240, mq_open), ALLOW(241, mq_unlink),
    ALLOW(242, mq_timedsend), ALLOW(243, mq_timedreceive), ALLOW(244, mq_notify),
    ALLOW(245, mq_getsetattr), DENY(246, kexec_load, EPERM), ALLOW(247, waitid),
    DENY(248, add_key, EPERM), DENY(249, request_key, EPERM), DENY(250, keyctl, EPERM),
    ALLOW(251, ioprio_set), ALLOW(252, ioprio_get), ALLOW(253, inotify_init),
    TRAP(254, inotify_add_watch), ALLOW(255, inotify_rm_watch), DENY(256, migrate_pages, EPERM),
    TRAP(257, openat), TRAP(258, mkdirat), TRAP(259, mknodat), TRAP(260, fchownat),
    TRAP(261, futimesat), ALLOW(262, newfstatat), TRAP(263, unlinkat), TRAP(264, renameat),
    TRAP(265, linkat), TRAP(266, symlinkat), TRAP(267, readlinkat), TRAP(268, fchmodat),
    ALLOW(269, faccessat), ALLOW(270, pselect6), ALLOW(271, ppoll), DENY(272, unshare, EPERM),
    ALLOW(273, set_robust_list), ALLOW(274, get_robust_list), ALLOW(275, splice), ALLOW(276, tee),
    ALLOW(277, sync_file_range), ALLOW(278, vmsplice), DENY(279, move_pages, EPERM),
    TRAP(280, utimensat), ALLOW(281, epoll_pwait), ALLOW(282, signalfd),
    ALLOW(283, timerfd_create), ALLOW(284, eventfd), ALLOW(285, fallocate),
    ALLOW(286, timerfd_settime), ALLOW(287, timerfd_gettime), ALLOW(288, accept4),
    ALLOW(289, signalfd4), ALLOW(290, eventfd2), ALLOW(291, epoll_create1), ALLOW(292, dup3),
    ALLOW(293, pipe2), ALLOW(294, inotify_init1), ALLOW(295, preadv), ALLOW(296, pwritev),
    ALLOW(297, rt_tgsigqueueinfo), DENY(298, perf_event_open, EPERM), ALLOW(299, recvmmsg),
    DENY(300, fanotify_init, EPERM), DENY(301, fanotify_mark, EPERM), ALLOW(302, prlimit64),
    DENY(303, name_to_handle_at, EPERM), DENY(304, open_by_handle_at, EPERM),
    DENY(305, clock_adjtime, EPERM), ALLOW(306, syncfs), ALLOW(307, sendmmsg),
    DENY(308, setns, EPERM), ALLOW(309, getcpu), DENY(310, process_vm_readv, EPERM),
    DENY(311, process_vm_writev, EPERM), DENY(312, kcmp, EPERM), DENY(313, finit_module, EPERM),
    ALLOW(314, sched_setattr), ALLOW(315, sched_getattr), TRAP(316, renameat2),
    DENY(317, seccomp, EPERM), ALLOW(318, getrandom), ALLOW(319, memfd_create),
    DENY(320, kexec_file_load, EPERM), DENY(321, bpf, EPERM), TRAP(322, execveat),
    DENY(323, userfaultfd, EPERM), ALLOW(324, membarrier), ALLOW(325, mlock2),
    ALLOW(326, copy_file_range), ALLOW(327, preadv2), ALLOW(328, pwritev2),
    ALLOW(329, pkey_mprotect), ALLOW(330, pkey_alloc), ALLOW(331, pkey_free), ALLOW(332, statx),
    ALLOW(333, io_pgetevents), ALLOW(334, rseq), ALLOW(335, uretprobe), ALLOW(336, uprobe),
    ALLOW(424, pidfd_send_signal),
    DENY(425, io_uring_setup, ENOSYS), DENY(426, io_uring_enter, ENOSYS),
    DENY(427, io_uring_register, ENOSYS), DENY(428, open_tree, EPERM),
    DENY(429, move_mount, EPERM), DENY(430, fsopen, EPERM), DENY(431, fsconfig, EPERM),
    DENY(432, fsmount, EPERM), DENY(433, fspick, EPERM), ALLOW(434, pidfd_open),
    DENY(435, clone3, ENOSYS), ALLOW(436, close_range), TRAP(437, openat2),
    DENY(438, pidfd_getfd, EPERM), ALLOW(439, faccessat2), DENY(440, process_madvise, EPERM),
    ALLOW(441, epoll_pwait2), DENY(442, mount_setattr, EPERM), DENY(443, quotactl_fd, EPERM),
    ALLOW(444, landlock_create_ruleset), ALLOW(445, landlock_add_rule),
    ALLOW(446, landlock_restrict_self), DENY(447, memfd_secret, EPERM),
    DENY(448, process_mrelease, EPERM), ALLOW(449, futex_waitv),
    ALLOW(450, set_mempolicy_home_node), ALLOW(451, cachestat), TRAP(452, fchmodat2),
    ALLOW(453, map_shadow_stack), ALLOW(454, futex_wake), ALLOW(455, futex_wait),
    ALLOW(456, futex_requeue), DENY(457, statmount, EPERM), DENY(458, listmount, EPERM),
    DENY(459, lsm_get_self_attr, ENOSYS), DENY(460, lsm_set_self_attr, ENOSYS),
    DENY(461, lsm_list_modules, ENOSYS), ALLOW(462, mseal), DENY(463, setxattrat, ENOSYS),
    DENY(464, getxattrat, ENOSYS), DENY(465, listxattrat, ENOSYS),
    DENY(466, removexattrat, ENOSYS), DENY(467, open_tree_attr, EPERM),
    DENY(468, file_getattr, ENOSYS), DENY(469, file_setattr, ENOSYS), DENY(470, listns, EPERM),
};
// clang-format on

#undef ALLOW
#undef TRAP
#undef DENY

constexpr bool strictly_ascending() {
  for (size_t i = 1; i < std::size(kTable); ++i) {
    if (kTable[i - 1].nr >= kTable[i].nr) return false;
  }
  return true;
}
static_assert(strictly_ascending(), "find_call searches by halves");

}  // namespace

std::span<const CallRow> call_table() { return kTable; }

const CallRow* find_call(int nr) {
  const auto* row =
      std::lower_bound(std::begin(kTable), std::end(kTable), nr,
                       [](const CallRow& left, int right) { return left.nr < right; });
  return row != std::end(kTable) && row->nr == nr ? row : nullptr;
}

std::string_view call_name(int nr) {
  const CallRow* row = find_call(nr);
  return row != nullptr ? row->name : "unknown";
}

CallClass call_class(int nr) {
  const CallRow* row = find_call(nr);
  return row != nullptr ? row->call_class : CallClass::kUnknown;
}

}  // namespace certgate::sandbox
