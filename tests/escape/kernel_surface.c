// System calls that an ordinary program does not need and that lead round the rest. Each is closed
// in the filter.
#define GROUP "kernel_surface"
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/timex.h>
#include <sys/user.h>

#include "attack.h"

// --- another door to the same calls
// --------------------------------------------------------------------

// OP_OPENAT through a ring: the filter would see only io_uring_enter.
ATTACK(io_uring_open, kTainted | kBare, "filter: io_uring_setup") {
  struct io_uring_params p = {0};
  int ring = syscall(SYS_io_uring_setup, 2, &p);
  if (ring < 0) return closed("io_uring_setup", -1);
  char* sq = mmap(0, p.sq_off.array + p.sq_entries * 4, PROT_READ | PROT_WRITE, MAP_SHARED, ring,
                  IORING_OFF_SQ_RING);
  char* cq = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
                  PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
  struct io_uring_sqe* e =
      mmap(0, p.sq_entries * sizeof *e, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
  if (sq == MAP_FAILED || cq == MAP_FAILED || e == MAP_FAILED)
    return SAY("mmap: %s", strerror(errno)), SKIP;
  *e = (struct io_uring_sqe){.opcode = IORING_OP_OPENAT,
                             .fd = AT_FDCWD,
                             .addr = (unsigned long)kTarget,
                             .open_flags = O_WRONLY | O_APPEND};
  *(unsigned*)(sq + p.sq_off.array) = 0;
  atomic_store((atomic_uint*)(sq + p.sq_off.tail), 1);
  syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0);
  return writes(((struct io_uring_cqe*)(cq + p.cq_off.cqes))->res);
}
// The i386 table, from 64-bit code: 5 is open there.
static void open_by_interrupt(void) {
  char* path =
      mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  strcpy(path, kTarget);
  long fd = 5;
  __asm__ volatile("int $0x80"
                   : "+a"(fd)
                   : "b"(path), "c"(O_WRONLY | O_APPEND), "d"(0)
                   : "memory", "r8", "r9", "r10", "r11");
  _exit(fd >= 0 && write(fd, "EVIL", 4) == 4 ? 7 : 0);
}
ATTACK(interrupt_80, kTainted | kBare, "filter: foreign architectures are killed") {
  const int status = in_child(open_by_interrupt);
  SAY("status %d", status);
  return status == 7 ? VIOLATION : status == -1 ? HELD : SKIP;
}
static void open_by_x32(void) {
  int fd = syscall(0x40000000 | SYS_open, kTarget, O_WRONLY | O_APPEND);
  _exit(fd >= 0 && write(fd, "EVIL", 4) == 4 ? 7 : errno);
}
ATTACK(x32_numbers, kTainted | kBare, "filter: foreign architectures are killed") {
  const int status = in_child(open_by_x32);
  SAY("%s", status == ENOSYS ? "this kernel has no x32" : "answered");
  return status == 7 ? VIOLATION : status == -1 ? HELD : SKIP;
}
ATTACK(high_half_of_number, kTainted, "filter: numbers are 32 bits") {
  return writes(syscall(SYS_open | 1L << 32, kTarget, O_WRONLY | O_APPEND));
}
ATTACK(system_call_dispatch, kClean | kBare, "filter: PR_SET_SYSCALL_USER_DISPATCH") {
  static char selector;
  return closed("prctl", prctl(59, 1, 0, 0, &selector));
}
ATTACK(unknown_numbers, kClean, "filter: unknown calls are ENOSYS") {
  for (long nr = 471; nr < 600; ++nr)
    if (syscall(nr, 0, 0, 0, 0, 0, 0) >= 0 || errno != ENOSYS)
      return SAY("call %ld: %s", nr, strerror(errno)), is_bare() ? SKIP : VIOLATION;
  return HELD;
}

// --- notifications and filters
// ---------------------------------------------------------------------------

static struct sock_filter allow_all[] = {{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
static struct sock_fprog program = {1, allow_all};
ATTACK(own_listener, kClean | kBare, "filter: seccomp") {
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return closed("seccomp", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                                   SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}
ATTACK(own_filter_by_prctl, kClean | kBare, "filter: PR_SET_SECCOMP") {
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return closed("prctl", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
}
ATTACK(filters_exhausted, kClean | kBare, "filter: seccomp") {
  static struct sock_filter many[4096];
  for (int i = 0; i < 4096; ++i) many[i] = allow_all[0];
  struct sock_fprog big = {4096, many};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  int loaded = 0;
  while (loaded < 8 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &big) == 0) ++loaded;
  return SAY("%d filters loaded", loaded), loaded ? VIOLATION : HELD;
}
// After the supervisor's death (the run that is killed) a listener of our own could answer every
// trap.
ATTACK(own_listener_for_dead_supervisor, kTainted,
       "filter: seccomp; init dies with the supervisor") {
  struct sock_filter notify[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
                                 {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_mkdir},
                                 {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF},
                                 {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
  struct sock_fprog trap = {4, notify};
  int listener = -1;
  for (int i = 0; i < 2000 && listener < 0; ++i)
    listener =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &trap);
  if (listener < 0) return worked("seccomp", -1);
  if (fork() == 0) mkdir("src/marker", 0755), _exit(0);
  struct seccomp_notif n = {0};
  ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &n);
  struct seccomp_notif_resp r = {.id = n.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
  return VIOLATION;
}
ATTACK(own_notifications_answered, kClean, "filter: ioctls of type '!'") {
  struct seccomp_notif_resp r = {.id = 1, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
  for (int fd = 0; fd < 256; ++fd) {
    if (ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &r) == 0) return SAY("descriptor %d", fd), VIOLATION;
    if (errno != EPERM && !is_bare())
      return SAY("descriptor %d: %s", fd, strerror(errno)), VIOLATION;
  }
  return HELD;
}

// --- memory and tracing
// --------------------------------------------------------------------------------

ATTACK(memory_map_moved, kClean, "filter: PR_SET_MM") {
  return closed("PR_SET_MM", prctl(PR_SET_MM, PR_SET_MM_ARG_START, &program, 0, 0));
}
ATTACK(page_faults_handled, kClean | kBare, "filter: userfaultfd") {
  return closed("userfaultfd", syscall(SYS_userfaultfd, 1));
}
ATTACK(bpf_map, kClean | kBareRoot, "filter: bpf") {
  union bpf_attr a = {
      .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
  return closed("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &a, sizeof a));
}
ATTACK(perf_event, kClean | kBareRoot, "filter: perf_event_open") {
  struct perf_event_attr a = {
      .type = PERF_TYPE_SOFTWARE, .size = sizeof a, .config = PERF_COUNT_SW_CPU_CLOCK};
  return closed("perf_event_open", syscall(SYS_perf_event_open, &a, 0, -1, -1, 0));
}
ATTACK(memory_secret, kClean, "filter: memfd_secret") {
  return closed("memfd_secret", syscall(SYS_memfd_secret, 0));
}
ATTACK(descriptor_table_segment, kClean | kBare, "filter: modify_ldt") {
  char table[128];
  return closed("modify_ldt", syscall(SYS_modify_ldt, 0, table, sizeof table));
}
ATTACK(other_personality, kClean | kBare, "filter: personality") {
  return closed("personality", personality(READ_IMPLIES_EXEC));
}
ATTACK(io_ports, kClean | kBareRoot, "filter: iopl, ioperm") {
  return closed("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
}
ATTACK(kernel_messages, kClean | kBareRoot, "filter: syslog") {
  char text[64];
  return closed("syslog", syscall(SYS_syslog, 3, text, sizeof text));
}
ATTACK(load_module, kClean, "filter: modules") {
  if (is_bare()) return SKIP;
  return closed("init_module", syscall(SYS_init_module, "", 0, "")) == HELD
             ? closed("finit_module", syscall(SYS_finit_module, 0, "", 0))
             : VIOLATION;
}
ATTACK(keyring_joined, kClean | kBare, "filter: keyctl") {
  return closed("keyctl", syscall(SYS_keyctl, 1, 0));
}
ATTACK(key_added, kClean | kBare, "filter: add_key") {
  return closed("add_key", syscall(SYS_add_key, "user", "certgate-attack", "x", 1, -2));
}

// --- files by handle, file systems, namespaces
// -------------------------------------------------------------

static int by_handle(void) {
  struct {
    struct file_handle h;
    char room[128];
  } file = {.h = {.handle_bytes = 128}};
  int mount_id;
  if (name_to_handle_at(AT_FDCWD, kTarget, &file.h, &mount_id, 0))
    return closed("name_to_handle_at", -1);
  return closed("open_by_handle_at",
                open_by_handle_at(open(".", O_RDONLY), &file.h, O_WRONLY | O_APPEND));
}
ATTACK(open_by_handle, kTainted | kBareRoot, "filter: name_to_handle_at, open_by_handle_at") {
  return by_handle();
}
ATTACK(open_by_made_up_handle, kTainted, "filter: name_to_handle_at, open_by_handle_at") {
  struct {
    struct file_handle h;
    unsigned id[2];
  } root = {{8, 1}, {2, 0}};
  return closed("open_by_handle_at", open_by_handle_at(open(".", O_RDONLY), &root.h, O_RDONLY));
}
#define AFTER_NAMESPACES(id, defence, name, ...) \
  static void run_##id(void) {                   \
    own_namespaces();                            \
    const long r = (__VA_ARGS__);                \
    const int e = errno;                         \
    _exit(r >= 0 ? 7 : e);                       \
  }                                              \
  ATTACK(id, kClean | kBare, defence) {          \
    const int status = in_child(run_##id);       \
    errno = status;                              \
    return closed(name, status == 7 ? 0 : -1);   \
  }
AFTER_NAMESPACES(mount_tmpfs, "filter: mount", "mount", mount("x", "scratch", "tmpfs", 0, 0))
AFTER_NAMESPACES(mount_bind, "filter: mount", "mount",
                 mount("/", "scratch", 0, MS_BIND | MS_REC, 0))
AFTER_NAMESPACES(mount_opened, "filter: fsopen", "fsopen", syscall(SYS_fsopen, "tmpfs", 0))
AFTER_NAMESPACES(mount_tree_cloned, "filter: open_tree", "open_tree",
                 syscall(SYS_open_tree, AT_FDCWD, "scratch", 1 /* clone */))
AFTER_NAMESPACES(mount_moved, "filter: move_mount", "move_mount",
                 is_bare() ? syscall(SYS_move_mount, syscall(SYS_open_tree, AT_FDCWD, "src", 1), "",
                                     AT_FDCWD, "scratch", 4)
                           : syscall(SYS_move_mount, AT_FDCWD, "src", AT_FDCWD, "scratch", 0))
AFTER_NAMESPACES(mount_attributes, "filter: mount_setattr", "mount_setattr",
                 syscall(SYS_mount_setattr, AT_FDCWD, "/", 0x8000, (long[4]){8 /* noexec */}, 32))
AFTER_NAMESPACES(change_root, "filter: chroot", "chroot", chroot("scratch"))
AFTER_NAMESPACES(host_name, "filter: sethostname", "sethostname", sethostname("evil", 4))
static void run_unshare(void) {
  const long r = unshare(CLONE_NEWUSER);
  _exit(r == 0 ? 7 : errno);
}
ATTACK(unshare_user, kClean | kBare, "filter: unshare") {
  const int status = in_child(run_unshare);
  errno = status;
  return closed("unshare", status == 7 ? 0 : -1);
}
AFTER_NAMESPACES(join_namespace, "filter: setns", "setns",
                 setns(open("/proc/self/ns/user", O_RDONLY), CLONE_NEWUSER) < 0 && errno == EINVAL
                     ? 0
                     : -1)
ATTACK(join_namespace_of_init, kClean, "filter: setns") {
  return closed("setns",
                setns(syscall(SYS_pidfd_open, 1, 0), CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID));
}
static int made(long pid) {
  if (pid == 0) _exit(0);
  const int error = errno;
  if (pid > 0) waitpid(pid, 0, 0);
  return errno = error, closed("clone", pid);
}
ATTACK(clone_new_user, kClean | kBare, "filter: namespace flags of clone") {
  return made(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
}
ATTACK(clone_new_mounts_dirty, kClean, "filter: namespace flags of clone") {
  if (is_bare()) return SKIP;
  return made(syscall(SYS_clone, CLONE_NEWNS | SIGCHLD | 0xdeadL << 32, 0, 0, 0, 0));
}
ATTACK(clone3_new_user, kClean | kBare, "filter: clone3") {
  unsigned long long arguments[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
  return made(syscall(SYS_clone3, arguments, sizeof arguments));
}
ATTACK(pivot_root_away, kClean, "filter: pivot_root") {
  return closed("pivot_root", syscall(SYS_pivot_root, "scratch", "scratch"));
}
ATTACK(file_access_watched, kClean | kBareRoot, "filter: fanotify_init") {
  return closed("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
}
ATTACK(lease_taken, kClean | kBare, "filter: F_SETLEASE") {
  close(creat("scratch/leased", 0600));
  return closed("F_SETLEASE", fcntl(open("scratch/leased", O_RDONLY), F_SETLEASE, F_RDLCK));
}

// --- the clock: certificates expire by it. Never set without certgate
// -----------------------------------------

ATTACK(clock_set, kClean, "filter: clock_settime") {
  if (is_bare()) return SKIP;
  const struct timespec t = {1, 0};
  return closed("clock_settime", clock_settime(CLOCK_REALTIME, &t)) == HELD
             ? closed("settimeofday", syscall(SYS_settimeofday, &t, 0))
             : VIOLATION;
}
ATTACK(clock_adjusted, kClean, "filter: adjtimex") {
  struct timex t = {0};
  return is_bare() ? SKIP : closed("adjtimex", adjtimex(&t));
}
ATTACK(capabilities_taken, kClean, "no capabilities, and none to be had") {
  struct {
    unsigned version;
    int pid;
  } header = {0x20080522, 0};
  unsigned data[6] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
  return worked("capset", syscall(SYS_capset, &header, data));
}
ATTACK(become_root, kClean, "no capabilities, and none to be had") {
  return worked("setresuid", syscall(SYS_setresuid, 0, 0, 0)) == HELD
             ? worked("setgroups", syscall(SYS_setgroups, 1, (int[1]){0}))
             : VIOLATION;
}
