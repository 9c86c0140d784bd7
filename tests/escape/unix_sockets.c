// Sockets of the host by path and by abstract name, and descriptors passed over them.
#define GROUP "unix_sockets"
#include "attack.h"

#define OUTSIDE "unix sockets of the host are judged by path"

static int connected(const char* name, int abstract, int type) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path + abstract, name, sizeof a.sun_path - 2);
  int s = socket(AF_UNIX, type, 0);
  socklen_t size = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name) + !abstract;
  if (connect(s, (struct sockaddr*)&a, size) == 0) return s;
  const int error = errno;
  close(s);
  return errno = error, -1;
}
static int connect_unix(const char* name, int abstract) {
  int s = connected(name, abstract, SOCK_STREAM);
  return s < 0 ? worked("connect", -1) : sends(s, "send");
}
ATTACK(host_socket_by_path, kClean | kBare, OUTSIDE) { return connect_unix("host.sock", 0); }
ATTACK(host_socket_by_link, kClean | kBare, OUTSIDE) {
  symlink("../host.sock", "scratch/link.sock");
  return connect_unix("scratch/link.sock", 0);
}
ATTACK(host_socket_by_descriptor, kClean | kBare, OUTSIDE) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", open("host.sock", O_PATH));
  return connect_unix(path, 0);
}
ATTACK(host_socket_renamed, kClean | kBare, OUTSIDE) {
  if (rename("host.sock", "scratch/own.sock")) return worked("rename", -1);
  return connect_unix("scratch/own.sock", 0);
}
ATTACK(host_abstract_socket, kClean | kBare, "own network namespace without a way out") {
  return connect_unix(env("RED_ABSTRACT"), 1);
}
// The runner outside keeps trying to connect there.
static int plant(int s) {
  struct pollfd p = {s, POLLIN, 0};
  if (s < 0 || listen(s, 4)) return worked("listen", -1);
  return poll(&p, 1, 400) == 1 ? (SAY("the host connected"), VIOLATION) : HELD;
}
ATTACK(abstract_name_planted, kClean | kBare, "own network namespace without a way out") {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  const char* name = env("RED_PLANT");
  strncpy(a.sun_path + 1, name, sizeof a.sun_path - 2);
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  bind(s, (struct sockaddr*)&a, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
  return plant(s);
}
ATTACK(workspace_socket_planted, kClean | kBare, "a unix socket in the workspace is refused") {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path, "pre/planted.sock");
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(s, (struct sockaddr*)&a, sizeof a)) return worked("bind", -1);
  return worked("listen", listen(s, 1));
}
static char own_place[64], workspace[PATH_MAX];
// The directory of the name is now a private place, now the workspace.
static void* flip_place(void* x) {
  char next[96], last[96];
  snprintf(last, sizeof last, "%s/place", own_place);
  snprintf(next, sizeof next, "%s/next%d", own_place, (int)syscall(SYS_gettid));
  for (int i = 0; !stop; ++i) {
    unlink(next);
    symlink(i & 1 ? own_place : workspace, next);
    rename(next, last);
  }
  return x;
}
static int bind_flipped(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  struct stat s;
  snprintf(a.sun_path, sizeof a.sun_path, "%s/place/flip.sock", own_place);
  const int made = socket(AF_UNIX, SOCK_STREAM, 0);
  const int failed = bind(made, (struct sockaddr*)&a, sizeof a);
  close(made);
  if (stat("pre/flip.sock", &s) == 0) return 2;
  snprintf(a.sun_path, sizeof a.sun_path, "%s/flip.sock", own_place);
  unlink(a.sun_path);
  return failed ? 0 : 1;
}
ATTACK(socket_name_flip, kClean | kBare,
       "what binds by name can make sockets in private places only") {
  char here[PATH_MAX - 8];
  strcpy(own_place, "/tmp/flipXXXXXX");
  if (!mkdtemp(own_place) || !getcwd(here, sizeof here))
    return SAY("mkdtemp: %s", strerror(errno)), SKIP;
  snprintf(workspace, sizeof workspace, "%s/pre", here);
  return race(bind_flipped, flip_place, 2);
}
ATTACK(workspace_socket_moved_in, kClean, "a name that moves between file systems is copied") {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path, "/tmp/planted.sock");
  if (is_bare()) return SKIP;
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  if (bind(s, (struct sockaddr*)&a, sizeof a)) return SAY("bind: %s", strerror(errno)), SKIP;
  return worked("rename", rename("/tmp/planted.sock", "pre/planted.sock"));
}
ATTACK(autobind_by_credentials, kClean, "own network namespace without a way out") {
  int on = 1, s = socket(AF_UNIX, SOCK_STREAM, 0);
  setsockopt(s, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path, "host.sock");
  if (connect(s, (struct sockaddr*)&a, sizeof a) == 0) return sends(s, "send");
  return worked("connect", -1);
}

// --- descriptors
// -------------------------------------------------------------------------------------

ATTACK(descriptor_from_host, kClean | kBare, OUTSIDE) {
  int s = connected("host.sock", 0, SOCK_STREAM);
  if (s < 0) return worked("connect", -1);
  return writes(receive_fd(s));
}
ATTACK(descriptor_to_host, kClean | kBare, OUTSIDE) {
  int s = connected("host.sock", 0, SOCK_STREAM);
  if (s < 0) return worked("connect", -1);
  return worked("sendmsg", send_fd(s, open(kTarget, O_RDONLY)));
}
// Over the one socket of the host that policy allows: bytes pass, descriptors do not.
ATTACK(descriptor_over_allowed_socket, kClean | kBare,
       "bytes are relayed, descriptors are dropped") {
  int s = connected(env("RED_ALLOWED"), 0, SOCK_STREAM);
  if (s < 0) return SAY("connect: %s", strerror(errno)), SKIP;
  const int fd = receive_fd(s);
  return fd < 0 ? (SAY("received: %s", strerror(errno)), HELD) : writes(fd);
}
ATTACK(descriptor_out_over_allowed_socket, kClean, "bytes are relayed, descriptors are dropped") {
  int s = connected(env("RED_ALLOWED"), 0, SOCK_STREAM);
  if (s < 0) return SAY("connect: %s", strerror(errno)), SKIP;
  send_fd(s, open(kTarget, O_RDONLY));  // whether one arrives is seen outside
  usleep(50000);
  return is_bare() ? SKIP : HELD;
}
ATTACK(allowed_socket_after_raise, kTainted | kBare, "connects are judged") {
  return connect_unix(env("RED_ALLOWED"), 0);
}

// --- races
// -------------------------------------------------------------------------------------------

static struct sockaddr_un shared;
static const char kOwn[] = "/tmp/certgate-own.sock";
static void* flip_path(void* x) {
  while (!stop)
    strcpy(shared.sun_path, kOwn), sched_yield(), strcpy(shared.sun_path, "host.sock"),
        sched_yield();
  return x;
}
// Whoever answers at once with a descriptor or a byte is the host; our own listener never does.
static int connect_shared(void) {
  int s = socket(AF_UNIX, SOCK_STREAM, 0), verdict = 0;
  if (connect(s, (struct sockaddr*)&shared, sizeof shared) == 0) {
    char byte;
    struct pollfd p = {s, POLLIN, 0};
    verdict = poll(&p, 1, 2) == 1 && recv(s, &byte, 1, 0) == 1 ? 2 : 1;
  }
  close(s);
  return verdict;
}
static void own_listener(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path, kOwn);
  unlink(kOwn);
  int l = socket(AF_UNIX, SOCK_STREAM, 0);
  bind(l, (struct sockaddr*)&a, sizeof a);
  listen(l, 4000);
}
ATTACK(socket_path_flip, kClean | kBare, "the socket file is pinned, then judged, then connected") {
  own_listener();
  shared.sun_family = AF_UNIX;
  strcpy(shared.sun_path, kOwn);
  return race(connect_shared, flip_path, 2);
}
static void* flip_link(void* x) {
  char here[1024], target[2048], next[64];
  if (!getcwd(here, sizeof here)) return x;
  snprintf(target, sizeof target, "%s/host.sock", here);
  snprintf(next, sizeof next, "scratch/next%d", (int)syscall(SYS_gettid));
  for (int i = 0; !stop; ++i) symlink(i & 1 ? kOwn : target, next), rename(next, "scratch/s");
  return x;
}
ATTACK(socket_link_swap, kClean | kBare, "the socket file is pinned, then judged, then connected") {
  own_listener();
  shared.sun_family = AF_UNIX;
  strcpy(shared.sun_path, "scratch/s");
  return race(connect_shared, flip_link, 2);
}
