/* open, openat, openat2 and creat: every flag on every kind of object; modes; descriptors to start from. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "semantics.h"

struct Flag {
  const char* name;
  int value;
};

static const struct Flag kAccess[] = {{"RDONLY", O_RDONLY}, {"WRONLY", O_WRONLY}, {"RDWR", O_RDWR}, {"3", 3}};
static const struct Flag kModifiers[] = {
    {"", 0},
    {"|CREAT", O_CREAT},
    {"|CREAT|EXCL", O_CREAT | O_EXCL},
    {"|CREAT|TRUNC", O_CREAT | O_TRUNC},
    {"|CREAT|NOFOLLOW", O_CREAT | O_NOFOLLOW},
    {"|CREAT|DIRECTORY", O_CREAT | O_DIRECTORY},
    {"|EXCL", O_EXCL},
    {"|TRUNC", O_TRUNC},
    {"|APPEND", O_APPEND},
    {"|DIRECTORY", O_DIRECTORY},
    {"|NOFOLLOW", O_NOFOLLOW},
    {"|DIRECTORY|NOFOLLOW", O_DIRECTORY | O_NOFOLLOW},
    {"|PATH", O_PATH},
    {"|PATH|NOFOLLOW", O_PATH | O_NOFOLLOW},
    {"|PATH|DIRECTORY", O_PATH | O_DIRECTORY},
    {"|CLOEXEC", O_CLOEXEC},
    {"|TMPFILE", O_TMPFILE},
    {"|TMPFILE|EXCL", O_TMPFILE | O_EXCL},
    {"|SYNC|NOCTTY", O_SYNC | O_NOCTTY},
    {"|NOATIME", O_NOATIME},
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Waiting for the other end of a FIFO is a matter of its own (descriptor cases). */
static int without_waiting(const char* path, int flags) {
  const int waits = path > (const char*)4096 && strncmp(path, "fifo", 4) == 0 && (flags & O_ACCMODE) != O_RDWR;
  return waits && !(flags & O_PATH) ? flags | O_NONBLOCK : flags;
}

static void report_open(const char* call, const struct Object* object, long fd, int error, int flags) {
  if (fd < 0) {
    line(call, -1, error, "");
    return;
  }
  const char* opened = describe_fd((int)fd);
  const int makes = (flags & (O_CREAT | O_TRUNC)) != 0;
  line(call, fd, 0, makes ? text("%s; name: %s", opened, describe_path(object->path)) : opened);
  close((int)fd);
  if (makes) changed();
}

static void opens_by(const char* name, long (*call)(const char*, int), const struct Flag* access, size_t step) {
  for (size_t m = 0; m < COUNT(kModifiers); m += step) {
    for (size_t o = 0; o < kObjectCount; ++o) {
      if (!wanted()) continue;
      fresh_objects();
      const int flags = without_waiting(kObjects[o].path, access->value | kModifiers[m].value);
      errno = 0;
      const long fd = call(kObjects[o].path, flags);
      const int error = errno;
      report_open(text("%s(%s, %s%s)", name, kObjects[o].label, access->name, kModifiers[m].name), &kObjects[o], fd, error,
                  flags);
    }
  }
}

static long by_open(const char* path, int flags) { return syscall(SYS_open, path, flags, 0644); }

static long by_openat(const char* path, int flags) { return syscall(SYS_openat, AT_FDCWD, path, flags, 0644); }

static long by_openat2(const char* path, int flags) {
  const int makes = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY));
  struct open_how how = {.flags = (unsigned)flags, .mode = makes ? 0644 : 0};
  return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static void creats(void) {
  for (size_t o = 0; o < kObjectCount; ++o) {
    fresh_objects();
    if (strncmp(kObjects[o].label, "fifo", 4) == 0) continue; /* would wait for a reader */
    errno = 0;
    const long fd = syscall(SYS_creat, kObjects[o].path, 0600);
    report_open(text("creat(%s)", kObjects[o].label), &kObjects[o], fd, errno, O_CREAT);
  }
}

static void openat2_scopes(void) {
  static const struct Flag kScopes[] = {{"BENEATH", RESOLVE_BENEATH},
                                        {"IN_ROOT", RESOLVE_IN_ROOT},
                                        {"NO_SYMLINKS", RESOLVE_NO_SYMLINKS},
                                        {"NO_SYMLINKS|BENEATH", RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH},
                                        {"BENEATH|IN_ROOT", RESOLVE_BENEATH | RESOLVE_IN_ROOT},
                                        {"unknown", 0x4000}};
  for (size_t s = 0; s < COUNT(kScopes); ++s) {
    for (size_t o = 0; o < kObjectCount; ++o) {
      for (int creates = 0; creates < 2; ++creates) {
        if (!wanted()) continue;
        fresh_objects();
        struct open_how how = {.flags = creates ? O_RDWR | O_CREAT : O_RDONLY | O_NONBLOCK,
                               .mode = creates ? 0640 : 0,
                               .resolve = (unsigned)kScopes[s].value};
        errno = 0;
        const long fd = syscall(SYS_openat2, AT_FDCWD, kObjects[o].path, &how, sizeof how);
        const int error = errno;
        report_open(text("openat2(%s, %s, %s)", kObjects[o].label, creates ? "RDWR|CREAT" : "RDONLY", kScopes[s].name),
                    &kObjects[o], fd, error, creates ? O_CREAT : 0);
      }
    }
  }
}

static void openat2_arguments(void) {
  struct {
    struct open_how how;
    char more[64];
  } room;
  static const struct {
    const char* what;
    size_t size;
    unsigned long flags, mode;
    int more;
  } kCases[] = {{"size 0", 0, 0, 0, 0},
                {"size 23", 23, 0, 0, 0},
                {"size 24", 24, 0, 0, 0},
                {"size 32, zeros", 32, 0, 0, 0},
                {"size 32, not zeros", 32, 0, 0, 1},
                {"size 8192", 8192, 0, 0, 0},
                {"unknown flag", 24, 1ul << 40, 0, 0},
                {"unknown low flag", 24, 1ul << 30, 0, 0},
                {"mode without O_CREAT", 24, 0, 0644, 0},
                {"mode beyond 07777", 24, O_CREAT | O_WRONLY, 010644, 0},
                {"mode 06755", 24, O_CREAT | O_WRONLY, 06755, 0}};
  for (size_t i = 0; i < COUNT(kCases); ++i) {
    fresh_objects();
    memset(&room, 0, sizeof room);
    room.how.flags = kCases[i].flags;
    room.how.mode = kCases[i].mode;
    if (kCases[i].more) memset(room.more, 1, sizeof room.more);
    const struct Object object = {"x", kCases[i].flags & O_CREAT ? "made" : "file"};
    errno = 0;
    const long fd = syscall(SYS_openat2, AT_FDCWD, object.path, &room, kCases[i].size);
    report_open(text("openat2(%s)", kCases[i].what), &object, fd, errno, (int)kCases[i].flags);
  }
  errno = 0;
  const long fd = syscall(SYS_openat2, AT_FDCWD, "file", (void*)8, 24);
  CALL("openat2(bad pointer to how)", fd, "");
}

static void directory_arguments(void) {
  const int here = open(".", O_RDONLY | O_DIRECTORY), pinned = open("dir", O_PATH | O_DIRECTORY);
  const int file = open("file", O_RDONLY), closed = dup(here);
  int ends[2];
  must(here >= 0 && pinned >= 0 && file >= 0 && closed >= 0 && pipe(ends) == 0, "descriptors");
  close(closed);
  const struct Flag dirs[] = {{"dirfd", here}, {"O_PATH dirfd", pinned}, {"file fd", file}, {"closed fd", closed},
                              {"-1", -1},      {"9999", 9999},           {"pipe", ends[0]}, {"AT_FDCWD", AT_FDCWD}};
  static const struct Object kPaths[] = {{"file", "file"}, {"inside", "inside"}, {"../file", "../file"}, {"../objects/file", "../objects/file"},
                                         {"(empty)", ""},  {".", "."},           {"..", ".."},
                                         {"/", "/"},       {"new", "new"},       {"(bad pointer)", (const char*)8}};
  static const struct Flag kHow[] = {{"RDONLY", O_RDONLY}, {"WRONLY|CREAT|EXCL", O_WRONLY | O_CREAT | O_EXCL}, {"PATH", O_PATH}};
  for (size_t d = 0; d < COUNT(dirs); ++d) {
    for (size_t p = 0; p < COUNT(kPaths); ++p) {
      for (size_t h = 0; h < COUNT(kHow); ++h) {
        errno = 0;
        const long fd = syscall(SYS_openat, dirs[d].value, kPaths[p].path, kHow[h].value, 0644);
        const int error = errno;
        line(text("openat(%s, %s, %s)", dirs[d].name, kPaths[p].label, kHow[h].name), fd, error, fd >= 0 ? describe_fd((int)fd) : "");
        if (fd >= 0) close((int)fd);
        unlink("new");
        unlink("dir/new");
        unlink("../file");
        unlink("../inside");
      }
    }
  }
  close(here), close(pinned), close(file), close(ends[0]), close(ends[1]);
}

/* What the umask leaves of a mode, for everything that makes a file. */
static void modes(void) {
  static const int kMasks[] = {0, 022, 027, 077, 0777};
  static const int kModes[] = {0, 0400, 0644, 0666, 0755, 0777, 01777, 02755, 04755, 07777};
  for (size_t u = 0; u < COUNT(kMasks); ++u) {
    for (size_t m = 0; m < COUNT(kModes); ++m) {
      if (!wanted()) continue;
      fresh_objects();
      umask((mode_t)kMasks[u]);
      const mode_t mode = (mode_t)kModes[m];
      const char* with = text("umask %o, mode %o", kMasks[u], kModes[m]);
      int fd = open("a", O_CREAT | O_RDWR | O_EXCL, mode);
      CALL(text("open(%s)", with), fd, describe_path("a"));
      if (fd >= 0) close(fd);
      fd = creat("b", mode);
      CALL(text("creat(%s)", with), fd, describe_path("b"));
      if (fd >= 0) close(fd);
      fd = open(".", O_TMPFILE | O_RDWR, mode);
      CALL(text("O_TMPFILE(%s)", with), fd, fd >= 0 ? describe_fd(fd) : "");
      if (fd >= 0) close(fd);
      CALL(text("mkdir(%s)", with), mkdir("c", mode), describe_path("c"));
      CALL(text("mkfifo(%s)", with), mkfifo("d", mode), describe_path("d"));
      CALL(text("mknod(S_IFREG, %s)", with), mknod("e", S_IFREG | mode, 0), describe_path("e"));
      umask(022);
      changed();
    }
  }
}

/* A chain of links: the kernel follows 40 and no more. */
static void link_chains(void) {
  fresh_objects();
  must(symlink("file", "chain1") == 0, "chain");
  for (int i = 2; i <= 42; ++i) must(symlink(text("chain%d", i - 1), text("chain%d", i)) == 0, "chain");
  for (int i = 38; i <= 42; ++i) {
    errno = 0;
    const int fd = open(text("chain%d", i), O_RDONLY);
    CALL(text("open(chain of %d links)", i), fd, fd >= 0 ? describe_fd(fd) : "");
    if (fd >= 0) close(fd);
    CALL(text("chmod(chain of %d links)", i), chmod(text("chain%d", i), 0644), "");
    CALL(text("stat(chain of %d links)", i), access(text("chain%d", i), F_OK), "");
  }
  changed();
}

void open_matrix(void) {
  for (size_t a = 0; a < COUNT(kAccess); ++a) {
    opens_by("open", by_open, &kAccess[a], 1);
    opens_by("openat", by_openat, &kAccess[a], 3);
    opens_by("openat2", by_openat2, &kAccess[a], 1);
  }
  creats();
  openat2_scopes();
  openat2_arguments();
  fresh_objects();
  directory_arguments();
  modes();
  link_chains();
}
