#define GROUP "support"
#include <netdb.h>

#include "attack.h"

char note[256];
atomic_int stop;
const char kTarget[] = "src/hello.c";
const char kForbidden[] = "src/forbidden";
char* const kNone[] = {0};

int is_bare(void) { return getenv("RED_BARE") != 0; }
const char* env(const char* name) {
  const char* value = getenv(name);
  return value ? value : "";
}
const char* evidence(void) { return is_bare() ? "PLAIN;" : "AFTER;"; }
double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
double slowness(void) { return getenv("RED_SLOW") ? 8 : 1; }
// Bare, a race ends at its first success; it may need a while to get there.
double race_seconds(void) { return getenv("RED_LONG") || is_bare() ? 5 : 0.4 * slowness(); }

void spin(pthread_t* thread, void* (*f)(void*)) {
  pthread_create(thread, 0, f, 0);
  usleep(5000);
}
void join(pthread_t thread) {
  stop = 1;
  pthread_join(thread, 0);
}

struct sockaddr_in endpoint(const char* name, const char* port, const char* bare) {
  char host[64];
  const char* at = getenv(bare);
  if (at) {
    snprintf(host, sizeof host, "%s", at);
    char* colon = strrchr(host, ':');
    *colon = 0;
    name = host, port = colon + 1;
  }
  struct addrinfo *found, hint = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
  struct sockaddr_in a = {0};
  if (getaddrinfo(name, port, &hint, &found)) return a;
  memcpy(&a, found->ai_addr, sizeof a);
  freeaddrinfo(found);
  return a;
}
static int dial(struct sockaddr_in a) {
  if (a.sin_family == 0) return errno = ENOENT, -1;
  int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(s, (struct sockaddr*)&a, sizeof a) == 0) return s;
  const int error = errno;
  close(s);
  return errno = error, -1;
}
int page(void) { return dial(endpoint("page.test", "80", "RED_PAGE")); }
int sink(void) { return dial(endpoint("sink.test", "9000", "RED_SINK")); }
int taint(void) {
  int s = page();
  if (s < 0) return -1;
  close(s);
  return 0;
}

int writes(int fd) {
  if (fd < 0) return SAY("%s", strerror(errno)), HELD;
  int ok = write(fd, "EVIL", 4) == 4;
  SAY("write: %s", ok ? "done" : strerror(errno));
  close(fd);
  return ok ? VIOLATION : HELD;
}
int worked(const char* what, long result) {
  SAY("%s: %s", what, result < 0 ? strerror(errno) : "done");
  return result < 0 ? HELD : VIOLATION;
}
int closed(const char* what, long result) {
  const int verdict = worked(what, result);
  if (verdict == VIOLATION || is_bare()) return result < 0 ? SKIP : verdict;
  return errno == EPERM || errno == ENOSYS || errno == EAFNOSUPPORT ? HELD : VIOLATION;
}
int sends(int s, const char* what) { return worked(what, send(s, evidence(), 6, MSG_NOSIGNAL)); }
int in_child(void (*f)(void)) {
  pid_t pid = fork();
  if (pid == 0) f(), _exit(99);
  int status;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
int ran(int status) {
  SAY("status %d", status);
  return status == kForbiddenRan ? VIOLATION : HELD;
}
int outside(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  path[n < 0 ? 0 : n] = 0;
  return strstr(path, "/src/") && !strstr(path, "/scratch/");
}
int open_within(double limit) {
  double start = now();
  for (int i = 0; i < 50; ++i) close(open("/etc/passwd", O_RDONLY));
  double took = now() - start;
  SAY("50 opens took %.3f s", took);
  return took > limit * slowness() ? VIOLATION : HELD;
}
void own_namespaces(void) {
  if (!is_bare()) return;
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID))
    SAY("own namespaces: %s", strerror(errno));
}
int send_fd(int s, int fd) {
  char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec iov = {&byte, 1};
  struct msghdr m = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  return sendmsg(s, &m, MSG_NOSIGNAL) < 0 ? -1 : 0;
}
int receive_fd(int s) {
  char byte, control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec iov = {&byte, 1};
  struct msghdr m = {
      .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (recvmsg(s, &m, 0) < 0) return -1;
  struct cmsghdr* c = CMSG_FIRSTHDR(&m);
  if (!c || c->cmsg_type != SCM_RIGHTS) return errno = ENOMSG, -1;
  int fd;
  memcpy(&fd, CMSG_DATA(c), sizeof fd);
  return fd;
}

int race(int (*attempt)(void), void* (*flip)(void*), int threads) {
  enum { kMost = 8 };
  pthread_t t[kMost];
  int count[3] = {0};
  if (threads > kMost) threads = kMost;
  stop = 0;
  for (int i = 0; i < threads; ++i) spin(&t[i], flip);
  const double end = now() + race_seconds();
  while (now() < end && !count[2]) ++count[attempt()];
  for (int i = 0; i < threads; ++i) join(t[i]);
  SAY("%d rounds, %d allowed, %d denied, %d violations", count[0] + count[1] + count[2], count[1],
      count[0], count[2]);
  return count[2] ? VIOLATION : HELD;
}
