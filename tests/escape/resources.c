// Denial: what one agent can do to its supervisor and to others. Every one is bounded.
#define GROUP "resources"
#include <sys/time.h>

#include "attack.h"

#define POOL "calls that may block leave the notify thread"
#define LIMIT "limits of processes, files and file systems"

static void* wait_in_fifo(void* x) { return close(open("/tmp/fifo", O_RDONLY)), x; }
ATTACK(fifos_block, kAlone, POOL) {
  if (is_bare()) return SKIP;
  mkfifo("/tmp/fifo", 0600);
  pthread_t t;
  for (int i = 0; i < 200; ++i) pthread_create(&t, 0, wait_in_fifo, 0);
  usleep(100000);
  return open_within(1);
}
static void* wait_in_own_fifo(void* x) { return close(open("scratch/fifo", O_RDONLY)), x; }
ATTACK(fifos_of_workspace_block, kAlone, POOL) {
  mkfifo("scratch/fifo", 0600);
  pthread_t t;
  for (int i = 0; i < 200; ++i) pthread_create(&t, 0, wait_in_own_fifo, 0);
  usleep(100000);
  return open_within(1);
}
static void* open_leased(void* x) { return close(open("/tmp/leased", O_RDONLY)), x; }
ATTACK(lease_blocks, kAlone, "filter: F_SETLEASE") {
  if (is_bare()) return SKIP;
  close(creat("/tmp/leased", 0600));
  int fd = open("/tmp/leased", O_RDONLY);
  signal(SIGIO, SIG_IGN);
  fcntl(fd, F_SETLEASE, F_WRLCK);
  pthread_t t;
  pthread_create(&t, 0, open_leased, 0);
  usleep(100000);
  return open_within(1);
}
static double many_opens(const char* path, int threads, int each);
struct Opens {
  const char* path;
  int each;
};
static void* open_many(void* x) {
  const struct Opens* o = x;
  for (int i = 0; i < o->each; ++i) close(open(o->path, O_RDONLY));
  return 0;
}
static double many_opens(const char* path, int threads, int each) {
  pthread_t t[64];
  struct Opens o = {path, each};
  const double start = now();
  for (int i = 0; i < threads; ++i) pthread_create(&t[i], 0, open_many, &o);
  for (int i = 0; i < threads; ++i) pthread_join(t[i], 0);
  return now() - start;
}
ATTACK(opens_at_once, kAlone, POOL) {
  const double took = many_opens("/etc/passwd", 64, 100);
  return SAY("6400 opens took %.2f s", took), took > 10 ? VIOLATION : HELD;
}
ATTACK(missing_files_at_once, kAlone, POOL) {
  const double took = many_opens("/etc/none", 64, 100);
  return SAY("6400 opens took %.2f s", took), took > 10 ? VIOLATION : HELD;
}
// The runner measures a second agent while this one goes on.
ATTACK(notify_flood, kAlone, "one supervisor for each agent") {
  dprintf(1, "READY\n");
  for (int i = 0; i < 4; ++i) many_opens("/etc/none", 64, is_bare() ? 1 : 200);
  return HELD;
}
ATTACK(latency, kAlone, "one supervisor for each agent") {
  double worst = 0;
  for (int i = 0; i < 300; ++i) {
    const double start = now();
    close(open("/etc/passwd", O_RDONLY));
    if (now() - start > worst) worst = now() - start;
    usleep(1000);
  }
  return SAY("slowest of 300 opens %.1f ms", worst * 1e3), worst > 2 ? VIOLATION : HELD;
}
static struct sockaddr_in nobody;
static void* blocked_connect(void* x) {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  return connect(s, (struct sockaddr*)&nobody, sizeof nobody), x;
}
ATTACK(connects_block, kAlone, POOL) {
  if (is_bare()) return SKIP;
  nobody = (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons(1999), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int l = socket(AF_INET, SOCK_STREAM, 0);
  bind(l, (struct sockaddr*)&nobody, sizeof nobody);
  listen(l, 0);
  pthread_t t;
  for (int i = 0; i < 200; ++i) pthread_create(&t, 0, blocked_connect, 0);
  usleep(200000);
  return open_within(1);
}
static void interrupted(int signal) { (void)signal; }
ATTACK(connect_interrupted, kAlone, "a call ends when a signal handler of its caller would run") {
  if (is_bare()) return SKIP;
  nobody = (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons(1998), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int l = socket(AF_INET, SOCK_STREAM, 0);
  bind(l, (struct sockaddr*)&nobody, sizeof nobody);
  listen(l, 0);
  pthread_t t;
  for (int i = 0; i < 4; ++i) pthread_create(&t, 0, blocked_connect, 0);
  usleep(50000);
  struct sigaction action = {.sa_handler = interrupted};
  sigaction(SIGALRM, &action, 0);
  const struct itimerval soon = {{0, 50000}, {0, 50000}};
  setitimer(ITIMER_REAL, &soon, 0);
  const double start = now();
  blocked_connect(0);
  SAY("connect ended after %.2f s", now() - start);
  return now() - start > 5 ? VIOLATION : HELD;
}

// --- bombs: bounded, never without certgate
// -------------------------------------------------------------

// What a bomb leaves must not keep the rest of the agent from working, nor the runner from ending
// it.
static int still_works(int made, const char* what) {
  const int verdict = open_within(5);
  char copy[128];
  snprintf(copy, sizeof copy, "%s", note);
  return SAY("%d %s; %s", made, what, copy), verdict;
}
ATTACK(fork_bomb, kAlone, LIMIT) {
  if (is_bare()) return SKIP;
  int made = 0;
  for (; made < 600; ++made) {
    pid_t pid = fork();
    if (pid == 0) pause(), _exit(0);
    if (pid < 0) break;
  }
  return still_works(made, "processes");
}
static void* wait_for_ever(void* x) { return pause(), x; }
ATTACK(thread_bomb, kAlone, LIMIT) {
  if (is_bare()) return SKIP;
  int made = 0;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  for (pthread_t t; made < 2000 && pthread_create(&t, &small, wait_for_ever, 0) == 0;) ++made;
  return still_works(made, "threads");
}
ATTACK(inode_bomb, kAlone, LIMIT) {
  if (is_bare()) return SKIP;
  int made = 0;
  mkdir("/dev/shm/bomb", 0700);
  for (char path[64]; made < 5000; ++made) {
    snprintf(path, sizeof path, "/dev/shm/bomb/%d", made);
    int fd = creat(path, 0600);
    if (fd < 0) break;
    close(fd);
  }
  return still_works(made, "files");
}
ATTACK(descriptor_bomb, kAlone, LIMIT) {
  if (is_bare()) return SKIP;
  int made = 0, last = -1;
  for (int fd; made < 20000 && (fd = open("/dev/null", O_RDONLY)) >= 0; ++made) last = fd;
  const int error = errno;
  for (int i = 0; i < 16; ++i) close(last - i);
  SAY("%s", strerror(error));
  return still_works(made, "descriptors");
}
static void map_memory(void) {
  size_t got = 0;
  for (; got < 64; ++got)  // 256 MiB, touched
    if (mmap(0, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1,
             0) == MAP_FAILED)
      break;
  _exit((int)got);
}
ATTACK(memory_bomb, kAlone, LIMIT) {
  if (is_bare()) return SKIP;
  return still_works(in_child(map_memory) * 4, "MiB");
}
ATTACK(run_file_system_filled, kAlone, "tmpfs with a size") {
  if (is_bare()) return SKIP;
  static char block[1 << 16];
  int fd = open("/dev/full-attack", O_WRONLY | O_CREAT, 0600), made = 0;
  while (fd >= 0 && made < 64 && write(fd, block, sizeof block) == sizeof block) ++made;
  return made == 64 ? (SAY("4 MiB in /dev"), VIOLATION)
                    : still_works(made, "blocks of 64 KiB in /dev");
}
ATTACK(sparse_file, kAlone, LIMIT) {
  int fd = open("scratch/sparse", O_RDWR | O_CREAT, 0600);
  for (long size = 1L << 60; size > 1L << 20 && ftruncate(fd, size); size >>= 1) continue;
  struct stat s;
  fstat(fd, &s);
  close(fd);
  close(open("scratch/sparse", O_RDONLY));
  truncate("scratch/sparse", 0);
  return still_works((int)(s.st_size >> 30), "GiB of nothing");
}
ATTACK(deep_directories, kAlone, "paths are walked with a limit") {
  int depth = 0;
  mkdir("scratch/deep", 0755);
  if (chdir("scratch/deep")) return SKIP;
  while (depth < 400 && mkdir("dddddddddddddddddddddddddddddd", 0755) == 0 &&
         chdir("dddddddddddddddddddddddddddddd") == 0)
    ++depth;
  const int fd = open("file", O_WRONLY | O_CREAT, 0600);
  close(fd);
  rename("file", "other"), unlink("other");
  while (depth-- >= 0) {
    if (chdir("..")) return SKIP;
    rmdir("dddddddddddddddddddddddddddddd");
  }
  return still_works(400, "levels");
}
ATTACK(chain_of_links, kAlone, "links are followed up to the kernel's limit") {
  char name[32], to[32];
  for (int i = 0; i < 60; ++i) {
    snprintf(name, sizeof name, "scratch/c%d", i), snprintf(to, sizeof to, "c%d", i + 1);
    symlink(to, name);
  }
  close(creat("scratch/c60", 0644));
  const int deep = open("scratch/c0", O_RDONLY);
  if (deep >= 0 || errno != ELOOP) return SAY("60 links: %s", strerror(errno)), VIOLATION;
  if (open("scratch/c25", O_RDONLY) < 0) return SAY("35 links: %s", strerror(errno)), VIOLATION;
  symlink("loop", "scratch/loop");
  if (open("scratch/loop", O_RDONLY) >= 0 || errno != ELOOP)
    return SAY("a loop: %s", strerror(errno)), VIOLATION;
  return still_works(60, "links");
}
// Links that each lead through others: the number of components grows with every level.
ATTACK(links_that_multiply, kAlone, "links are followed up to the kernel's limit") {
  for (int i = 0; i < 30; ++i) {
    char name[32], to[64];
    snprintf(name, sizeof name, "scratch/m%d", i),
        snprintf(to, sizeof to, i ? "m%d/../m%d" : ".", i - 1, i - 1);
    symlink(to, name);
  }
  const double start = now();
  close(open("scratch/m29/none", O_RDONLY));
  SAY("%.3f s", now() - start);
  return now() - start > 1 ? VIOLATION : HELD;
}
