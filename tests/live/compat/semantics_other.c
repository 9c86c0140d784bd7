/* Descriptors, locks, FIFOs, odd names; exec. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "semantics.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void lowest_free(void) {
  int fds[6];
  for (int i = 0; i < 6; ++i) fds[i] = open("file", O_RDONLY);
  for (int i = 0; i < 6; ++i) CALL(text("open no. %d", i), fds[i], "");
  close(fds[1]), close(fds[4]);
  int fd = open("dir", O_RDONLY | O_DIRECTORY);
  CALL("open after two closes", fd, "");
  CALL("dup after it", dup(0), "");
  CALL("open after it", open("file", O_PATH), "");
  CALL("F_DUPFD 20", fcntl(0, F_DUPFD, 20), "");
  CALL("dup2 to 30", dup2(0, 30), "");
  CALL("close_range", syscall(SYS_close_range, 3, ~0u, 0), "");
  CALL("open after close_range", open("file", O_RDONLY), "");
  close(0);
  CALL("open after close(0)", open("/dev/null", O_RDONLY), "");
  syscall(SYS_close_range, 3, ~0u, 0);
}

static void emfile(const void* unused) {
  (void)unused;
  const struct rlimit limit = {8, 8};
  must(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
  for (int i = 0; i < 7; ++i) {
    const int fd = open("file", O_RDONLY);
    CALL(text("open no. %d of at most 8 descriptors", i), fd, "");
  }
  CALL("openat at the limit", openat(AT_FDCWD, "file", O_RDWR), "");
  CALL("open of missing at the limit", open("missing", O_RDONLY), "");
  CALL("open O_PATH at the limit", open("file", O_PATH), "");
  CALL("socket at the limit", socket(AF_UNIX, SOCK_STREAM, 0), "");
  CALL("open O_CREAT at the limit", open("made", O_RDWR | O_CREAT, 0644), describe_path("made"));
  CALL("open O_TRUNC at the limit", open("file", O_RDWR | O_TRUNC), describe_path("file"));
  CALL("unlink at the limit", unlink("link"), "");
  CALL("mkdir at the limit", mkdir("made_dir", 0755), "");
  close(7);
  CALL("open after close(7)", open("dir", O_RDONLY), "");
}

static void appending(void) {
  const int a = open("grows", O_WRONLY | O_CREAT | O_APPEND, 0644), b = open("grows", O_WRONLY | O_APPEND);
  must(write(a, "aa", 2) == 2 && write(b, "bb", 2) == 2 && write(a, "cc", 2) == 2, "append");
  CALL("lseek after O_APPEND", lseek(a, 0, SEEK_CUR), describe_path("grows"));
  CALL("pwrite to O_APPEND", pwrite(b, "dd", 2, 0), describe_path("grows"));
  close(a), close(b);
  const int fd = open("file", O_RDONLY);
  CALL("write to O_RDONLY", write(fd, "x", 1), "");
  close(fd);
  const int w = open("file", O_WRONLY);
  char byte;
  CALL("read from O_WRONLY", read(w, &byte, 1), "");
  CALL("lseek before the start", lseek(w, -1, SEEK_SET), "");
  CALL("SEEK_HOLE", lseek(w, 0, SEEK_HOLE), "");
  CALL("fallocate", fallocate(w, 0, 0, 100), describe_path("file"));
  close(w);
  const int dir = open("dir", O_RDONLY);
  CALL("read from a directory", read(dir, &byte, 1), "");
  CALL("fchdir", fchdir(dir), "");
  CALL("open after fchdir", open("inside", O_RDONLY), "");
  must(chdir("..") == 0, "chdir ..");
  syscall(SYS_close_range, 3, ~0u, 0);
  changed();
}

static void lock_in_child(const void* argument) {
  const int fd = *(const int*)argument, own = open("file", O_RDWR), read_only = open("file", O_RDONLY);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 2};
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  CALL("  child: flock(EX|NB, own descriptor)", flock(own, LOCK_EX | LOCK_NB), "");
  CALL("  child: flock(SH|NB, own descriptor)", flock(own, LOCK_SH | LOCK_NB), "");
  CALL("  child: flock(EX|NB, inherited)", flock(fd, LOCK_EX | LOCK_NB), "");
  CALL("  child: F_SETLK write", fcntl(own, F_SETLK, &range), "");
  CALL("  child: F_SETLK write by O_RDONLY", fcntl(read_only, F_SETLK, &range), "");
  range.l_type = F_RDLCK;
  CALL("  child: F_SETLK read", fcntl(read_only, F_SETLK, &range), "");
  CALL("  child: F_OFD_SETLK", fcntl(own, F_OFD_SETLK, &whole), "");
  whole.l_pid = 0;
  long result = fcntl(own, F_GETLK, &whole);
  CALL("  child: F_GETLK", result, text("type %d pid is parent %d", whole.l_type, whole.l_pid == getppid()));
  CALL("  child: F_SETLEASE read", fcntl(read_only, F_SETLEASE, F_RDLCK), "");
}

static void locks(void) {
  const int fd = open("file", O_RDWR), other = open("file", O_RDWR);
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 2};
  CALL("flock(SH)", flock(fd, LOCK_SH), "");
  CALL("flock(EX|NB) by another open", flock(other, LOCK_EX | LOCK_NB), "");
  CALL("flock(EX)", flock(fd, LOCK_EX), "");
  CALL("flock(bad)", flock(fd, 99), "");
  CALL("F_SETLK", fcntl(fd, F_SETLK, &range), "");
  CALL("F_SETLK again", fcntl(other, F_SETLK, &range), "");
  in_child(lock_in_child, &fd);
  flock(fd, LOCK_UN);
  close(other); /* takes every POSIX lock of ours on the file with it */
  in_child(lock_in_child, &fd);
  range.l_start = 0;
  CALL("F_OFD_SETLK", fcntl(fd, F_OFD_SETLK, &range), "");
  in_child(lock_in_child, &fd);
  range.l_pid = 7;
  CALL("F_OFD_SETLK with a pid", fcntl(fd, F_OFD_SETLK, &range), "");
  const int path = open("file", O_PATH);
  CALL("flock(O_PATH)", flock(path, LOCK_SH), "");
  CALL("fcntl(F_SETLK, O_PATH)", fcntl(path, F_SETLK, &range), "");
  syscall(SYS_close_range, 3, ~0u, 0);
}

static void on_alarm(int signal) { (void)signal; }

static void open_fifo_with_alarm(const void* flags) {
  struct sigaction action = {.sa_handler = on_alarm};
  sigaction(SIGALRM, &action, NULL);
  alarm(1);
  const int fd = open("fifo", *(const int*)flags);
  CALL(text("open(fifo, %s), interrupted", *(const int*)flags == O_RDONLY ? "RDONLY" : "WRONLY"), fd, "");
}

/* An alarm that does not interrupt must not stop the matrix: after two more seconds a writer comes. */
static void fifo_interrupted(int flags) {
  fflush(stdout);
  const pid_t helper = fork();
  must(helper >= 0, "fork");
  if (helper == 0) {
    sleep(3);
    _exit(open("fifo", (flags == O_RDONLY ? O_WRONLY : O_RDONLY) | O_NONBLOCK) >= 0 ? 0 : 1);
  }
  in_child(open_fifo_with_alarm, &flags);
  kill(helper, SIGKILL);
  waitpid(helper, NULL, 0);
}

static void fifos(void) {
  fresh_objects();
  const int lonely = open("fifo", O_WRONLY | O_NONBLOCK);
  CALL("open(fifo, WRONLY|NONBLOCK) without a reader", lonely, "");
  fflush(stdout);
  const pid_t child = fork();
  must(child >= 0, "fork");
  if (child == 0) {
    const int w = open("fifo", O_WRONLY);
    _exit(w >= 0 && write(w, "through", 7) == 7 ? 0 : 1);
  }
  const int r = open("fifo", O_RDONLY);
  char got[16] = {0};
  const long n = read(r, got, 15);
  CALL("read from a fifo's writer", n, got);
  CALL("read at its end", read(r, got, 15), "");
  int status = 0;
  waitpid(child, &status, 0);
  line("the writer's status", status, 0, "");
  close(r);
  fifo_interrupted(O_RDONLY);
  fifo_interrupted(O_WRONLY);
}

/* Up to PATH_MAX and beyond by chdir, and names that are no UTF-8. */
static void odd_names(void) {
  fresh_objects();
  must(mkdir("deep", 0755) == 0 && chdir("deep") == 0, "deep");
  char name[201];
  memset(name, 'd', 200);
  name[200] = '\0';
  for (int i = 0; i < 18; ++i) must(mkdir(name, 0755) == 0 && chdir(name) == 0, "deep directory");
  int fd = open("bottom", O_CREAT | O_RDWR, 0644);
  CALL("open below 3600 characters of path", fd, "");
  if (fd >= 0) close(fd);
  CALL("mkdir there", mkdir("sub", 0755), describe_path("sub"));
  CALL("rename there", rename("bottom", "sub/moved"), "");
  CALL("open for reading there", fd = open("sub/moved", O_RDONLY), "");
  if (fd >= 0) close(fd);
  CALL("chmod there", chmod("sub/moved", 0600), describe_path("sub/moved"));
  CALL("unlink there", unlink("sub/moved"), "");
  CALL("rmdir there", rmdir("sub"), "");
  unlink("bottom");
  char room[8192];
  CALL("getcwd there", syscall(SYS_getcwd, room, sizeof room) > 0 ? 0 : -1, "");
  int beyond = 0;
  while (beyond < 5 && mkdir(name, 0755) == 0 && chdir(name) == 0) ++beyond;
  line("levels of 200 characters beyond PATH_MAX", beyond, 0, "");
  for (int i = 0; i < 18 + beyond; ++i) must(chdir("..") == 0 && rmdir(name) == 0, "deep directory");
  must(chdir("..") == 0, "deep");
  static const char* kNames[] = {"\xff\xfe", "new\nline", "tab\tname", "\x1b[31mred", "sp ace", "\x01", "-rf", "a\\b", "\xc3\x28"};
  for (size_t i = 0; i < COUNT(kNames); ++i) {
    fd = open(kNames[i], O_CREAT | O_RDWR | O_EXCL, 0644);
    CALL(text("odd name %zu: open", i), fd, "");
    if (fd >= 0) close(fd);
    CALL(text("odd name %zu: rename", i), rename(kNames[i], text("%s2", kNames[i])), describe_path(text("%s2", kNames[i])));
    CALL(text("odd name %zu: unlink", i), unlink(text("%s2", kNames[i])), "");
  }
  changed();
}

/* A working directory that is gone. */
static void lost_directory(const void* unused) {
  (void)unused;
  must(mkdir("lost", 0755) == 0 && chdir("lost") == 0 && rmdir("../lost") == 0, "lost");
  CALL("open in a deleted directory", open("x", O_RDONLY), "");
  CALL("create in a deleted directory", open("x", O_CREAT | O_RDWR, 0644), "");
  CALL("mkdir in a deleted directory", mkdir("x", 0755), "");
  CALL("open . in a deleted directory", open(".", O_RDONLY), "");
  CALL("open .. from a deleted directory", open("..", O_RDONLY), "");
  CALL("chmod . of a deleted directory", chmod(".", 0700), "");
  CALL("open an absolute path from there", open("/dev/null", O_RDONLY), "");
}

static void own_proc(void) {
  const int fd = open("file", O_RDONLY);
  const char* link = text("/proc/self/fd/%d", fd);
  char target[4096] = {0};
  const long n = readlink(link, target, sizeof target - 1);
  CALL("readlink of /proc/self/fd", n > 0 ? 0 : -1, n > 5 ? target + n - 5 : "");
  const int again = open(link, O_RDWR);
  CALL("reopen through /proc/self/fd", again, again >= 0 ? describe_fd(again) : "");
  CALL("O_NOFOLLOW of /proc/self/fd", open(link, O_RDONLY | O_NOFOLLOW), "");
  CALL("O_CREAT through /proc/self/fd", open(link, O_RDWR | O_CREAT, 0644), "");
  unlink("file");
  changed();
  const int gone = open(link, O_RDONLY);
  CALL("reopen of a deleted file", gone, gone >= 0 ? describe_fd(gone) : "");
  CALL("/dev/fd", open(text("/dev/fd/%d", fd), O_RDONLY), "");
  CALL("/proc/self/fd of a closed one", open("/proc/self/fd/77", O_RDONLY), "");
  CALL("/proc/self/status", open("/proc/self/status", O_RDONLY), "");
  CALL("/proc/self/status for writing", open("/proc/self/status", O_WRONLY), "");
  CALL("/proc/self/nothing", open("/proc/self/nothing", O_RDONLY), "");
  CALL("/proc/thread-self/comm for writing", open("/proc/thread-self/comm", O_WRONLY), "");
  CALL("/proc/1/root", open("/proc/999999/root", O_RDONLY), "");
  int ends[2];
  must(pipe(ends) == 0, "pipe");
  const int reader = open(text("/proc/self/fd/%d", ends[0]), O_RDONLY | O_NONBLOCK);
  CALL("reopen of a pipe", reader, reader >= 0 ? describe_fd(reader) : "");
  const int s = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL("reopen of a socket", open(text("/proc/self/fd/%d", s), O_RDONLY), "");
  syscall(SYS_close_range, 3, ~0u, 0);
}

void descriptor_cases(void) {
  lowest_free();
  in_child(emfile, NULL);
  changed();
  fresh_objects();
  appending();
  fresh_objects();
  locks();
  fifos();
  odd_names();
  fresh_objects();
  in_child(lost_directory, NULL);
  fresh_objects();
  own_proc();
  fresh_objects();
}

/* ---- exec ---- */

struct Exec {
  const char* label;
  const char* path;
  char** argv;
  char** env;
  int dirfd, flags; /* flags -1: execve */
};

enum { kFailedWith = 100 }; /* exit status of a child whose exec failed, less the errno */

static void exec_body(const void* argument) {
  const struct Exec* e = argument;
  if (e->flags < 0)
    syscall(SYS_execve, e->path, e->argv, e->env);
  else
    syscall(SYS_execveat, e->dirfd, e->path, e->argv, e->env, e->flags);
  _exit(kFailedWith + errno);
}

static void try_exec(const struct Exec* e) {
  const int status = in_child(exec_body, e);
  const int code = WEXITSTATUS(status);
  if (WIFSIGNALED(status))
    line(text("exec(%s)", e->label), 0, 0, text("signal %d", WTERMSIG(status)));
  else if (code > kFailedWith)
    line(text("exec(%s)", e->label), -1, code - kFailedWith, "");
  else
    line(text("exec(%s)", e->label), 0, 0, text("exit %d", code));
}

static void write_program(const char* name, const char* content, size_t size, mode_t mode) {
  const int fd = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0700);
  must(fd >= 0 && write(fd, content, size) == (ssize_t)size && fchmod(fd, mode) == 0, name);
  close(fd);
}

static void make_programs(void) {
  static const struct {
    const char* name;
    const char* content;
    mode_t mode;
  } kPrograms[] = {{"good", "#!/bin/sh\nexit 7\n", 0755},
                   {"arguments", "#!/bin/sh -e\necho \"$0\" \"$@\"\n", 0755},
                   {"spaces", "#!  /bin/sh   -e  \nexit 8\n", 0755},
                   {"not_executable", "#!/bin/sh\nexit 7\n", 0644},
                   {"no_interpreter", "#!/missing/interpreter\n", 0755},
                   {"directory_interpreter", "#!/tmp\n", 0755},
                   {"plain_interpreter", "#!/etc/passwd\n", 0755},
                   {"relative_interpreter", "#!./good\n", 0755},
                   {"empty_interpreter", "#!\nexit 1\n", 0755},
                   {"blank_interpreter", "#!   \nexit 1\n", 0755},
                   {"empty", "", 0755},
                   {"garbage", "\x01\x02\x03garbage", 0755},
                   {"text", "exit 9\n", 0755},
                   {"elf_stub", "\x7f" "ELF", 0755},
                   {"itself", "#!./itself\n", 0755},
                   {"chain0", "#!/bin/sh\nexit 5\n", 0755},
                   {"chain1", "#!./chain0\n", 0755},
                   {"chain2", "#!./chain1\n", 0755},
                   {"chain3", "#!./chain2\n", 0755},
                   {"chain4", "#!./chain3\n", 0755},
                   {"chain5", "#!./chain4\n", 0755},
                   {"execute_only", "#!/bin/sh\nexit 7\n", 0111},
                   {"setuid", "#!/bin/sh\nexit 7\n", 04755}};
  for (size_t i = 0; i < COUNT(kPrograms); ++i)
    write_program(kPrograms[i].name, kPrograms[i].content, strlen(kPrograms[i].content), kPrograms[i].mode);
  char deep[300] = "#!/";
  memset(deep + 3, 'x', 290);
  write_program("long_interpreter", deep, 294, 0755);
  must(symlink("good", "good_link") == 0, "good_link");
}

/* The search of a shell: what each candidate answers decides the errno of the whole. */
static void path_search(const void* path) {
  setenv("PATH", path, 1);
  char* argv[] = {"prog", NULL};
  execvp("prog", argv);
  CALL(text("execvp with PATH=%s", (const char*)path), -1, "");
}

static void path_searches(void) {
  must(mkdir("bin_missing", 0755) == 0 && mkdir("bin_plain", 0755) == 0 && mkdir("bin_good", 0755) == 0, "bins");
  must(mkdir("bin_dir", 0755) == 0 && mkdir("bin_dir/prog", 0755) == 0, "bins");
  write_program("bin_plain/prog", "#!/bin/sh\nexit 7\n", 17, 0644);
  write_program("bin_good/prog", "#!/bin/sh\nexit 7\n", 17, 0755);
  static const char* kPaths[] = {"bin_missing",         "nowhere",
                                 "bin_plain",           "bin_missing:bin_plain:nowhere",
                                 "bin_dir",             "file",
                                 "file:bin_dir",        "dir_forbidden",
                                 "bin_plain:bin_good",  "dir_forbidden:file:bin_dir:bin_good",
                                 "loop:bin_missing",    ""};
  for (size_t i = 0; i < COUNT(kPaths); ++i) {
    const int status = in_child(path_search, kPaths[i]);
    line(text("status with PATH=%s", kPaths[i]), WEXITSTATUS(status), 0, "");
  }
}

/* What argv and environ arrive as. */
static void arguments(void) {
  static char big[140000];
  memset(big, 'x', sizeof big - 1);
  char* one[] = {"zero", "one", "", "two words", "\xff\xfe", NULL};
  char* huge[] = {"zero", big, NULL};
  char* env[] = {"A=1", "PATH=/usr/bin:/bin", "no_equals", NULL};
  char* none[] = {NULL};
  char* bad[] = {"zero", (char*)8, NULL};
  const struct Exec cases[] = {{"script with arguments", "arguments", one, env, 0, -1},
                               {"argv NULL", "/usr/bin/true", NULL, env, 0, -1},
                               {"argv empty", "/usr/bin/true", none, env, 0, -1},
                               {"script with argv empty", "good", none, env, 0, -1},
                               {"envp NULL", "/usr/bin/env", one, NULL, 0, -1},
                               {"argv bad pointer", "/usr/bin/true", (char**)8, env, 0, -1},
                               {"argv bad string", "/usr/bin/true", bad, env, 0, -1},
                               {"envp bad pointer", "/usr/bin/true", one, (char**)8, 0, -1},
                               {"argument of 140000", "/usr/bin/true", huge, env, 0, -1},
                               {"missing, bad argv", "missing", (char**)8, env, 0, -1}};
  for (size_t i = 0; i < COUNT(cases); ++i) try_exec(&cases[i]);
}

void exec_cases(void) {
  fresh_objects();
  changed();
  make_programs();
  char* argv[] = {"name", "a", NULL};
  char* env[] = {"PATH=/usr/bin:/bin", NULL};
  for (size_t o = 0; o < kObjectCount; ++o) {
    const struct Exec e = {kObjects[o].label, kObjects[o].path, argv, env, 0, -1};
    try_exec(&e);
  }
  DIR* dir = opendir(".");
  static const char* kNames[] = {"good", "arguments", "spaces", "not_executable", "no_interpreter", "directory_interpreter",
                                 "plain_interpreter", "relative_interpreter", "empty_interpreter", "blank_interpreter", "empty",
                                 "garbage", "text", "elf_stub", "itself", "chain0", "chain1", "chain2", "chain3", "chain4", "chain5",
                                 "execute_only", "setuid", "long_interpreter", "good_link", "./good", "good/"};
  for (size_t i = 0; i < COUNT(kNames); ++i) {
    const struct Exec e = {kNames[i], kNames[i], argv, env, 0, -1};
    try_exec(&e);
  }
  const int here = dirfd(dir), program = open("good", O_RDONLY), binary = open("/usr/bin/true", O_PATH | O_CLOEXEC),
            kept = open("/usr/bin/true", O_RDONLY);
  const struct Exec at[] = {{"execveat dirfd", "good", argv, env, here, 0},
                            {"execveat link, NOFOLLOW", "good_link", argv, env, AT_FDCWD, AT_SYMLINK_NOFOLLOW},
                            {"execveat empty path without flag", "", argv, env, binary, 0},
                            {"execveat binary by descriptor", "", argv, env, binary, AT_EMPTY_PATH},
                            {"execveat binary by kept descriptor", "", argv, env, kept, AT_EMPTY_PATH},
                            {"execveat script by descriptor", "", argv, env, program, AT_EMPTY_PATH},
                            {"execveat directory by descriptor", "", argv, env, here, AT_EMPTY_PATH},
                            {"execveat bad flag", "good", argv, env, AT_FDCWD, 0x40},
                            {"execveat bad descriptor", "good", argv, env, 77, 0},
                            {"execveat bad descriptor, absolute", "/usr/bin/true", argv, env, 77, 0},
                            {"execveat file as directory", "good", argv, env, program, 0}};
  for (size_t i = 0; i < COUNT(at); ++i) try_exec(&at[i]);
  arguments();
  path_searches();
  const int writer = open("good", O_WRONLY);
  const struct Exec busy = {"held open for writing", "good", argv, env, 0, -1};
  try_exec(&busy);
  close(writer), close(program), close(binary), close(kept);
  closedir(dir);
  changed();
}
