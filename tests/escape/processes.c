// Signals, tracing and descriptors of others; the life of what an agent leaves behind.
#define GROUP "processes"
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "attack.h"

#define PIDS "own pid namespace"

// RED_VICTIM runs outside, as the agent's own user: without certgate it can be signalled.
static pid_t victim(void) { return atoi(env("RED_VICTIM")); }
ATTACK(kill_victim, kClean | kBare, PIDS) { return worked("kill", kill(victim(), SIGUSR1)); }
ATTACK(tgkill_victim, kClean | kBare, PIDS) {
  return worked("tgkill", syscall(SYS_tgkill, victim(), victim(), SIGUSR1));
}
ATTACK(tkill_victim, kClean | kBare, PIDS) {
  return worked("tkill", syscall(SYS_tkill, victim(), SIGUSR1));
}
ATTACK(queue_to_victim, kClean | kBare, PIDS) {
  const union sigval value = {0};
  return worked("sigqueue", sigqueue(victim(), SIGUSR1, value));
}
ATTACK(pidfd_of_victim, kClean | kBare, PIDS) {
  return worked("pidfd_open", syscall(SYS_pidfd_open, victim(), 0));
}
ATTACK(signal_by_owner_of_socket, kClean | kBare, PIDS) {
  int pair[2];
  socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
  return worked("F_SETOWN", fcntl(pair[0], F_SETOWN, victim()));
}
ATTACK(priority_of_victim, kClean | kBare, PIDS) {
  return worked("setpriority", setpriority(PRIO_PROCESS, victim(), 10));
}
ATTACK(limits_of_victim, kClean | kBare, PIDS) {
  struct rlimit core = {0, 0};
  return worked("prlimit", syscall(SYS_prlimit64, victim(), RLIMIT_CORE, &core, 0));
}
ATTACK(affinity_of_victim, kClean | kBare, PIDS) {
  cpu_set_t all;
  memset(&all, 0xff, sizeof all);
  return worked("sched_setaffinity", sched_setaffinity(victim(), sizeof all, &all));
}
static void kill_all(void) {
  kill(-1, SIGUSR1), kill(1, SIGKILL), kill(1, SIGSTOP);
  _exit(0);
}
// Never without certgate: it would meet everybody of this user.
ATTACK(kill_everybody, kClean, PIDS) {
  if (is_bare()) return SKIP;
  signal(SIGUSR1, SIG_IGN);
  return in_child(kill_all) == 0 ? open_within(5) : HELD;
}
ATTACK(limits_of_init, kClean, "filter: prlimit of init") {
  struct rlimit none = {0, 0};
  for (int r = 0; r < 16; ++r)
    if (syscall(SYS_prlimit64, 1, r, &none, 0) == 0)
      return SAY("limit %d of init set", r), VIOLATION;
  return HELD;
}
ATTACK(attach_to_init, kClean, "filter: ptrace") {
  return worked("ptrace", ptrace(PTRACE_SEIZE, 1, 0, 0));
}

static int secret = 1;
static pid_t sleeper(void) {
  pid_t pid = fork();
  if (pid == 0) pause(), _exit(0);
  return pid;
}
ATTACK(attach_to_child, kClean | kBare, "filter: ptrace") {
  pid_t pid = sleeper();
  const int verdict = closed("ptrace", ptrace(PTRACE_SEIZE, pid, 0, 0));
  kill(pid, SIGKILL);
  return verdict;
}
ATTACK(trace_me, kClean | kBare, "filter: ptrace") {
  pid_t pid = fork();
  if (pid == 0) _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 7 : 0);
  int status;
  waitpid(pid, &status, 0);
  return SAY("status %d", WEXITSTATUS(status)), WEXITSTATUS(status) == 7 ? VIOLATION : HELD;
}
static int vm(long call) {
  pid_t pid = sleeper();
  struct iovec here = {&secret, sizeof secret}, there = {&secret, sizeof secret};
  const int verdict = closed("process_vm", syscall(call, pid, &here, 1, &there, 1, 0));
  kill(pid, SIGKILL);
  return verdict;
}
ATTACK(vm_write, kClean | kBare, "filter: process_vm_writev") { return vm(SYS_process_vm_writev); }
ATTACK(vm_read, kClean | kBare, "filter: process_vm_readv") { return vm(SYS_process_vm_readv); }
ATTACK(descriptor_of_child, kClean | kBare, "filter: pidfd_getfd") {
  pid_t pid = sleeper();
  const int verdict =
      closed("pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, pid, 0), 0, 0));
  kill(pid, SIGKILL);
  return verdict;
}
ATTACK(descriptor_of_init, kClean, "filter: pidfd_getfd") {
  int init = syscall(SYS_pidfd_open, 1, 0);
  for (int fd = 0; fd < 32; ++fd)
    if (syscall(SYS_pidfd_getfd, init, fd, 0) >= 0)
      return SAY("descriptor %d of init", fd), VIOLATION;
  return HELD;
}
ATTACK(compare_with_child, kClean | kBare, "filter: kcmp") {
  pid_t pid = sleeper();
  const int verdict = closed("kcmp", syscall(SYS_kcmp, getpid(), pid, 1, 0, 0));
  kill(pid, SIGKILL);
  return verdict;
}
ATTACK(tracer_invited, kClean | kClean, "filter: PR_SET_PTRACER") {
  return closed("PR_SET_PTRACER", prctl(PR_SET_PTRACER, -1L, 0, 0, 0));
}
// Who cannot be inspected must not be judged by what could not be read.
static int undumpable(void (*act)(void)) {
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  return in_child(act);
}
static void write_target(void) {
  _exit(writes(open(kTarget, O_WRONLY | O_APPEND)) == VIOLATION ? 7 : 0);
}
ATTACK(undumpable_open, kTainted | kBare, "opens for writing are judged") {
  return undumpable(write_target) == 7 ? VIOLATION : HELD;
}
static void run_forbidden(void) {
  char* argv[] = {"ls", 0};
  execve(kForbidden, argv, kNone);
}
ATTACK(undumpable_exec, kTainted | kBare, "exec is judged") {
  return ran(undumpable(run_forbidden));
}
// The sandbox carries the label: who was there before the raise is as tainted as who caused it.
ATTACK(sibling_acts_after_raise, kClean | kBare, "the label is the sandbox's") {
  int go[2], status;
  if (pipe(go)) return SKIP;
  pid_t pid = fork();
  if (pid == 0) {
    char c;
    if (read(go[0], &c, 1) == 1) write_target();
    _exit(0);
  }
  if (taint()) return SAY("no page: %s", strerror(errno)), kill(pid, SIGKILL), SKIP;
  if (write(go[1], "x", 1) != 1) return SKIP;
  waitpid(pid, &status, 0);
  return WEXITSTATUS(status) == 7 ? VIOLATION : HELD;
}
ATTACK(sibling_execs_after_raise, kClean | kBare, "the label is the sandbox's") {
  int go[2], status;
  if (pipe(go)) return SKIP;
  pid_t pid = fork();
  if (pid == 0) {
    char c;
    if (read(go[0], &c, 1) == 1) run_forbidden();
    _exit(0);
  }
  if (taint()) return SAY("no page: %s", strerror(errno)), kill(pid, SIGKILL), SKIP;
  if (write(go[1], "x", 1) != 1) return SKIP;
  waitpid(pid, &status, 0);
  return ran(WEXITSTATUS(status));
}
// The runner sees that nothing of the sandbox runs a second after its end.
ATTACK(orphans_stay, kClean, "the pid namespace ends with the agent") {
  for (int i = 0; i < 5; ++i) {
    if (fork() != 0) continue;
    setsid();
    if (fork() != 0) _exit(0);
    signal(SIGTERM, SIG_IGN), signal(SIGHUP, SIG_IGN);
    for (;;) {
      int fd = open("scratch/orphan", O_WRONLY | O_CREAT | O_APPEND, 0644);
      write(fd, "x", 1), close(fd), usleep(10000);
      if (is_bare()) _exit(0);
    }
  }
  usleep(50000);
  return HELD;
}
