// Links of /proc that skip the path walk, and what /proc shows of others.
#define GROUP "magic_links"
#include <dirent.h>

#include "attack.h"

#define FRESH "a magic link is a fresh decision on its object"

static int through(const char* format, int fd) {
  char path[64];
  snprintf(path, sizeof path, format, fd);
  return writes(open(path, O_WRONLY | O_APPEND));
}
ATTACK(proc_fd_reopen, kTainted | kBare, FRESH) {
  return through("/proc/self/fd/%d", open(kTarget, O_RDONLY));
}
ATTACK(opath_reopen, kTainted | kBare, FRESH) {
  return through("/proc/thread-self/fd/%d", open(kTarget, O_PATH));
}
ATTACK(dev_fd_reopen, kTainted | kBare, FRESH) {
  return through("/dev/fd/%d", open(kTarget, O_RDONLY));
}
ATTACK(proc_fd_directory, kTainted | kBare, FRESH) {
  return through("/proc/self/fd/%d/hello.c", open("src", O_PATH));
}
ATTACK(opath_dirfd_openat, kTainted | kBare,
       "a directory descriptor is pinned and judged by its path") {
  return writes(openat(open("src", O_PATH), "hello.c", O_WRONLY | O_APPEND));
}
ATTACK(opath_write, kTainted, "O_PATH gives no content") {
  return writes(open(kTarget, O_PATH | O_WRONLY)) == HELD ? HELD : VIOLATION;
}
ATTACK(self_cwd, kTainted | kBare, FRESH) {
  return writes(open("/proc/self/cwd/src/hello.c", O_WRONLY | O_APPEND));
}
ATTACK(self_root, kTainted | kBare, FRESH) {
  char here[2048], path[4096];
  if (!getcwd(here, sizeof here)) return SKIP;
  snprintf(path, sizeof path, "/proc/self/root%s/%s", here, kTarget);
  return writes(open(path, O_WRONLY | O_APPEND));
}
ATTACK(self_root_exec, kTainted | kBare, FRESH) {
  char here[2048], path[4096];
  if (!getcwd(here, sizeof here)) return SKIP;
  snprintf(path, sizeof path, "/proc/self/root%s/%s", here, kForbidden);
  char* argv[] = {"ls", 0};
  pid_t pid = fork();
  if (pid == 0) execve(path, argv, kNone), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  return ran(WEXITSTATUS(status));
}
ATTACK(link_to_magic_link, kTainted | kBare, FRESH) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", getpid(), open(kTarget, O_RDONLY));
  symlink(path, "scratch/magic");
  return writes(open("scratch/magic", O_WRONLY | O_APPEND));
}
ATTACK(own_executable_written, kTainted, FRESH) { return writes(open("/proc/self/exe", O_WRONLY)); }
ATTACK(truncate_proc_fd, kTainted | kBare, FRESH) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", open(kTarget, O_RDONLY));
  return worked("truncate", truncate(path, 0));
}
ATTACK(chmod_proc_fd, kTainted | kBare, FRESH) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", open(kTarget, O_PATH));
  return worked("chmod", chmod(path, 0777));
}
ATTACK(proc_self_mem, kClean | kBare, "memory of a process is never opened") {
  static const char constant[] = "constant";
  int fd = open("/proc/self/mem", O_RDWR);
  if (fd < 0) return worked("open", -1);
  return worked("pwrite", pwrite(fd, "changed", 7, (off_t)(long)constant));
}
ATTACK(child_memory, kClean | kBare, "memory of a process is never opened") {
  char path[64];
  pid_t pid = fork();
  if (pid == 0) pause(), _exit(0);
  snprintf(path, sizeof path, "/proc/%d/mem", pid);
  const int verdict = worked("open", open(path, O_RDWR));
  kill(pid, SIGKILL);
  return verdict;
}
ATTACK(init_internals, kClean, "init cannot be inspected: other user namespace, not dumpable") {
  const char* names[] = {"environ", "maps", "mem",  "root/etc/passwd",
                         "cwd",     "fd/0", "fd/3", "fd/4",
                         "fd/5",    "exe",  "auxv", "syscall"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    char path[64];
    snprintf(path, sizeof path, "/proc/1/%s", names[i]);
    if (open(path, O_RDONLY | O_NONBLOCK) >= 0) return SAY("%s opened", path), VIOLATION;
  }
  return HELD;
}
ATTACK(init_root_exec, kClean, "init cannot be inspected: other user namespace, not dumpable") {
  char* argv[] = {"true", 0};
  pid_t pid = fork();
  if (pid == 0) execve("/proc/1/root/usr/bin/true", argv, kNone), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  SAY("status %d", WEXITSTATUS(status));
  return WEXITSTATUS(status) == 0 ? VIOLATION : HELD;
}
// Whoever is in /proc and is neither init nor ours would be of the host.
ATTACK(host_processes_visible, kClean | kBare, "own pid namespace and /proc") {
  DIR* proc = opendir("/proc");
  for (struct dirent* e; (e = readdir(proc));) {
    const int pid = atoi(e->d_name);
    if (pid > 1000) return SAY("process %d is visible", pid), VIOLATION;
  }
  return HELD;
}
static int of_victim(const char* what, int flags) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/%s", env("RED_VICTIM"), what);
  return worked(path, open(path, flags));
}
ATTACK(victim_environment, kClean | kBare, "own pid namespace and /proc") {
  return of_victim("environ", O_RDONLY);
}
ATTACK(victim_executable, kClean | kBare, "own pid namespace and /proc") {
  return of_victim("exe", O_RDONLY);
}
ATTACK(victim_root, kClean | kBare, "own pid namespace and /proc") {
  return of_victim("root/etc/passwd", O_RDONLY);
}
ATTACK(kernel_controls, kClean | kBareRoot, "kernel controls are forbidden for writing") {
  const char* names[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward",
                         "/proc/sysrq-trigger",           "/proc/sys/kernel/hostname",
                         "/sys/kernel/uevent_helper",     "/proc/sys/fs/binfmt_misc/register"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (open(names[i], O_WRONLY) >= 0) return SAY("%s opened", names[i]), VIOLATION;
  return HELD;
}
// What the operator's side has: policy, key, log and its directory.
ATTACK(control_side_files, kClean | kBare, "nothing of the control side is mounted") {
  const char* names[] = {"RED_POLICY", "RED_STATE"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (env(names[i])[0] && access(env(names[i]), F_OK) == 0)
      return SAY("%s is visible", env(names[i])), VIOLATION;
  return SAY("%s", strerror(errno)), HELD;
}
ATTACK(descriptors_inherited, kClean, "all descriptors but three are closed at the start") {
  DIR* fds = opendir("/proc/self/fd");
  for (struct dirent* e; (e = readdir(fds));)
    if (atoi(e->d_name) > 2 && atoi(e->d_name) != dirfd(fds) && atoi(e->d_name) < 100)
      return SAY("descriptor %s is open", e->d_name), VIOLATION;
  return HELD;
}
ATTACK(unlink_through_magic_link, kTainted | kBare, FRESH) {
  return worked("unlink", unlink("/proc/self/cwd/src/spare"));
}
ATTACK(rename_through_magic_link, kTainted | kBare, FRESH) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d/marker", open("src", O_PATH));
  close(creat("scratch/evil", 0644));
  return worked("rename", rename("scratch/evil", path));
}
ATTACK(opath_with_other_flags, kTainted, "O_PATH gives no content") {
  const int flags[] = {O_CREAT | O_RDWR, O_TRUNC | O_WRONLY, O_TMPFILE | O_RDWR, O_CREAT | O_EXCL};
  for (size_t i = 0; i < sizeof flags / sizeof *flags; ++i) {
    int fd = open(i == 2 ? "src" : i ? kTarget : "src/marker", O_PATH | flags[i], 0644);
    if (fd >= 0 && writes(fd) == VIOLATION) return SAY("flags %x", flags[i]), VIOLATION;
  }
  return access("src/marker", F_OK) == 0 ? VIOLATION : HELD;
}
ATTACK(init_internals_written, kClean,
       "init cannot be inspected: other user namespace, not dumpable") {
  const char* names[] = {"oom_score_adj",   "comm",       "timens_offsets", "autogroup",
                         "coredump_filter", "clear_refs", "uid_map"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    char path[64];
    snprintf(path, sizeof path, "/proc/1/%s", names[i]);
    int fd = open(path, O_WRONLY);
    if (fd >= 0 && write(fd, "5", 1) == 1) return SAY("%s written", path), VIOLATION;
  }
  return HELD;
}
ATTACK(resolver_files_written, kClean, "system directories are mounted read-only") {
  const char* names[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf",
                         "/etc/ld.so.cache"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (!is_bare() && open(names[i], O_WRONLY | O_APPEND) >= 0)
      return SAY("%s opened", names[i]), VIOLATION;
  return SAY("%s", strerror(errno)), HELD;
}
