// A stream of judged effects that can be counted outside, for kill_sweep.py.
//
//   certgate-effects COUNT PORT   three processes, COUNT effects each: files made and renamed in out/,
//                                 connections to sink.test:PORT, execs of this program as below
//   certgate-effects mark N       writes "exec N" to its stdout, which the outside gave: that it ran
//                                 is seen without any further judged call
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char* what, int number) {
  char line[64];
  const int size = snprintf(line, sizeof line, "%s %d\n", what, number);
  if (write(STDOUT_FILENO, line, (size_t)size) != size) _exit(3);
}

static int make_files(int count) {
  for (int i = 0; i < count; ++i) {
    char made[32], moved[32];
    snprintf(made, sizeof made, "out/f%d", i);
    snprintf(moved, sizeof moved, "out/g%d", i);
    const int fd = open(made, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return 1;
    close(fd);
    if (i % 2 == 0 && rename(made, moved) != 0) return 1;
  }
  return 0;
}

static int connect_all(int count, const char* port) {
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
  if (getaddrinfo("sink.test", port, &hints, &found) != 0) return 1;
  for (int i = 0; i < count; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) return 1;
    if (write(fd, "x", 1) != 1) return 1;
    close(fd);
  }
  freeaddrinfo(found);
  return 0;
}

static int exec_one(const char* self, int number) {
  char text[16];
  snprintf(text, sizeof text, "%d", number);
  const pid_t child = vfork();
  if (child == 0) {
    execl(self, self, "mark", text, NULL);
    _exit(4);
  }
  int status = 0;
  return child < 0 || waitpid(child, &status, 0) != child || status != 0;
}

static int exec_all(int count, const char* self) {
  for (int i = 0; i < count; ++i) {
    if (exec_one(self, i) != 0) return 1;
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  if (strcmp(argv[1], "mark") == 0) {
    say("exec", atoi(argv[2]));
    return 0;
  }
  const int count = atoi(argv[1]);
  for (int kind = 0; kind < 3; ++kind) {
    const pid_t child = fork();
    if (child < 0) return 1;
    if (child > 0) continue;
    if (kind == 0) _exit(make_files(4 * count));
    _exit(kind == 1 ? connect_all(count, argv[2]) : exec_all(count, argv[0]));
  }
  int failed = 0, status = 0;
  while (wait(&status) > 0) failed += status != 0;
  return failed;
}
