// Ways to run a program that may not run, and races for what an exec means. The forbidden program
// prints that it ran.
#define GROUP "exec"
#include "attack.h"

#define JUDGED "exec is judged"
#define PROVED "exec is proved before the first instruction"
#define CHAIN "every image of a chain is judged"

static char* forbidden_argv[] = {"ls", "/nonexistent", 0};

static void run_plain(void) { execve(kForbidden, forbidden_argv, kNone); }
ATTACK(exec_program, kTainted | kBare, JUDGED) { return ran(in_child(run_plain)); }
static void run_by_fd(void) {
  syscall(SYS_execveat, open(kForbidden, O_PATH), "", forbidden_argv, kNone, AT_EMPTY_PATH);
}
ATTACK(execveat_empty_path, kTainted | kBare, JUDGED) { return ran(in_child(run_by_fd)); }
static void run_in_directory(void) {
  syscall(SYS_execveat, open("src", O_PATH), "forbidden", forbidden_argv, kNone, 0);
}
ATTACK(execveat_directory, kTainted | kBare, JUDGED) { return ran(in_child(run_in_directory)); }
static void run_by_link(void) {
  symlink("../src/forbidden", "scratch/ls");
  execve("scratch/ls", forbidden_argv, kNone);
}
ATTACK(exec_symlink_with_good_name, kTainted | kBare, JUDGED) { return ran(in_child(run_by_link)); }
static void copy_to(int out) {
  int in = open(kForbidden, O_RDONLY);
  char buffer[65536];
  for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;) write(out, buffer, n);
  close(in);
}
static void run_copy(void) {
  int fd = creat("scratch/ls", 0755);
  copy_to(fd);
  close(fd);
  execve("scratch/ls", forbidden_argv, kNone);
}
ATTACK(exec_copied_file, kTainted | kBare, JUDGED) { return ran(in_child(run_copy)); }
static void run_private_copy(void) {
  int fd = creat("/tmp/certgate-attack-ls", 0755);
  copy_to(fd);
  close(fd);
  execve("/tmp/certgate-attack-ls", forbidden_argv, kNone);
}
ATTACK(exec_private_copy, kTainted | kBare, JUDGED) { return ran(in_child(run_private_copy)); }
static void run_memfd(void) {
  int fd = memfd_create("x", 0);
  copy_to(fd);
  syscall(SYS_execveat, fd, "", forbidden_argv, kNone, AT_EMPTY_PATH);
}
ATTACK(memfd_exec, kTainted | kBare, "a file without a path cannot be certified") {
  return ran(in_child(run_memfd));
}
ATTACK(memfd_exec_clean, kClean | kBare, "a file without a path cannot be certified") {
  return ran(in_child(run_memfd));
}
static void run_memfd_path(void) {
  char path[64];
  int fd = memfd_create("x", 0);
  copy_to(fd);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  execve(path, forbidden_argv, kNone);
}
ATTACK(memfd_exec_by_path, kTainted | kBare, "a file without a path cannot be certified") {
  return ran(in_child(run_memfd_path));
}
static void run_unlinked(void) {
  char path[64];
  int fd = creat("scratch/gone", 0755);
  copy_to(fd);
  close(fd);
  snprintf(path, sizeof path, "/proc/self/fd/%d", open("scratch/gone", O_RDONLY));
  unlink("scratch/gone");
  execve(path, forbidden_argv, kNone);
}
ATTACK(unlinked_exec, kClean | kBare, "a file without a path cannot be certified") {
  return ran(in_child(run_unlinked));
}
static void run_loader(void) {
  char* argv[] = {"ld.so", (char*)kForbidden, 0};
  execve("/lib64/ld-linux-x86-64.so.2", argv, kNone);
}
ATTACK(loader_launch, kTainted | kBare, "a loader as a program is judged by its arguments") {
  return ran(in_child(run_loader));
}
static void run_env(void) {
  char* argv[] = {"env", (char*)kForbidden, 0};
  execve("/usr/bin/env", argv, kNone);
}
ATTACK(env_launch, kTainted | kBare, "what a program spawns is judged again") {
  return ran(in_child(run_env));
}
static void run_git_alias(void) {
  char* argv[] = {"git", "-c", "alias.status=!src/forbidden", "status", 0};
  execve("/usr/bin/git", argv, kNone);
}
ATTACK(git_alias, kTainted, "arguments are matched one by one") {
  return ran(in_child(run_git_alias));
}
static void run_git_pager(void) {
  char* argv[] = {"git", "diff", "--no-index", "--ext-diff", "/etc/passwd", "/etc/group", 0};
  char* environment[] = {"GIT_EXTERNAL_DIFF=src/forbidden", "PATH=/usr/bin:/bin", 0};
  execve("/usr/bin/git", argv, environment);
}
ATTACK(git_external_program, kTainted, "what a program spawns is judged again") {
  return ran(in_child(run_git_pager)) == HELD ? HELD : VIOLATION;
}

static void script(const char* path, const char* text) {
  int fd = creat(path, 0755);
  write(fd, text, strlen(text));
  close(fd);
}
static void run_script(void) {
  script("scratch/evil.sh", "#!/bin/sh\nexec src/forbidden\n");
  execve("scratch/evil.sh", forbidden_argv, kNone);
}
ATTACK(scratch_script, kTainted | kBare, CHAIN) { return ran(in_child(run_script)); }
static void run_shebang(void) {
  char here[2048], text[4096];
  if (!getcwd(here, sizeof here)) _exit(98);
  snprintf(text, sizeof text, "#!%s/%s\n", here, kForbidden);
  script("scratch/ls", text);
  execve("scratch/ls", forbidden_argv, kNone);
}
ATTACK(shebang_to_forbidden, kTainted | kBare, CHAIN) { return ran(in_child(run_shebang)); }
static void run_shebang_chain(void) {
  char here[1024], text[4096], name[64];
  if (!getcwd(here, sizeof here)) _exit(98);
  for (int i = 0; i < 4; ++i) {
    snprintf(name, sizeof name, "scratch/s%d", i);
    if (i == 3)
      snprintf(text, sizeof text, "#!%s/%s\n", here, kForbidden);
    else
      snprintf(text, sizeof text, "#!%s/scratch/s%d\n", here, i + 1);
    script(name, text);
  }
  execve("scratch/s0", forbidden_argv, kNone);
}
ATTACK(shebang_chain_of_four, kTainted | kBare, CHAIN) { return ran(in_child(run_shebang_chain)); }

// A static program at the end of a chain, named as the loader that stands there otherwise.
static void run_as_loader(void) {
  char bytes[65536];
  int from = open(kForbidden, O_RDONLY), to = creat("scratch/ld-forbidden.so", 0755);
  for (ssize_t n; (n = read(from, bytes, sizeof bytes)) > 0;) write(to, bytes, n);
  close(from);
  close(to);
  unlink("scratch/interpreter");
  symlink("ld-forbidden.so", "scratch/interpreter");
  execve("src/by-link", forbidden_argv, kNone);
}
ATTACK(interpreter_named_as_loader, kTainted | kBare, CHAIN) { return ran(in_child(run_as_loader)); }

static void* exec_thread(void* x) {
  run_plain();
  return x;
}
static void run_in_thread(void) {
  pthread_t t;
  pthread_create(&t, 0, exec_thread, 0);
  pthread_join(t, 0);
}
ATTACK(thread_exec, kTainted | kBare, JUDGED) { return ran(in_child(run_in_thread)); }
static void run_vfork(void) {
  pid_t pid = vfork();
  if (pid == 0) execve(kForbidden, forbidden_argv, kNone), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  _exit(WEXITSTATUS(status));
}
ATTACK(vfork_exec, kTainted | kBare, JUDGED) { return ran(in_child(run_vfork)); }

// --- races: a child that shares our memory execs while threads write there
// --------------------------

static char shared[64];
static char* shared_argv[8];
static char* shared_env[4];
static char stack[65536];
static int exec_shared(void* path) {
  execve(path, shared_argv, shared_env);
  _exit(99);
}
static int wait_for(pid_t pid, int bad) {
  int status = 0;
  if (pid < 0) return 0;
  waitpid(pid, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == bad) return 2;
  return WIFEXITED(status) && WEXITSTATUS(status) != 99;
}
static int exec_path(void) {
  return wait_for(clone(exec_shared, stack + sizeof stack, CLONE_VM | SIGCHLD, shared),
                  kForbiddenRan);
}
static void wait_a_little(void) {
  for (int i = 0; i < 3000 && !stop; ++i) __asm__ volatile("pause");
}
static void* flip_path(void* x) {
  while (!stop)
    strcpy(shared, "/usr/bin/ls"), wait_a_little(), strcpy(shared, kForbidden), wait_a_little();
  return x;
}
static void quiet(void) {
  shared_argv[0] = "ls", shared_argv[1] = "/nonexistent";
  strcpy(shared, "/usr/bin/ls");
  freopen("/dev/null", "w", stderr);
}
ATTACK(exec_path_flip, kTainted | kBare, PROVED) {
  quiet();
  return race(exec_path, flip_path, 1);
}
static int exec_vfork(void) {
  pid_t pid = vfork();
  if (pid == 0) execve(shared, forbidden_argv, kNone), _exit(99);
  return wait_for(pid, kForbiddenRan);
}
ATTACK(vfork_shares_memory, kTainted | kBare, PROVED) {
  quiet();
  return race(exec_vfork, flip_path, 1);
}
static void* flip_argument(void* x) {
  while (!stop)
    shared_argv[1] = "status", wait_a_little(), shared_argv[1] = "version", wait_a_little();
  return x;
}
static int exec_git(void) {
  return wait_for(clone(exec_shared, stack + sizeof stack, CLONE_VM | SIGCHLD, "/usr/bin/git"), 0);
}
ATTACK(exec_argument_flip, kTainted | kBare, PROVED) {
  quiet();
  shared_argv[0] = "git", shared_argv[1] = "status";  // outside a repository: 128; version says 0
  freopen("/dev/null", "w", stdout);
  return race(exec_git, flip_argument, 1);
}
static char argument_text[16] = "status";
static void* flip_argument_text(void* x) {
  while (!stop)
    memcpy(argument_text, "status", 7), wait_a_little(), memcpy(argument_text, "version", 8),
        wait_a_little();
  return x;
}
ATTACK(exec_argument_bytes_flip, kTainted | kBare, PROVED) {
  quiet();
  shared_argv[0] = "git", shared_argv[1] = argument_text;
  freopen("/dev/null", "w", stdout);
  return race(exec_git, flip_argument_text, 1);
}
static void* flip_link(void* x) {
  for (int i = 0; !stop; ++i) {
    unlink("scratch/next");
    symlink(i & 1 ? "/usr/bin/ls" : "../src/forbidden", "scratch/next");
    rename("scratch/next", "scratch/l");
  }
  return x;
}
static int exec_link(void) {
  pid_t pid = fork();
  if (pid == 0) execve("scratch/l", forbidden_argv, kNone), _exit(99);
  return wait_for(pid, kForbiddenRan);
}
ATTACK(exec_link_swap, kTainted | kBare, PROVED) {
  quiet();
  return race(exec_link, flip_link, 1);
}
static int slot, good_fd, bad_fd;
static void* flip_slot(void* x) {
  while (!stop) dup2(good_fd, slot), wait_a_little(), dup2(bad_fd, slot), wait_a_little();
  return x;
}
static int exec_slot_child(void* x) {
  (void)x;
  syscall(SYS_execveat, slot, "", shared_argv, kNone, AT_EMPTY_PATH);
  _exit(99);
}
// Shares memory and descriptors: the number means another file when the kernel looks.
static int exec_slot(void) {
  return wait_for(clone(exec_slot_child, stack + sizeof stack, CLONE_VM | CLONE_FILES | SIGCHLD, 0),
                  kForbiddenRan);
}
ATTACK(exec_descriptor_swap, kTainted | kBare, PROVED) {
  quiet();
  good_fd = open("/usr/bin/ls", O_PATH), bad_fd = open(kForbidden, O_PATH), slot = dup(good_fd);
  return race(exec_slot, flip_slot, 1);
}
// A script's interpreter is a link that flips: src/by-link (allowed, "#!scratch/interpreter") must
// never start the forbidden program by it.
static void* flip_interpreter(void* x) {
  for (int i = 0; !stop; ++i) {
    symlink(i & 1 ? "/usr/bin/ls" : "../src/forbidden", "scratch/next");
    rename("scratch/next", "scratch/interpreter");
    wait_a_little();
  }
  return x;
}
static int exec_script(void) {
  pid_t pid = fork();
  if (pid == 0) execve("src/by-link", forbidden_argv, kNone), _exit(99);
  return wait_for(pid, kForbiddenRan);
}
ATTACK(shebang_interpreter_swap, kTainted | kBare, CHAIN) {
  quiet();
  return race(exec_script, flip_interpreter, 1);
}
// The interpreter opens the script once more, by its path, and must get what was judged:
// src/approved, never src/other. Both are "#!/usr/bin/cat", so that what was opened is what is
// printed.
static void* flip_script(void* x) {
  for (int i = 0; !stop; ++i) {
    symlink(i & 1 ? "../src/approved" : "../src/other", "scratch/next");
    rename("scratch/next", "scratch/script");
    wait_a_little();
  }
  return x;
}
static int exec_flipped_script(void) {
  char text[256] = "", *argv[] = {"cat", 0};
  int ends[2], status;
  if (pipe2(ends, O_CLOEXEC)) return 0;
  pid_t pid = fork();
  if (pid == 0) dup2(ends[1], 1), execve("scratch/script", argv, kNone), _exit(99);
  close(ends[1]);
  for (ssize_t n, all = 0; (n = read(ends[0], text + all, sizeof text - 1 - all)) > 0;) all += n;
  close(ends[0]);
  waitpid(pid, &status, 0);
  if (!strstr(text, "OTHER SCRIPT")) return strstr(text, "APPROVED SCRIPT") != 0;
  write(1, text, strlen(text));
  return 2;
}
ATTACK(script_swap_after_check, kTainted | kBare, "a script is bound to its interpreter") {
  quiet();
  return race(exec_flipped_script, flip_script, 1);
}

static void* stop_storm(void* x) {
  pid_t child = *(pid_t*)x;
  while (!stop) kill(child, SIGSTOP), sched_yield(), kill(child, SIGCONT), kill(child, SIGUSR1);
  return x;
}
static void exec_often(void) {
  signal(SIGUSR1, SIG_IGN);
  for (int i = 0; i < 100; ++i) syscall(SYS_execve, "/nonexistent", forbidden_argv, kNone);
  execve("/usr/bin/ls", forbidden_argv, kNone);
}
// Signals and stops around the one stop of an exec must neither lose it nor hold up anybody else's.
ATTACK(exec_under_stops, kTainted | kAlone, "one tracer thread owns seize, wait and detach") {
  freopen("/dev/null", "w", stderr);
  int lost = 0;
  for (int i = 0; i < 20; ++i) {
    static pid_t pid;
    pid = fork();
    if (pid == 0) exec_often(), _exit(99);
    pthread_t t;
    stop = 0;
    pthread_create(&t, 0, stop_storm, &pid);
    usleep(15000);
    join(t);
    kill(pid, SIGCONT);
    int status = 0, waited = 0;
    for (; waited < 300 && waitpid(pid, &status, WNOHANG) == 0; ++waited) usleep(10000);
    if (waited == 300) kill(pid, SIGKILL), waitpid(pid, &status, 0), ++lost;
    if (in_child(exec_often) != 2) return SAY("another exec did not get through"), VIOLATION;
  }
  return SAY("%d execs hung", lost), lost ? VIOLATION : HELD;
}
static int exec_untraced(void* x) {
  (void)x;
  run_plain();
  _exit(99);
}
ATTACK(clone_untraced, kTainted | kBare, "filter: CLONE_UNTRACED") {
  pid_t pid = clone(exec_untraced, stack + sizeof stack, CLONE_UNTRACED | SIGCHLD, 0);
  if (pid < 0) return worked("clone", -1);
  int status;
  waitpid(pid, &status, 0);
  SAY("the child was made");
  return VIOLATION;
}
static void run_su(void) {
  char* argv[] = {"su", "-c", "id -u", 0};
  int fd = open("/dev/null", O_RDWR);
  dup2(fd, 0), dup2(fd, 2);
  execve("/usr/bin/su", argv, kNone);
}
ATTACK(setuid_program, kClean, "no_new_privs and nosuid") {
  int status = in_child(run_su);
  SAY("status %d", status);
  return status == 0 ? VIOLATION : HELD;
}
// Prints READY; the runner then stops the supervisor, and looks whether the program ran meanwhile.
ATTACK(exec_while_supervisor_stopped, kTainted, "a call waits for its supervisor") {
  dprintf(1, "READY\n");
  const double end = now() + (is_bare() ? 0.1 : 3);
  int verdict = HELD;
  for (int i = 0; now() < end && verdict == HELD; ++i)
    verdict = ran(in_child(run_plain)), usleep(2000);
  return verdict;
}
