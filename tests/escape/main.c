// certgate-attacks NAME      runs one attack; last line: HELD | VIOLATION | SKIP, and what happened
// certgate-attacks --list    NAME, group, flags and defence, one attack a line, separated by tabs
#define GROUP "main"
#include "attack.h"

static struct Attack* first;
static struct Attack** last = &first;

void add_attack(struct Attack* attack) {
  *last = attack;
  last = &attack->next;
}

static int list(void) {
  for (const struct Attack* a = first; a; a = a->next)
    printf("%s\t%s\t%u\t%s\n", a->name, a->group, a->flags, a->defence);
  return 0;
}

// Again and again, each time in a fresh process: somebody will end us half-way.
static void repeat(const struct Attack* attack) {
  for (;;) {
    pid_t pid = fork();
    if (pid == 0) _exit(attack->run());
    int status = 0;
    if (pid > 0) waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == VIOLATION)
      dprintf(2, "VIOLATION while repeated\n");
  }
}

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--list") == 0) return list();
  signal(SIGPIPE, SIG_IGN), signal(SIGUSR1, SIG_IGN);
  const int out = fcntl(1, F_DUPFD_CLOEXEC, 100);  // some close or replace 1
  const struct Attack* a = first;
  while (argc == 2 && a && strcmp(a->name, argv[1]) != 0) a = a->next;
  if (argc != 2 || !a) return dprintf(2, "usage: certgate-attacks NAME | --list\n"), 2;
  int verdict = SKIP;
  if ((a->flags & kTainted) && !is_bare() && taint()) {
    SAY("no page: %s", strerror(errno));
  } else {
    dprintf(out, "BEGIN\n");
    if (getenv("RED_LOOP")) repeat(a);
    verdict = a->run();
  }
  const char* const words[] = {"HELD", "VIOLATION", "SKIP"};
  dprintf(out, "%s %s\n", words[verdict], note);
  _exit(0);  // threads may be waiting for ever
}
