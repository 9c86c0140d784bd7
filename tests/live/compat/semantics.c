/* usage: certgate_semantics DIRECTORY STRIDE [PART...]
 *
 * Makes DIRECTORY and DIRECTORY/objects, performs the calls of the named parts (default: all) there,
 * prints a line for each. Of the large matrices every STRIDE-th combination.
 */
#define _GNU_SOURCE
#include "semantics.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char name_of_255[256], name_of_256[257], path_of_4095[4096], path_of_4096[4097];

const struct Object kObjects[] = {
    {"file", "file"},
    {"file_0444", "readonly"},
    {"file_0000", "forbidden"},
    {"dir", "dir"},
    {"dir_0555", "dir_readonly"},
    {"dir_0000", "dir_forbidden"},
    {"dir_empty", "dir_empty"},
    {"link_to_file", "link"},
    {"link_to_dir", "link_dir"},
    {"link_dangling", "dangling"},
    {"link_loop", "loop"},
    {"link_to_missing_parent", "far"},
    {"fifo", "fifo"},
    {"socket", "socket"},
    {"missing", "missing"},
    {"missing_parent", "missing/child"},
    {"below_file", "file/child"},
    {"below_dir", "dir/inside"},
    {"below_dir_0555", "dir_readonly/inside"},
    {"new_below_dir_0555", "dir_readonly/missing"},
    {"below_dir_0000", "dir_forbidden/inside"},
    {"below_link_dir", "link_dir/inside"},
    {"below_dangling", "dangling/child"},
    {"below_loop", "loop/child"},
    {"file/", "file/"},
    {"dir/", "dir/"},
    {"link_to_file/", "link/"},
    {"link_to_dir/", "link_dir/"},
    {"link_dangling/", "dangling/"},
    {"link_loop/", "loop/"},
    {"missing/", "missing/"},
    {"fifo/", "fifo/"},
    {"dir//inside", "dir//inside"},
    {"dir/.", "dir/."},
    {"dir/..", "dir/.."},
    {"dir_empty/.", "dir_empty/."},
    {"missing/.", "missing/."},
    {"file/.", "file/."},
    {"file/..", "file/.."},
    {"(empty)", ""},
    {".", "."},
    {"..", ".."},
    {"./", "./"},
    {"/", "/"},
    {"name_of_255", name_of_255},
    {"name_of_256", name_of_256},
    {"path_of_4095", path_of_4095},
    {"path_of_4096", path_of_4096},
    {"(null)", NULL},
    {"(bad pointer)", (const char*)8},
    {"/proc/self/cwd/file", "/proc/self/cwd/file"},
    {"/proc/self/cwd/missing", "/proc/self/cwd/missing"},
    {"/dev/null", "/dev/null"},
    {"/etc/passwd", "/etc/passwd"},
    {"/etc/missing", "/etc/missing"},
};
const size_t kObjectCount = sizeof kObjects / sizeof *kObjects;

static char outer[4096], inner[4096]; /* absolute, since a call may take "." the right to be searched */
static int is_changed = 1;
static long lines, combinations, stride = 1;

void changed(void) { is_changed = 1; }

int wanted(void) { return combinations++ % stride == 0; }

void must(int condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "semantics: %s: %s\n", what, strerror(errno));
  exit(2);
}

const char* text(const char* format, ...) {
  static char rooms[16][1024];
  static unsigned next;
  char* room = rooms[next++ % 16];
  va_list list;
  va_start(list, format);
  vsnprintf(room, sizeof rooms[0], format, list);
  va_end(list);
  return room;
}

void line(const char* call, long result, int error, const char* after) {
  ++lines;
  printf("%s = %ld", call, result);
  if (result == -1) printf(" %s", error != 0 ? strerrorname_np(error) : "no errno");
  printf("%s%s\n", *after != '\0' ? " " : "", after);
}

const char* describe_fd(int fd) {
  struct stat s;
  if (fstat(fd, &s) != 0) return strerrorname_np(errno);
  const int flags = fcntl(fd, F_GETFL), kept = fcntl(fd, F_GETFD);
  const long size = S_ISREG(s.st_mode) ? (long)s.st_size : -1;
  return text("mode %o size %ld flags %o fdflags %d", s.st_mode, size, (unsigned)flags, kept);
}

const char* describe_path(const char* path) {
  struct stat s;
  if (lstat(path, &s) != 0) return text("none (%s)", strerrorname_np(errno));
  const long size = S_ISDIR(s.st_mode) ? -1 : (long)s.st_size;
  return text("mode %o links %lu size %ld owner %u:%u", s.st_mode, (unsigned long)s.st_nlink, size, s.st_uid, s.st_gid);
}

static void empty_directory(const char* path, int keep) {
  if (!keep) chmod(path, 0700);
  DIR* dir = opendir(path);
  must(dir != NULL, path);
  for (struct dirent* entry; (entry = readdir(dir)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    char child[4096];
    snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
    if (entry->d_type == DT_DIR)
      empty_directory(child, 0);
    else
      must(unlink(child) == 0, child);
  }
  closedir(dir);
  if (!keep) must(rmdir(path) == 0, path);
}

static void make_file(const char* name, mode_t mode) {
  const int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
  must(fd >= 0 && write(fd, "hello", 5) == 5 && fchmod(fd, mode) == 0, name);
  close(fd);
}

static void make_dir(const char* name, mode_t mode) {
  must(mkdir(name, 0700) == 0, name);
  make_file(text("%s/inside", name), 0644);
  must(chmod(name, mode) == 0, name);
}

void fresh_objects(void) {
  if (!is_changed) return;
  const mode_t before = umask(0);
  must(chmod(outer, 0755) == 0 && chmod(inner, 0755) == 0, inner);
  empty_directory(".", 1);
  make_file("file", 0644);
  make_file("readonly", 0444);
  make_file("forbidden", 0);
  make_dir("dir", 0755);
  make_dir("dir_readonly", 0555);
  make_dir("dir_forbidden", 0);
  must(mkdir("dir_empty", 0755) == 0, "dir_empty");
  must(symlink("file", "link") == 0 && symlink("dir", "link_dir") == 0, "links");
  must(symlink("nowhere", "dangling") == 0 && symlink("loop", "loop") == 0, "links");
  must(symlink("nowhere/deep", "far") == 0, "links");
  must(mkfifo("fifo", 0644) == 0, "fifo");
  must(mknod("socket", S_IFSOCK | 0644, 0) == 0, "socket");
  umask(before);
  is_changed = 0;
}

int in_child(void (*body)(const void*), const void* argument) {
  fflush(stdout);
  const pid_t child = fork();
  must(child >= 0, "fork");
  if (child == 0) {
    body(argument);
    fflush(stdout);
    _exit(0);
  }
  int status = 0;
  must(waitpid(child, &status, 0) == child, "waitpid");
  return status;
}

static void make_long_names(void) {
  memset(name_of_255, 'n', 255);
  memset(name_of_256, 'n', 256);
  for (size_t i = 0; i + 1 < 4095 - 4; i += 2) memcpy(path_of_4095 + i, "./", 2);
  strcat(path_of_4095, "/file");
  must(strlen(path_of_4095) == 4095, "path of 4095");
  snprintf(path_of_4096, sizeof path_of_4096, "/%s", path_of_4095);
}

static const struct {
  const char* name;
  void (*run)(void);
} kParts[] = {{"open", open_matrix},
              {"change", change_matrix},
              {"descriptor", descriptor_cases},
              {"exec", exec_cases},
              {"socket", socket_cases}};

int main(int argc, char** argv) {
  if (argc < 3 || (stride = atol(argv[2])) < 1) {
    fprintf(stderr, "usage: certgate_semantics DIRECTORY STRIDE [PART...]\n");
    return 2;
  }
  static char room[1 << 16];
  setvbuf(stdout, room, _IOFBF, sizeof room);
  make_long_names();
  umask(022);
  must(mkdir(argv[1], 0755) == 0 && realpath(argv[1], outer) != NULL, argv[1]);
  must((size_t)snprintf(inner, sizeof inner, "%s/objects", outer) < sizeof inner, argv[1]);
  must(mkdir(inner, 0755) == 0 && chdir(inner) == 0, inner);
  for (size_t i = 0; i < sizeof kParts / sizeof *kParts; ++i) {
    int named = argc == 3;
    for (int a = 3; a < argc; ++a) named |= strcmp(argv[a], kParts[i].name) == 0;
    if (!named) continue;
    changed();
    fresh_objects();
    kParts[i].run();
  }
  changed();
  fresh_objects();
  return fflush(stdout) == 0 && lines > 0 ? 0 : 2;
}
