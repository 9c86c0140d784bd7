// Hostile input to the supervisor's decoders, and to whoever reads its reports.
#define GROUP "input"
#include <linux/openat2.h>

#include "attack.h"

#define DECODE "decoders check what they copy"
#define ESCAPED "names are escaped where people read them"

static char** volatile null_vector;

ATTACK(hostile_arguments, kTainted, DECODE) {
  static const long calls[] = {
      SYS_open,         SYS_openat,    SYS_openat2,          SYS_creat,
      SYS_execve,       SYS_execveat,  SYS_connect,          SYS_bind,
      SYS_rename,       SYS_renameat2, SYS_linkat,           SYS_symlinkat,
      SYS_unlinkat,     SYS_mkdirat,   SYS_mknodat,          SYS_truncate,
      SYS_fchmodat,     SYS_fchownat,  SYS_utimensat,        SYS_setxattr,
      SYS_removexattr,  SYS_fchmod,    SYS_fchown,           SYS_fsetxattr,
      SYS_fremovexattr, SYS_utime,     SYS_futimesat,        SYS_readlinkat,
      SYS_getxattr,     SYS_listxattr, SYS_inotify_add_watch};
  static char text[8192];
  memset(text, 'a', sizeof text - 1);
  int s = socket(AF_INET, SOCK_STREAM, 0), i;
  int n = socket(AF_NETLINK, SOCK_RAW, 0), u = socket(AF_UNIX, SOCK_STREAM, 0);
  unsigned seed = 7;
  if (is_bare()) return SKIP;
  for (i = 0; i < (getenv("RED_LONG") ? 100000 : 4000); ++i) {
    long a[6];
    for (int k = 0; k < 6; ++k) {
      const long odd[] = {0,
                          -1,
                          (long)text,
                          (long)text + sizeof text - 3,
                          (long)"",
                          (long)"\xff\xfe\x1b[31m\n",
                          (long)"/proc/self/fd/99",
                          s,
                          n,
                          u,
                          AT_FDCWD,
                          1,
                          24,
                          128,
                          4096,
                          1L << 40,
                          0x7fffffffffffL,
                          rand_r(&seed),
                          (long)"scratch/\x1b]0;x\x07",
                          (long)".."};
      a[k] = odd[rand_r(&seed) % (sizeof odd / sizeof *odd)];
    }
    const long r = syscall(calls[rand_r(&seed) % (sizeof calls / sizeof *calls)], a[0], a[1], a[2],
                           a[3], a[4], a[5]);
    if (r > 20 && r < 100) close(r);
  }
  return open_within(1) == HELD ? (SAY("%d calls", i), HELD) : VIOLATION;
}
ATTACK(bad_pointers, kClean, DECODE) {
  const char* volatile bad_path = (const char*)8;
  if (open((char*)8, O_RDONLY) >= 0 || errno != EFAULT)
    return SAY("open: %s", strerror(errno)), VIOLATION;
  if (!connect(socket(AF_INET, SOCK_STREAM, 0), (void*)8, 16) || errno != EFAULT)
    return SAY("connect: %s", strerror(errno)), VIOLATION;
  if (!execve(bad_path, null_vector, null_vector) || errno != EFAULT)
    return SAY("execve: %s", strerror(errno)), VIOLATION;
  if (!rename("scratch", (char*)8) || errno != EFAULT)
    return SAY("rename: %s", strerror(errno)), VIOLATION;
  return HELD;
}
// Strings that end with the page, or do not end before it does.
ATTACK(strings_at_page_end, kClean, DECODE) {
  char* page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(page + 4096, 4096);
  strcpy(page + 4096 - sizeof "/etc/passwd", "/etc/passwd");
  if (open(page + 4096 - sizeof "/etc/passwd", O_RDONLY) < 0)
    return SAY("whole: %s", strerror(errno)), VIOLATION;
  memset(page, 'a', 4096);
  if (open(page + 4000, O_RDONLY) >= 0 || errno != EFAULT)
    return SAY("cut: %s", strerror(errno)), VIOLATION;
  return HELD;
}
static int how_of(size_t size, int tail) {
  static char room[65536];
  memset(room, 0, sizeof room);
  if (tail) room[size - 1] = 1;
  return syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", room, size) < 0 ? errno : 0;
}
ATTACK(open_how_sizes, kClean, DECODE) {
  struct {
    size_t size;
    int tail, wanted;
  } const rows[] = {{0, 0, EINVAL},   {23, 0, EINVAL},  {24, 0, 0},
                    {48, 0, 0},       {48, 1, E2BIG},   {4096, 0, 0},
                    {4096, 1, E2BIG}, {4097, 0, E2BIG}, {65536, 0, E2BIG}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i)
    if (how_of(rows[i].size, rows[i].tail) != rows[i].wanted)
      return SAY("size %zu, tail %d: %s", rows[i].size, rows[i].tail,
                 strerror(how_of(rows[i].size, rows[i].tail))),
             VIOLATION;
  return HELD;
}
ATTACK(open_how_unknown_bits, kTainted, DECODE) {
  for (int bit = 0; bit < 64; ++bit) {
    struct open_how how = {.flags = O_WRONLY | 1UL << bit};
    int fd = syscall(SYS_openat2, AT_FDCWD, kTarget, &how, sizeof how);
    if (fd >= 0 && write(fd, "EVIL", 4) == 4)
      return SAY("bit %d", bit), is_bare() ? SKIP : VIOLATION;
    if (fd >= 0) close(fd);
  }
  return HELD;
}
ATTACK(socket_address_sizes, kClean, DECODE) {
  struct sockaddr_storage a = {.ss_family = AF_INET};
  for (long size = -2; size < 200; ++size)
    if (connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr*)&a, size) == 0)
      return SAY("size %ld", size), VIOLATION;
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  a.ss_family = AF_UNIX;
  memset(&a.__ss_padding, 'x', 108);
  for (long size = 0; size < 130; ++size)
    if (connect(s, (struct sockaddr*)&a, size) == 0) return SAY("unix size %ld", size), VIOLATION;
  return HELD;
}
static void exec_ten_thousand(void) {
  static char* argv[10002];
  for (int i = 0; i < 10000; ++i) argv[i] = "x";
  execve("/usr/bin/false", argv, kNone);
}
ATTACK(many_arguments, kClean, DECODE) {
  return in_child(exec_ten_thousand) == 1 ? HELD : VIOLATION;
}
static void exec_huge(void) {
  static char text[120000];
  static char* argv[66];
  memset(text, 'y', sizeof text - 1);
  for (int i = 0; i < 64; ++i) argv[i] = text;
  execve("/usr/bin/false", argv, kNone);
  _exit(errno == E2BIG ? 98 : 97);
}
ATTACK(huge_arguments, kClean, DECODE) {
  const int status = in_child(exec_huge);
  SAY("status %d", status);
  return status == 98 || status == 1 ? open_within(5) : VIOLATION;
}
static void exec_empty(void) { execve("/usr/bin/false", null_vector, null_vector); }
ATTACK(empty_argv, kClean, DECODE) {
  int status = in_child(exec_empty);
  SAY("status %d", status);
  return status == 1 || status == 99 ? HELD : VIOLATION;
}
ATTACK(long_paths, kClean, DECODE) {
  static char path[70000];
  memset(path, '/', sizeof path - 1);
  if (open(path, O_RDONLY) >= 0 || errno != ENAMETOOLONG)
    return SAY("slashes: %s", strerror(errno)), VIOLATION;
  path[4095] = 0;
  if (open(path, O_RDONLY) < 0) return SAY("4095 slashes: %s", strerror(errno)), VIOLATION;
  memset(path, 'n', 300), path[300] = 0;
  if (open(path, O_RDONLY) >= 0 || errno != ENAMETOOLONG)
    return SAY("a name of 300: %s", strerror(errno)), VIOLATION;
  return HELD;
}
// What the log prints of these is looked at outside: no ESC, no BEL, no line of its own.
#define FAKE "\nFAKE AUDIT allowed exec /bin/sh\n"
ATTACK(escapes_in_names, kTainted, ESCAPED) {
  open("src/\x1b[31mred\x1b]0;title\x07\n", O_WRONLY | O_CREAT, 0644);
  open("src/\xff\xfe", O_WRONLY | O_CREAT, 0644);
  open("src/a" FAKE, O_WRONLY | O_CREAT, 0644);
  mkdir(
      "src/\xc2\x9b"
      "31m\x7f\r\b",
      0755);
  return HELD;
}
static void exec_escapes(void) {
  char* argv[] = {"\x1b]0;title\x07", FAKE, "\x1b[2J\r", 0};
  char* environment[] = {"X=\x1b[31m" FAKE, 0};
  execve(kForbidden, argv, environment);
}
ATTACK(escapes_in_arguments, kTainted, ESCAPED) { return ran(in_child(exec_escapes)); }
static void exec_escaped_path(void) {
  char* argv[] = {"x", 0};
  mkdir("scratch/\x1b[31m", 0755);
  int fd = creat(
      "scratch/\x1b[31m/a"
      "\nFAKE AUDIT",
      0755);
  write(fd, "#!/bin/sh\nexit 0\n", 17), close(fd);
  execve(
      "scratch/\x1b[31m/a"
      "\nFAKE AUDIT",
      argv, kNone);
}
ATTACK(escapes_in_program_path, kTainted, ESCAPED) {
  return in_child(exec_escaped_path) == 0 ? VIOLATION : HELD;
}
ATTACK(escapes_in_socket_name, kTainted, ESCAPED) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path,
         "scratch/\x1b[31m"
         "\nFAKE AUDIT");
  connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr*)&a, sizeof a);
  return worked("bind", bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr*)&a, sizeof a)) ==
                     VIOLATION &&
                 !is_bare()
             ? VIOLATION
             : HELD;
}
