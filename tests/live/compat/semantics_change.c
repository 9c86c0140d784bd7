/* Every call that changes a path, on every kind of object. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

#include "semantics.h"

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define COUNT(array) (sizeof(array) / sizeof *(array))

struct Arguments {
  const char* label;
  long a, b, c;
};

typedef long (*OnePath)(const char*, const struct Arguments*);

/* A success says what is there now, and makes the objects anew. */
static void one(const char* name, OnePath call, const struct Arguments* with, const struct Object* object) {
  fresh_objects();
  errno = 0;
  const long result = call(object->path, with);
  const int error = errno;
  line(text("%s(%s%s%s)", name, object->label, *with->label ? ", " : "", with->label), result, error,
       result == 0 ? describe_path(object->path) : "");
  if (result == 0) changed();
}

static void each(const char* name, OnePath call, const struct Arguments* list, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    for (size_t o = 0; o < kObjectCount; ++o) {
      if (wanted()) one(name, call, &list[i], &kObjects[o]);
    }
  }
}

static const struct Arguments kPlain[] = {{"", 0, 0, 0}};

static long call_unlink(const char* p, const struct Arguments* a) { (void)a; return syscall(SYS_unlink, p); }
static long call_rmdir(const char* p, const struct Arguments* a) { (void)a; return syscall(SYS_rmdir, p); }
static long call_unlinkat(const char* p, const struct Arguments* a) { return syscall(SYS_unlinkat, AT_FDCWD, p, a->a); }
static long call_mkdir(const char* p, const struct Arguments* a) { return syscall(SYS_mkdir, p, a->a); }
static long call_mkdirat(const char* p, const struct Arguments* a) { return syscall(SYS_mkdirat, AT_FDCWD, p, a->a); }
static long call_mknod(const char* p, const struct Arguments* a) { return syscall(SYS_mknod, p, a->a, a->b); }
static long call_mknodat(const char* p, const struct Arguments* a) { return syscall(SYS_mknodat, AT_FDCWD, p, a->a, a->b); }
static long call_symlink(const char* p, const struct Arguments* a) { return syscall(SYS_symlink, a->a, p); }
static long call_symlinkat(const char* p, const struct Arguments* a) { return syscall(SYS_symlinkat, a->a, AT_FDCWD, p); }
static long call_truncate(const char* p, const struct Arguments* a) { return syscall(SYS_truncate, p, a->a); }
static long call_chmod(const char* p, const struct Arguments* a) { return syscall(SYS_chmod, p, a->a); }
static long call_fchmodat(const char* p, const struct Arguments* a) { return syscall(SYS_fchmodat, AT_FDCWD, p, a->a); }
static long call_fchmodat2(const char* p, const struct Arguments* a) {
  return syscall(SYS_fchmodat2, AT_FDCWD, p, a->a, a->b);
}
static long call_chown(const char* p, const struct Arguments* a) { return syscall(SYS_chown, p, a->a, a->b); }
static long call_lchown(const char* p, const struct Arguments* a) { return syscall(SYS_lchown, p, a->a, a->b); }
static long call_fchownat(const char* p, const struct Arguments* a) {
  return syscall(SYS_fchownat, AT_FDCWD, p, a->a, a->b, a->c);
}

static void names(void) {
  static const struct Arguments kUnlinkat[] = {{"0", 0, 0, 0}, {"REMOVEDIR", AT_REMOVEDIR, 0, 0}, {"EMPTY_PATH", AT_EMPTY_PATH, 0, 0}};
  static const struct Arguments kModes[] = {{"0755", 0755, 0, 0}, {"07777", 07777, 0, 0}};
  static const struct Arguments kNodes[] = {{"0", 0644, 0, 0},
                                            {"REG", S_IFREG | 0644, 0, 0},
                                            {"FIFO", S_IFIFO | 0640, 0, 0},
                                            {"SOCK", S_IFSOCK | 0600, 0, 0},
                                            {"CHR", S_IFCHR | 0644, 0x103, 0},
                                            {"CHR 0:0", S_IFCHR | 0644, 0, 0},
                                            {"BLK", S_IFBLK | 0644, 0x800, 0},
                                            {"DIR", S_IFDIR | 0755, 0, 0},
                                            {"LNK", S_IFLNK | 0755, 0, 0},
                                            {"bad type", 0170000 | 0755, 0, 0}};
  char far[4097];
  memset(far, 't', 4096);
  far[4096] = '\0';
  const char* longest = far + 1; /* 4095 characters */
  const struct Arguments targets[] = {{"target", (intptr_t) "target", 0, 0},
                                      {"empty target", (intptr_t) "", 0, 0},
                                      {"target of 4095", (intptr_t)longest, 0, 0},
                                      {"target of 4096", (intptr_t)far, 0, 0},
                                      {"bad target", 8, 0, 0},
                                      {"null target", 0, 0, 0}};
  each("unlink", call_unlink, kPlain, 1);
  each("rmdir", call_rmdir, kPlain, 1);
  each("unlinkat", call_unlinkat, kUnlinkat, COUNT(kUnlinkat));
  each("mkdir", call_mkdir, kModes, COUNT(kModes));
  each("mkdirat", call_mkdirat, kModes, 1);
  each("mknod", call_mknod, kNodes, COUNT(kNodes));
  each("mknodat", call_mknodat, kNodes, 3);
  each("symlink", call_symlink, targets, COUNT(targets));
  each("symlinkat", call_symlinkat, targets, 2);
}

static void attributes(void) {
  static const struct Arguments kLengths[] = {{"0", 0, 0, 0}, {"3", 3, 0, 0}, {"8192", 8192, 0, 0}, {"-1", -1, 0, 0}};
  static const struct Arguments kModes[] = {{"0", 0, 0, 0}, {"0640", 0640, 0, 0}, {"07777", 07777, 0, 0}, {"0170644", 0170644, 0, 0}};
  static const struct Arguments kModesAt[] = {{"0640, 0", 0640, 0, 0},
                                              {"0640, NOFOLLOW", 0640, AT_SYMLINK_NOFOLLOW, 0},
                                              {"0640, EMPTY_PATH", 0640, AT_EMPTY_PATH, 0},
                                              {"0640, bad flag", 0640, 0x40, 0}};
  const struct Arguments owners[] = {{"-1, -1", -1, -1, 0},
                                     {"own, own", getuid(), getgid(), 0},
                                     {"root, -1", 0, -1, 0},
                                     {"-1, root", -1, 0, 0},
                                     {"12345, -1", 12345, -1, 0}};
  const struct Arguments owners_at[] = {{"own, 0", getuid(), -1, 0},
                                        {"own, NOFOLLOW", getuid(), -1, AT_SYMLINK_NOFOLLOW},
                                        {"own, EMPTY_PATH", getuid(), -1, AT_EMPTY_PATH},
                                        {"root, NOFOLLOW", 0, -1, AT_SYMLINK_NOFOLLOW},
                                        {"own, bad flag", getuid(), -1, 0x40}};
  each("truncate", call_truncate, kLengths, COUNT(kLengths));
  each("chmod", call_chmod, kModes, COUNT(kModes));
  each("fchmodat", call_fchmodat, kModes, 2);
  each("fchmodat2", call_fchmodat2, kModesAt, COUNT(kModesAt));
  each("chown", call_chown, owners, COUNT(owners));
  each("lchown", call_lchown, owners, COUNT(owners));
  each("fchownat", call_fchownat, owners_at, COUNT(owners_at));
}

enum TimeCall { kUtime, kUtimes, kFutimesat, kUtimensat };

static const char* times_of(const char* path, int follow) {
  struct stat s;
  if ((follow ? stat(path, &s) : lstat(path, &s)) != 0) return strerrorname_np(errno);
  /* Times of now differ from run to run. */
  const long a = s.st_atim.tv_sec > 2000000 ? -1 : s.st_atim.tv_sec, m = s.st_mtim.tv_sec > 2000000 ? -1 : s.st_mtim.tv_sec;
  return text("atime %ld.%09ld mtime %ld.%09ld", a, a < 0 ? 0 : s.st_atim.tv_nsec, m, m < 0 ? 0 : s.st_mtim.tv_nsec);
}

static void time_line(const char* call, const struct Object* object, long result, int error, int follow) {
  line(call, result, error, result == 0 && object->path != NULL ? times_of(object->path, follow) : "");
  if (result == 0) changed();
}

static void times(void) {
  static const struct timespec kSpecs[][2] = {{{1000, 5}, {2000, 6}},
                                              {{0, UTIME_NOW}, {2000, 6}},
                                              {{0, UTIME_OMIT}, {2000, 6}},
                                              {{0, UTIME_OMIT}, {0, UTIME_OMIT}},
                                              {{0, UTIME_NOW}, {0, UTIME_NOW}},
                                              {{1, 1000000000}, {1, 0}},
                                              {{1, -1}, {1, 0}}};
  static const struct timeval kValues[][2] = {{{1000, 5}, {2000, 6}}, {{1, 1000000}, {1, 0}}, {{1, -1}, {1, 0}}};
  static const struct utimbuf kBuffer = {1000, 2000};
  static const int kFlags[] = {0, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, 0x40};
  for (size_t o = 0; o < kObjectCount; ++o) {
    const struct Object* object = &kObjects[o];
    for (size_t s = 0; s < COUNT(kSpecs); ++s) {
      for (size_t f = 0; f < (s == 0 || s == 3 ? COUNT(kFlags) : 1); ++f) {
        if (!wanted()) continue;
        fresh_objects();
        const long result = syscall(SYS_utimensat, AT_FDCWD, object->path, kSpecs[s], kFlags[f]);
        time_line(text("utimensat(%s, times %zu, flags %#x)", object->label, s, (unsigned)kFlags[f]), object, result, errno,
                  kFlags[f] != AT_SYMLINK_NOFOLLOW);
      }
    }
    for (size_t v = 0; v < COUNT(kValues); ++v) {
      if (!wanted()) continue;
      fresh_objects();
      long result = syscall(SYS_utimes, object->path, kValues[v]);
      time_line(text("utimes(%s, times %zu)", object->label, v), object, result, errno, 1);
      fresh_objects();
      result = syscall(SYS_futimesat, AT_FDCWD, object->path, kValues[v]);
      time_line(text("futimesat(%s, times %zu)", object->label, v), object, result, errno, 1);
    }
    if (!wanted()) continue;
    fresh_objects();
    long result = syscall(SYS_utime, object->path, &kBuffer);
    time_line(text("utime(%s, times)", object->label), object, result, errno, 1);
    fresh_objects();
    result = syscall(SYS_utime, object->path, NULL);
    time_line(text("utime(%s, null)", object->label), object, result, errno, 1);
    fresh_objects();
    result = syscall(SYS_utimensat, AT_FDCWD, object->path, NULL, 0);
    time_line(text("utimensat(%s, null)", object->label), object, result, errno, 1);
    result = syscall(SYS_utimensat, AT_FDCWD, object->path, (void*)8, 0);
    CALL(text("utimensat(%s, bad pointer)", object->label), result, "");
  }
}

static void xattrs(void) {
  static char big[65537], long_name[300];
  memset(long_name, 'n', 299);
  memcpy(long_name, "user.", 5);
  static const struct {
    const char* label;
    const char* name;
    size_t size;
    int flags;
  } kCases[] = {{"user.a", "user.a", 5, 0},
                {"user.a, empty value", "user.a", 0, 0},
                {"user.a, CREATE", "user.a", 5, XATTR_CREATE},
                {"user.a, REPLACE", "user.a", 5, XATTR_REPLACE},
                {"user.a, bad flags", "user.a", 5, 8},
                {"user.a, 65537 bytes", "user.a", 65537, 0},
                {"trusted.a", "trusted.a", 5, 0},
                {"security.a", "security.a", 5, 0},
                {"system.a", "system.a", 5, 0},
                {"no prefix", "plain", 5, 0},
                {"user.", "user.", 5, 0},
                {"empty name", "", 5, 0},
                {"name of 299", long_name, 5, 0}};
  for (size_t o = 0; o < kObjectCount; ++o) {
    for (size_t c = 0; c < COUNT(kCases); ++c) {
      for (int follow = 0; follow < 2; ++follow) {
        if (!wanted()) continue;
        fresh_objects();
        const char* path = kObjects[o].path;
        const char* prefix = follow ? "" : "l";
        long result = syscall(follow ? SYS_setxattr : SYS_lsetxattr, path, kCases[c].name, big, kCases[c].size, kCases[c].flags);
        CALL(text("%ssetxattr(%s, %s)", prefix, kObjects[o].label, kCases[c].label), result, "");
        if (result == 0) {
          const long size = follow ? getxattr(path, kCases[c].name, NULL, 0) : lgetxattr(path, kCases[c].name, NULL, 0);
          CALL("  getxattr", size, "");
          changed();
        }
        if (c != 0 && kCases[c].size != 5) continue;
        result = syscall(follow ? SYS_removexattr : SYS_lremovexattr, path, kCases[c].name);
        CALL(text("%sremovexattr(%s, %s)", prefix, kObjects[o].label, kCases[c].label), result, "");
        if (result == 0) changed();
      }
    }
  }
  CALL("setxattr(bad value pointer)", syscall(SYS_setxattr, "file", "user.a", (void*)8, 5, 0), "");
  CALL("setxattr(bad name pointer)", syscall(SYS_setxattr, "file", (void*)8, big, 5, 0), "");
}

/* Two names: every kind of object to every kind of object. */
static void pairs(const char* name, long (*call)(const char*, const char*, long), const char* label, long flag, size_t step) {
  for (size_t a = 0; a < kObjectCount; a += 1) {
    for (size_t b = a % step; b < kObjectCount; b += step) {
      if (!wanted()) continue;
      fresh_objects();
      errno = 0;
      const long result = call(kObjects[a].path, kObjects[b].path, flag);
      const int error = errno;
      const char* after = result != 0 ? "" : text("from: %s; to: %s", describe_path(kObjects[a].path), describe_path(kObjects[b].path));
      line(text("%s(%s, %s%s%s)", name, kObjects[a].label, kObjects[b].label, *label ? ", " : "", label), result, error, after);
      if (result == 0) changed();
    }
  }
}

static long call_rename(const char* a, const char* b, long flag) { (void)flag; return syscall(SYS_rename, a, b); }
static long call_renameat(const char* a, const char* b, long flag) {
  (void)flag;
  return syscall(SYS_renameat, AT_FDCWD, a, AT_FDCWD, b);
}
static long call_renameat2(const char* a, const char* b, long flag) {
  return syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, flag);
}
static long call_link(const char* a, const char* b, long flag) { (void)flag; return syscall(SYS_link, a, b); }
static long call_linkat(const char* a, const char* b, long flag) {
  return syscall(SYS_linkat, AT_FDCWD, a, AT_FDCWD, b, flag);
}

static void into_itself(void) {
  fresh_objects();
  must(mkdir("dir/sub", 0755) == 0, "dir/sub");
  CALL("rename(dir, dir/sub/new)", rename("dir", "dir/sub/new"), "");
  CALL("rename(dir/sub, dir)", rename("dir/sub", "dir"), "");
  CALL("rename(dir, dir/sub)", rename("dir", "dir/sub"), "");
  CALL("renameat2(dir, dir/sub, EXCHANGE)", syscall(SYS_renameat2, AT_FDCWD, "dir", AT_FDCWD, "dir/sub", RENAME_EXCHANGE), "");
  changed();
}

/* The forms on a descriptor, on every kind of descriptor. */
static void by_descriptor(void) {
  fresh_objects();
  int ends[2];
  must(pipe(ends) == 0, "pipe");
  const int closed = dup(ends[0]);
  close(closed);
  const int deleted = open("gone", O_CREAT | O_RDWR, 0644);
  unlink("gone");
  const struct Arguments fds[] = {{"O_RDONLY file", open("file", O_RDONLY), 0, 0},
                                  {"O_RDWR file", open("file", O_RDWR), 0, 0},
                                  {"O_PATH file", open("file", O_PATH), 0, 0},
                                  {"O_PATH link", open("link", O_PATH | O_NOFOLLOW), 0, 0},
                                  {"O_RDONLY dir", open("dir", O_RDONLY), 0, 0},
                                  {"O_PATH dir", open("dir", O_PATH), 0, 0},
                                  {"O_RDWR fifo", open("fifo", O_RDWR), 0, 0},
                                  {"O_TMPFILE", open(".", O_TMPFILE | O_RDWR, 0600), 0, 0},
                                  {"deleted", deleted, 0, 0},
                                  {"/etc/passwd", open("/etc/passwd", O_RDONLY), 0, 0},
                                  {"pipe", ends[0], 0, 0},
                                  {"closed", closed, 0, 0},
                                  {"-1", -1, 0, 0}};
  static const struct timespec kTimes[2] = {{1000, 5}, {2000, 6}};
  for (size_t i = 0; i < COUNT(fds); ++i) {
    const int fd = (int)fds[i].a;
    const char* label = fds[i].label;
    CALL(text("fchmod(%s)", label), syscall(SYS_fchmod, fd, 0600), "");
    CALL(text("fchown(%s, own)", label), syscall(SYS_fchown, fd, getuid(), -1), "");
    CALL(text("fchown(%s, root)", label), syscall(SYS_fchown, fd, 0, -1), "");
    CALL(text("fsetxattr(%s)", label), syscall(SYS_fsetxattr, fd, "user.a", "12345", 5, 0), "");
    CALL(text("fremovexattr(%s)", label), syscall(SYS_fremovexattr, fd, "user.a"), "");
    CALL(text("futimens(%s)", label), syscall(SYS_utimensat, fd, NULL, kTimes, 0), "");
    CALL(text("futimens(%s, NOFOLLOW)", label), syscall(SYS_utimensat, fd, NULL, kTimes, AT_SYMLINK_NOFOLLOW), "");
    CALL(text("utimensat(%s, empty, EMPTY_PATH)", label), syscall(SYS_utimensat, fd, "", kTimes, AT_EMPTY_PATH), "");
    CALL(text("futimesat(%s, null)", label), syscall(SYS_futimesat, fd, NULL, NULL), "");
    CALL(text("fchownat(%s, EMPTY_PATH)", label), syscall(SYS_fchownat, fd, "", getuid(), -1, AT_EMPTY_PATH), "");
    CALL(text("fchmodat2(%s, EMPTY_PATH)", label), syscall(SYS_fchmodat2, fd, "", 0644, AT_EMPTY_PATH), "");
    CALL(text("linkat(%s, EMPTY_PATH)", label), syscall(SYS_linkat, fd, "", AT_FDCWD, "linked", AT_EMPTY_PATH), "");
    unlink("linked");
    CALL(text("linkat(/proc/self/fd of %s, FOLLOW)", label),
         syscall(SYS_linkat, AT_FDCWD, text("/proc/self/fd/%d", fd), AT_FDCWD, "linked", AT_SYMLINK_FOLLOW), "");
    unlink("linked");
    CALL(text("ftruncate(%s)", label), ftruncate(fd, 2), fd >= 0 ? describe_fd(fd) : "");
    CALL(text("mkdirat(%s, sub)", label), syscall(SYS_mkdirat, fd, "sub", 0755), "");
    CALL(text("unlinkat(%s, sub)", label), syscall(SYS_unlinkat, fd, "sub", AT_REMOVEDIR), "");
    CALL(text("symlinkat(%s, sub)", label), syscall(SYS_symlinkat, "t", fd, "sub"), "");
    CALL(text("renameat(%s, sub)", label), syscall(SYS_renameat, fd, "sub", AT_FDCWD, "moved"), "");
    unlink("moved");
    CALL(text("mknodat(%s, sub)", label), syscall(SYS_mknodat, fd, "/etc/sub", S_IFREG | 0644, 0), "");
    if (fd >= 0) close(fd);
  }
  close(ends[1]);
  changed();
}

void change_matrix(void) {
  names();
  attributes();
  times();
  xattrs();
  pairs("rename", call_rename, "", 0, 1);
  pairs("renameat", call_renameat, "", 0, 7);
  pairs("renameat2", call_renameat2, "NOREPLACE", RENAME_NOREPLACE, 3);
  pairs("renameat2", call_renameat2, "EXCHANGE", RENAME_EXCHANGE, 3);
  pairs("renameat2", call_renameat2, "EXCHANGE|NOREPLACE", RENAME_EXCHANGE | RENAME_NOREPLACE, 11);
  pairs("renameat2", call_renameat2, "bad flag", 0x80, 11);
  pairs("link", call_link, "", 0, 2);
  pairs("linkat", call_linkat, "FOLLOW", AT_SYMLINK_FOLLOW, 3);
  pairs("linkat", call_linkat, "bad flag", 0x40, 11);
  into_itself();
  by_descriptor();
}
