// What a tainted agent holds on to, or leaves for another sandbox that is clean and acts on it.
#define GROUP "laundering"
#include <dirent.h>
#include <sys/inotify.h>

#include "attack.h"

// --- handles that outlive the raise (these begin clean)
// ---------------------------------------------

#define HOLDS "a raise looks for every writer of the files it closes"

static int held(int fd_after, int refused) {
  if (refused) return SAY("the fetch was refused: %s", strerror(errno)), HELD;
  return writes(fd_after);
}
ATTACK(held_in_flight, kClean | kBare, HOLDS) {
  int pair[2], fd = open("pre/held", O_CREAT | O_WRONLY, 0644);
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  send_fd(pair[0], fd);
  close(fd);
  int refused = taint();
  int e = errno;
  fd = receive_fd(pair[1]);
  errno = e;
  return held(fd, refused);
}
ATTACK(held_mapping, kClean | kBare, HOLDS) {
  int fd = open("pre/held", O_CREAT | O_RDWR, 0644);
  ftruncate(fd, 4096);
  char* at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (taint()) return SAY("the fetch was refused"), HELD;
  memcpy(at, "EVIL", 4);
  return SAY("written"), VIOLATION;
}
ATTACK(held_by_child, kClean | kBare, HOLDS) {
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
// A socket that is itself in flight carries the descriptor: nobody's table has either of them.
ATTACK(held_in_nested_flight, kClean | kBare, HOLDS) {
  int inner[2], outer[2], fd = open("pre/held", O_CREAT | O_WRONLY, 0644);
  socketpair(AF_UNIX, SOCK_STREAM, 0, inner);
  socketpair(AF_UNIX, SOCK_STREAM, 0, outer);
  send_fd(inner[0], fd), send_fd(outer[0], inner[1]);
  close(fd), close(inner[1]);
  int refused = taint();
  int e = errno;
  fd = receive_fd(receive_fd(outer[1]));
  errno = e;
  return held(fd, refused);
}
ATTACK(held_fifo, kClean | kBare, HOLDS) {
  mkfifo("pre/fifo", 0644);
  int fd = open("pre/fifo", O_RDWR);
  return held(fd, taint());
}
ATTACK(released_fifo, kClean, HOLDS) {
  mkfifo("pre/fifo", 0644);
  close(open("pre/fifo", O_RDWR));
  return taint() && !is_bare() ? (SAY("a closed FIFO still stops the fetch"), VIOLATION) : HELD;
}
ATTACK(held_link, kClean | kBare, "a link stays within one rule") {
  if (link(kTarget, "scratch/hard")) return SAY("link: %s", strerror(errno)), HELD;
  if (taint()) return SAY("%s", strerror(errno)), SKIP;
  return writes(open("scratch/hard", O_WRONLY | O_APPEND));
}
ATTACK(connection_dup, kClean | kBare, "a raise shuts the connections that its rule rejects") {
  int s = sink(), d = dup(s);
  if (s < 0) return SAY("sink: %s", strerror(errno)), SKIP;
  write(s, "before;", 7);
  close(s);
  if (taint()) return HELD;
  usleep(20000);
  int sent = 0;
  for (int i = 0; i < 20; ++i) sent += write(d, evidence(), 6) == 6, usleep(1000);
  return SAY("%d sends accepted", sent), sent > 1 ? VIOLATION : HELD;
}
ATTACK(connection_in_flight, kClean | kBare,
       "a raise shuts the connections that its rule rejects") {
  int pair[2], s = sink();
  if (s < 0) return SAY("sink: %s", strerror(errno)), SKIP;
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  send_fd(pair[0], s);
  close(s);
  if (taint()) return HELD;
  usleep(20000);
  s = receive_fd(pair[1]);
  int sent = 0;
  for (int i = 0; i < 20; ++i) sent += send(s, evidence(), 6, MSG_NOSIGNAL) == 6, usleep(1000);
  return SAY("%d sends accepted", sent), sent > 1 ? VIOLATION : HELD;
}
static atomic_int tainted_now;
static void* open_loop(void* x) {
  while (!stop) {
    int fd = open("pre/race", O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0) continue;
    if (tainted_now) write(fd, "EVIL", 4);
    close(fd);
  }
  return x;
}
ATTACK(open_during_raise, kClean, "a handle is pending from its decision to its effect") {
  if (is_bare()) return SKIP;
  pthread_t t[2];
  spin(&t[0], open_loop), spin(&t[1], open_loop);
  int tries = 0;
  while (taint() && tries < 300) ++tries;
  tainted_now = tries < 300;
  usleep(50000);
  join(t[0]), join(t[1]);
  return SAY("%d fetches refused before one passed", tries), HELD;
}

// --- from one sandbox to the next: stage 1 is tainted, stage 2 starts clean
// ----------------------------------

#define CARRIED "labels of files are found again by the next sandbox"

static int first_stage(void) { return atoi(env("RED_STAGE")) == 1; }
// Stage 1 must get there; stage 2 was clean before it took up what was left, and must not be so
// after.
static int taken_up(int before, long got) {
  if (before) return SAY("was not clean at the start"), SKIP;
  if (got < 0) return SAY("nothing was taken up: %s", strerror(errno)), HELD;
  return writes(creat("src/marker", 0644));
}
static int clean_now(void) {
  int fd = creat("pre/control", 0644);
  close(fd);
  return fd < 0;
}
static int leave(int fd) {
  if (taint() || fd < 0 || write(fd, "do this", 7) != 7)
    return SAY("nothing left: %s", strerror(errno)), SKIP;
  return close(fd), HELD;
}
static long take(const char* path) {
  char text[16];
  int fd = open(path, O_RDONLY);
  return fd < 0 ? -1 : read(fd, text, sizeof text);
}
static int take_up(const char* path) {
  const int before = clean_now();  // arguments have no order
  return taken_up(before, take(path));
}
ATTACK(launder_by_file, kTwoRuns | kBare, CARRIED) {
  if (first_stage()) return leave(creat("scratch/gift", 0644));
  return take_up("scratch/gift");
}
ATTACK(launder_by_rename, kTwoRuns | kBare, CARRIED) {
  if (!first_stage()) return take_up("scratch/renamed");
  const int left = leave(creat("scratch/gift", 0644));
  return rename("scratch/gift", "scratch/renamed"), left;
}
ATTACK(launder_by_hard_link, kTwoRuns | kBare, CARRIED) {
  if (!first_stage()) return take_up("scratch/other-name");
  const int left = leave(creat("scratch/gift", 0644));
  return link("scratch/gift", "scratch/other-name"), left;
}
ATTACK(launder_by_mapping, kTwoRuns | kBare, CARRIED) {
  if (!first_stage()) {
    const int before = clean_now();
    int fd = open("scratch/mapped", O_RDONLY);
    return taken_up(before,
                    fd < 0 || mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
  }
  int fd = open("scratch/mapped", O_RDWR | O_CREAT, 0644);
  ftruncate(fd, 4096);
  char* at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (taint()) return SAY("no page"), SKIP;
  return strcpy(at, "do this"), HELD;
}
ATTACK(launder_by_copy_range, kTwoRuns | kBare, CARRIED) {
  if (!first_stage()) return take_up("scratch/copy");
  const int left = leave(creat("scratch/gift", 0644));
  int in = open("scratch/gift", O_RDONLY), out = creat("scratch/copy", 0644);
  copy_file_range(in, 0, out, 0, 7, 0);
  return left;
}
ATTACK(launder_by_link_text, kTwoRuns | kBare, "a link's text is read under a label") {
  char text[64];
  if (!first_stage()) {
    const int before = clean_now();
    return taken_up(before, readlink("scratch/text", text, sizeof text));
  }
  if (taint()) return SAY("no page"), SKIP;
  return symlink("do this", "scratch/text") ? SKIP : HELD;
}
ATTACK(launder_by_attribute, kTwoRuns | kBare, "extended attributes are read under a label") {
  char text[64];
  if (!first_stage()) {
    const int before = clean_now();
    return taken_up(before, getxattr("scratch/attribute", "user.text", text, sizeof text));
  }
  if (taint()) return SAY("no page"), SKIP;
  close(creat("scratch/attribute", 0644));
  if (setxattr("scratch/attribute", "user.text", "do this", 7, 0))
    return SAY("no xattrs here"), SKIP;
  return HELD;
}
ATTACK(launder_by_name, kTwoRuns | kBare, "names are a label of their directory") {
  if (!first_stage()) {
    const int before = clean_now();
    DIR* d = opendir("scratch");
    int names = 0;
    for (struct dirent* e; d && (e = readdir(d));) names += e->d_name[0] != '.';
    return taken_up(before, names ? 0 : -1);
  }
  if (taint()) return SAY("no page"), SKIP;
  return mkdir("scratch/do this", 0755) ? SKIP : HELD;
}
ATTACK(launder_by_program, kTwoRuns | kBare, CARRIED) {
  if (first_stage()) {
    int in = open(kForbidden, O_RDONLY), out = creat("scratch/gift", 0755);
    static char bytes[1 << 20];
    const ssize_t n = read(in, bytes, sizeof bytes);
    if (taint() || write(out, bytes, n) != n) return SAY("no page"), SKIP;
    return close(out), HELD;
  }
  pid_t pid = fork();
  char* argv[] = {"gift", 0};
  if (pid == 0) execve("scratch/gift", argv, kNone), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  return ran(WEXITSTATUS(status));
}
ATTACK(launder_by_script, kTwoRuns | kBare, CARRIED) {
  if (first_stage()) {
    int fd = creat("scratch/gift.sh", 0755);
    if (taint()) return SAY("no page"), SKIP;
    return dprintf(fd, "#!/bin/sh\nexec src/forbidden\n"), close(fd), HELD;
  }
  pid_t pid = fork();
  char* argv[] = {"sh", "scratch/gift.sh", 0};
  if (pid == 0) execve("/bin/sh", argv, kNone), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  return ran(WEXITSTATUS(status));
}
