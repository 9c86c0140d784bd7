// What an open means is changed by other threads while it is under way.
#define GROUP "races"
#include <linux/openat2.h>

#include "attack.h"

#define COPIED "arguments are copied once"
#define PINNED "objects are pinned, then judged, then used"

static struct open_how how;
static char shared[64];
static int shared_dir, dirs[2];

// 2 when the descriptor is of a file in src/ and takes a write.
static int judge(int fd) {
  if (fd < 0) return 0;
  const int bad = outside(fd) && write(fd, "EVIL", 4) == 4;
  close(fd);
  return bad ? 2 : 1;
}
static void* flip_flags(void* x) {
  while (!stop) how.flags ^= O_WRONLY;
  return x;
}
static int open_flags(void) {
  return judge(syscall(SYS_openat2, AT_FDCWD, kTarget, &how, sizeof how));
}
ATTACK(openat2_flags_flip, kTainted | kBare, COPIED) { return race(open_flags, flip_flags, 2); }

static void* flip_resolve(void* x) {
  while (!stop) how.resolve ^= RESOLVE_NO_SYMLINKS;
  return x;
}
static int open_resolve(void) {
  how.flags = O_WRONLY | O_APPEND;
  return judge(syscall(SYS_openat2, AT_FDCWD, "scratch/l", &how, sizeof how));
}
ATTACK(openat2_resolve_flip, kTainted | kBare, COPIED) {
  symlink("../src/hello.c", "scratch/l");
  return race(open_resolve, flip_resolve, 2);
}
static void* flip_path(void* x) {
  while (!stop) {
    strcpy(shared, "scratch/x");
    sched_yield();
    strcpy(shared, kTarget);
    sched_yield();
  }
  return x;
}
static int open_shared(void) { return judge(open(shared, O_WRONLY | O_CREAT, 0644)); }
ATTACK(path_flip, kTainted | kBare, COPIED) {
  strcpy(shared, "scratch/x");
  return race(open_shared, flip_path, 2);
}
static int truncate_shared(void) {
  struct stat s;
  const int failed = truncate(shared, 0);
  return stat(kTarget, &s) == 0 && s.st_size == 0 ? 2 : failed ? 0 : 1;
}
ATTACK(truncate_path_flip, kTainted | kBare, COPIED) {
  close(creat("scratch/x", 0644));
  strcpy(shared, "scratch/x");
  return race(truncate_shared, flip_path, 2);
}
static int rename_shared(void) {
  close(creat("scratch/y", 0644));
  const int failed = rename("scratch/y", shared);
  struct stat s;
  return stat(kTarget, &s) == 0 && s.st_size == 0 ? 2 : failed ? 0 : 1;
}
ATTACK(rename_path_flip, kTainted | kBare, COPIED) {
  strcpy(shared, "scratch/x");
  return race(rename_shared, flip_path, 2);
}
static void* flip_link(void* x) {
  char next[32];
  snprintf(next, sizeof next, "scratch/next%d", (int)syscall(SYS_gettid));
  for (int i = 0; !stop; ++i) {
    unlink(next);
    symlink(i & 1 ? "x" : "../src/hello.c", next);
    rename(next, "scratch/l");
  }
  return x;
}
static int open_link(void) { return judge(open("scratch/l", O_WRONLY | O_APPEND)); }
ATTACK(symlink_swap, kTainted | kBare, PINNED) {
  close(creat("scratch/x", 0644));
  return race(open_link, flip_link, 2);
}
// The last component is now a file, now a link to the target.
static void* flip_kind(void* x) {
  char next[32];
  snprintf(next, sizeof next, "scratch/kind%d", (int)syscall(SYS_gettid));
  while (!stop) {
    symlink("../src/hello.c", next);
    rename(next, "scratch/k");
    close(creat(next, 0644));
    rename(next, "scratch/k");
  }
  return x;
}
static int open_kind(void) { return judge(open("scratch/k", O_WRONLY | O_APPEND)); }
ATTACK(file_becomes_link, kTainted | kBare, PINNED) { return race(open_kind, flip_kind, 2); }

static void* flip_cwd(void* x) {
  while (!stop) fchdir(dirs[0]), fchdir(dirs[1]);
  return x;
}
static int open_cwd(void) { return judge(open("hello.c", O_WRONLY | O_CREAT | O_APPEND, 0644)); }
ATTACK(cwd_swap, kTainted | kBare, PINNED) {
  dirs[0] = open("scratch", O_RDONLY), dirs[1] = open("src", O_RDONLY);
  const int verdict = race(open_cwd, flip_cwd, 2);
  return fchdir(dirs[0]) || chdir("..") ? SKIP : verdict;
}
// A process of its own that shares only the directory, not the memory.
static char stack[65536];
static int flip_cwd_forever(void* x) {
  (void)x;
  while (!fchdir(dirs[0])) fchdir(dirs[1]);
  return 0;
}
static void* nothing(void* x) { return x; }
ATTACK(cwd_swap_by_process, kTainted | kBare, PINNED) {
  dirs[0] = open("scratch", O_RDONLY), dirs[1] = open("src", O_RDONLY);
  pid_t pid = clone(flip_cwd_forever, stack + sizeof stack, CLONE_FS | SIGCHLD, 0);
  if (pid < 0) return SAY("clone: %s", strerror(errno)), SKIP;
  const int verdict = race(open_cwd, nothing, 0);
  kill(pid, SIGKILL), waitpid(pid, 0, 0);
  return fchdir(dirs[0]) || chdir("..") ? SKIP : verdict;
}
static void* flip_dirfd(void* x) {
  while (!stop) dup2(dirs[0], shared_dir), dup2(dirs[1], shared_dir);
  return x;
}
static int open_dirfd(void) {
  return judge(openat(shared_dir, "hello.c", O_WRONLY | O_CREAT | O_APPEND, 0644));
}
ATTACK(dirfd_swap, kTainted | kBare, PINNED) {
  dirs[0] = open("scratch", O_RDONLY), dirs[1] = open("src", O_RDONLY), shared_dir = dup(dirs[0]);
  return race(open_dirfd, flip_dirfd, 2);
}
static int unlink_dirfd(void) {
  close(openat(dirs[0], "spare", O_WRONLY | O_CREAT, 0644));
  const int failed = unlinkat(shared_dir, "spare", 0);
  return access("src/spare", F_OK) ? 2 : failed ? 0 : 1;
}
ATTACK(dirfd_swap_unlink, kTainted | kBare, PINNED) {
  dirs[0] = open("scratch", O_RDONLY), dirs[1] = open("src", O_RDONLY), shared_dir = dup(dirs[0]);
  return race(unlink_dirfd, flip_dirfd, 2);
}
static int reopen_proc_fd(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", shared_dir);
  return judge(open(path, O_WRONLY | O_APPEND));
}
ATTACK(proc_fd_swap, kTainted | kBare, PINNED) {
  close(creat("scratch/x", 0644));
  dirs[0] = open("scratch/x", O_RDONLY), dirs[1] = open(kTarget, O_RDONLY),
  shared_dir = dup(dirs[0]);
  return race(reopen_proc_fd, flip_dirfd, 2);
}
static void* flip_directory(void* x) {
  while (!stop) {
    rename("scratch/d", "scratch/e");
    symlink("../src", "scratch/d");
    unlink("scratch/d");
    rename("scratch/e", "scratch/d");
  }
  return x;
}
static int open_in_directory(void) {
  return judge(open("scratch/d/hello.c", O_WRONLY | O_CREAT | O_APPEND, 0644));
}
ATTACK(directory_swap, kTainted | kBare, PINNED) {
  mkdir("scratch/d", 0755);
  return race(open_in_directory, flip_directory, 1);
}
// While the walk stands in a/b/c, c moves up: ".." twice is then the workspace instead of
// scratch/a.
static void* move_directory(void* x) {
  while (!stop) rename("scratch/a/b/c", "scratch/c"), rename("scratch/c", "scratch/a/b/c");
  return x;
}
static char long_way[4096];
static int open_dotdot(void) { return judge(open(long_way, O_WRONLY | O_APPEND)); }
ATTACK(dotdot_by_moved_directory, kTainted | kBare, PINNED) {
  mkdir("scratch/a", 0755), mkdir("scratch/a/b", 0755), mkdir("scratch/a/b/c", 0755),
      mkdir("scratch/a/src", 0755);
  close(creat("scratch/a/src/hello.c", 0644));
  strcpy(long_way, "scratch/a/b/c/");
  for (int i = 0; i < 500; ++i) strcat(long_way, "./");  // time for the move
  strcat(long_way, "../../src/hello.c");
  return race(open_dotdot, move_directory, 1);
}
// An answer must never reach a task that took over the number of one that died.
static int die_in_open(void) {
  pid_t pid = fork();
  if (pid == 0) {
    close(open(kTarget, O_WRONLY | O_APPEND)), close(open("scratch/x", O_WRONLY | O_CREAT, 0644));
    _exit(0);
  }
  for (volatile int i = 0; i < 20000; ++i) continue;
  kill(pid, SIGKILL);
  pid_t next = fork();
  if (next == 0) {
    usleep(500);
    for (int fd = 3; fd < 32; ++fd)
      if (fcntl(fd, F_GETFD) >= 0 && outside(fd)) _exit(7);
    _exit(0);
  }
  int status = 0;
  waitpid(pid, 0, 0), waitpid(next, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 7 ? 2 : 1;
}
ATTACK(task_dies_in_open, kTainted,
       "the notification is asked to be valid after every look at its task") {
  return race(die_in_open, nothing, 0);
}

// Handlers that restart calls run all the time; whatever was done must not be done again.
static pthread_t pestered;
static void handled(int signal) { (void)signal; }
static void* pester(void* x) {
  for (; !stop; usleep(30)) pthread_kill(pestered, SIGUSR1);
  return x;
}
static const char* done_twice(int i) {
  char a[48], b[48];
  snprintf(a, sizeof a, "scratch/a%d", i), snprintf(b, sizeof b, "scratch/b%d", i);
  if (mkdir(a, 0755)) return "mkdir";
  if (rename(a, b)) return "rename";
  if (rmdir(b)) return "rmdir";
  const int fd = open(a, O_CREAT | O_EXCL | O_WRONLY, 0644);
  if (fd < 0 || close(fd)) return "open";
  if (link(a, b)) return "link";
  if (unlink(a) || unlink(b)) return "unlink";
  return symlink("x", a) ? "symlink" : unlink(a) ? "unlink of a link" : 0;
}
ATTACK(effect_twice, kClean,
       "what was performed is not performed again when its call is started anew") {
  struct sigaction action = {.sa_handler = handled, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, 0);
  pestered = pthread_self();
  pthread_t threads[2];
  for (int i = 0; i < 2; ++i) spin(&threads[i], pester);
  const char* twice = 0;
  int rounds = 0;
  for (const double end = now() + race_seconds(); !twice && now() < end; ++rounds)
    twice = done_twice(rounds);
  const int error = errno;
  for (int i = 0; i < 2; ++i) join(threads[i]);
  if (twice) return SAY("%s: %s after %d rounds", twice, strerror(error), rounds), VIOLATION;
  return SAY("%d rounds", rounds), HELD;
}
