/* connect and bind on the own loopback and on unix names. Ports are the kernel's choice and never
 * printed. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "semantics.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

union Address {
  struct sockaddr any;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
  struct sockaddr_un un;
  char bytes[256];
};

static socklen_t loopback(int family, unsigned short port, union Address* out) {
  memset(out, 0, sizeof *out);
  if (family == AF_INET) {
    out->in.sin_family = AF_INET;
    out->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    out->in.sin_port = port;
    return sizeof out->in;
  }
  out->in6.sin6_family = AF_INET6;
  out->in6.sin6_addr = in6addr_loopback;
  out->in6.sin6_port = port;
  return sizeof out->in6;
}

static unsigned short port_of(int fd) {
  union Address at;
  socklen_t size = sizeof at;
  must(getsockname(fd, &at.any, &size) == 0, "getsockname");
  return at.any.sa_family == AF_INET ? at.in.sin_port : at.in6.sin6_port;
}

static int bound(int family, int type, int backlog) {
  union Address at;
  const int fd = socket(family, type, 0);
  const socklen_t size = loopback(family, 0, &at);
  must(fd >= 0 && bind(fd, &at.any, size) == 0, "bind to loopback");
  if (backlog > 0) must(listen(fd, backlog) == 0, "listen");
  return fd;
}

/* What a socket says of itself, ports left out. */
static const char* facts(int fd) {
  union Address own, peer;
  socklen_t own_size = sizeof own, peer_size = sizeof peer;
  memset(&own, 0, sizeof own);
  memset(&peer, 0, sizeof peer);
  const int named = getsockname(fd, &own.any, &own_size) == 0;
  const int connected = getpeername(fd, &peer.any, &peer_size) == 0;
  const int error = errno;
  int pending = -1, accepting = -1;
  socklen_t size = sizeof pending;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &pending, &size);
  getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &size);
  char where[INET6_ADDRSTRLEN] = "";
  if (connected && peer.any.sa_family == AF_INET)
    inet_ntop(AF_INET, &peer.in.sin_addr, where, sizeof where);
  if (connected && peer.any.sa_family == AF_INET6)
    inet_ntop(AF_INET6, &peer.in6.sin6_addr, where, sizeof where);
  if (connected && peer.any.sa_family == AF_UNIX && peer_size > 3 && peer.un.sun_path[0] != '\0')
    snprintf(where, sizeof where, "%.40s", peer.un.sun_path);
  const char* who =
      connected ? text("family %d %s", peer.any.sa_family, where) : strerrorname_np(error);
  return text("own %s; peer %s; SO_ERROR %d; listens %d; flags %o",
              named ? text("family %d size %u", own.any.sa_family, own_size) : "none", who, pending,
              accepting, (unsigned)fcntl(fd, F_GETFL));
}

static void stream_cases(int family) {
  const char* v = family == AF_INET ? "IPv4" : "IPv6";
  union Address at;
  const int listener = bound(family, SOCK_STREAM, 5), deaf = bound(family, SOCK_STREAM, 0);
  const unsigned short port = port_of(listener), closed = port_of(deaf);
  socklen_t size = loopback(family, closed, &at);
  int s = socket(family, SOCK_STREAM, 0);
  CALL(text("%s connect where nobody listens", v), connect(s, &at.any, size), facts(s));
  CALL(text("%s connect again", v), connect(s, &at.any, size), facts(s));
  size = loopback(family, port, &at);
  CALL(text("%s then to a listener, same socket", v), connect(s, &at.any, size), facts(s));
  CALL(text("%s connect of a connected socket", v), connect(s, &at.any, size), facts(s));
  const int accepted = accept(listener, NULL, NULL);
  CALL(text("%s accept", v), accepted >= 0 ? 0 : -1, facts(accepted));
  CALL(text("%s bind of a connected socket", v), bind(s, &at.any, size), "");
  at.any.sa_family = AF_UNSPEC;
  CALL(text("%s connect AF_UNSPEC", v), connect(s, &at.any, size), facts(s));
  close(s), close(accepted);

  size = loopback(family, port, &at);
  s = socket(family, SOCK_STREAM, 0);
  CALL(text("%s bind to a port in use", v), bind(s, &at.any, size), facts(s));
  CALL(text("%s listen without bind", v), listen(s, 1),
       text("listens, port %s", port_of(s) != 0 ? "given" : "0"));
  CALL(text("%s connect of a listener", v), connect(s, &at.any, size), "");
  close(s);

  s = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CALL(text("%s non-blocking connect", v), connect(s, &at.any, size), "");
  struct pollfd p = {s, POLLOUT, 0};
  CALL(text("%s poll for it", v), poll(&p, 1, 5000), text("events %x", (unsigned)p.revents));
  CALL(text("%s non-blocking, afterwards", v), connect(s, &at.any, size), facts(s));
  CALL(text("%s and once more", v), connect(s, &at.any, size), facts(s));
  close(s), close(accept(listener, NULL, NULL));

  size = loopback(family, closed, &at);
  s = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CALL(text("%s non-blocking connect where nobody listens", v), connect(s, &at.any, size), "");
  p = (struct pollfd){s, POLLOUT, 0};
  CALL(text("%s poll for it", v), poll(&p, 1, 5000), text("events %x", (unsigned)p.revents));
  line(text("%s its state", v), 0, 0, facts(s));
  close(s), close(listener), close(deaf);
}

static void bad_arguments(int nr, const char* name) {
  union Address at;
  const int tcp = socket(AF_INET, SOCK_STREAM, 0), tcp6 = socket(AF_INET6, SOCK_STREAM, 0),
            local = socket(AF_UNIX, SOCK_STREAM, 0);
  const int udp = socket(AF_INET, SOCK_DGRAM, 0), file = open("file", O_RDONLY),
            path = open("file", O_PATH);
  socklen_t size = loopback(AF_INET, htons(1), &at);
  CALL(text("%s(-1)", name), syscall(nr, -1, &at, size), "");
  CALL(text("%s(closed)", name), syscall(nr, 99, &at, size), "");
  CALL(text("%s(file)", name), syscall(nr, file, &at, size), "");
  CALL(text("%s(O_PATH file)", name), syscall(nr, path, &at, size), "");
  CALL(text("%s(bad pointer)", name), syscall(nr, tcp, 8, size), "");
  CALL(text("%s(null pointer)", name), syscall(nr, tcp, 0, size), "");
  CALL(text("%s(size 0)", name), syscall(nr, tcp, &at, 0), "");
  CALL(text("%s(size 1)", name), syscall(nr, tcp, &at, 1), "");
  CALL(text("%s(size 2)", name), syscall(nr, tcp, &at, 2), "");
  CALL(text("%s(size 15)", name), syscall(nr, tcp, &at, 15), "");
  CALL(text("%s(size -1)", name), syscall(nr, tcp, &at, -1), "");
  CALL(text("%s(size 129)", name), syscall(nr, tcp, &at, 129), "");
  CALL(text("%s(IPv4 address, IPv6 socket)", name), syscall(nr, tcp6, &at, size), "");
  CALL(text("%s(IPv4 address, unix socket)", name), syscall(nr, local, &at, size), "");
  at.any.sa_family = 77;
  CALL(text("%s(family 77)", name), syscall(nr, tcp, &at, size), "");
  CALL(text("%s(family 77, UDP)", name), syscall(nr, udp, &at, size), "");
  at.any.sa_family = AF_UNSPEC;
  CALL(text("%s(AF_UNSPEC, unix socket)", name), syscall(nr, local, &at, size), "");
  CALL(text("%s(AF_UNSPEC, UDP)", name), syscall(nr, udp, &at, size), "");
  memset(&at, 0, sizeof at);
  at.in6.sin6_family = AF_INET6;
  CALL(text("%s(IPv6 address, IPv4 socket)", name), syscall(nr, tcp, &at, sizeof at.in6), "");
  CALL(text("%s(IPv6 address of 24 bytes)", name), syscall(nr, tcp6, &at, 24), "");
  close(tcp), close(tcp6), close(local), close(udp), close(file), close(path);
}

static void datagrams(void) {
  union Address at;
  const int server = bound(AF_INET, SOCK_DGRAM, 0), client = socket(AF_INET, SOCK_DGRAM, 0);
  const socklen_t size = loopback(AF_INET, port_of(server), &at);
  char got[16] = {0};
  CALL("UDP connect", connect(client, &at.any, size), facts(client));
  CALL("UDP send", send(client, "ping", 4, 0), "");
  CALL("UDP recv", recv(server, got, 15, 0), got);
  CALL("UDP sendto", sendto(client, "pong", 4, 0, &at.any, size), "");
  CALL("UDP recv", recv(server, got, 15, 0), got);
  CALL("UDP bind twice", bind(client, &at.any, size), "");
  close(server);
  send(client, "lost", 4, 0);
  struct pollfd refused = {client, 0, 0}; /* the refusal arrives when the kernel gets to it */
  CALL("poll for the refusal", poll(&refused, 1, 5000),
       text("events %x", (unsigned)refused.revents));
  CALL("UDP send where nobody is", send(client, "lost", 4, 0), "");
  close(client);
}

static socklen_t unix_name(const char* path, size_t size, union Address* out) {
  memset(out, 0, sizeof *out);
  out->un.sun_family = AF_UNIX;
  memcpy(out->un.sun_path, path, size);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
}

static socklen_t unix_path(const char* path, union Address* out) {
  return unix_name(path, strlen(path) + 1, out);
}

/* The peer's credentials must be those of the process that connected. */
static void credentials(int accepted, int connected) {
  struct ucred peer = {0}, server = {0};
  socklen_t size = sizeof peer;
  getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &peer, &size);
  getsockopt(connected, SOL_SOCKET, SO_PEERCRED, &server, &size);
  line("unix SO_PEERCRED", 0, 0,
       text("client uid %u gid %u pid is mine %d; server uid %u pid is mine %d", peer.uid, peer.gid,
            peer.pid == getpid(), server.uid, server.pid == getpid()));
}

static void unix_streams(const char* dir) {
  union Address at;
  const char* path = text("%s/listener", dir);
  socklen_t size = unix_path(path, &at);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), s = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL("unix bind", bind(listener, &at.any, size), describe_path(path));
  CALL("unix connect before listen", connect(s, &at.any, size), "");
  must(listen(listener, 1) == 0, "listen");
  CALL("unix connect", connect(s, &at.any, size), "");
  CALL("unix connect again", connect(s, &at.any, size), "");
  const int accepted = accept(listener, NULL, NULL);
  credentials(accepted, s);
  close(accepted), close(s);
  s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  CALL("unix connect SEQPACKET to STREAM", connect(s, &at.any, size), "");
  CALL("unix bind to a name in use", bind(s, &at.any, size), "");
  CALL("unix bind of a bound socket",
       bind(listener, &at.any, unix_path(text("%s/second", dir), &at)), "");
  close(s);
  s = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL("unix connect to missing", connect(s, &at.any, unix_path(text("%s/missing", dir), &at)), "");
  CALL("unix connect to missing parent",
       connect(s, &at.any, unix_path(text("%s/missing/x", dir), &at)), "");
  CALL("unix connect to a file", connect(s, &at.any, unix_path("file", &at)), "");
  CALL("unix connect to a directory", connect(s, &at.any, unix_path(dir, &at)), "");
  CALL("unix connect below a file", connect(s, &at.any, unix_path("file/x", &at)), "");
  CALL("unix connect to a loop", connect(s, &at.any, unix_path("loop", &at)), "");
  CALL("unix connect to a node nobody holds", connect(s, &at.any, unix_path("socket", &at)), "");
  must(symlink(path, text("%s/by_link", dir)) == 0, "by_link");
  CALL("unix connect through a link", connect(s, &at.any, unix_path(text("%s/by_link", dir), &at)),
       facts(s));
  close(s);
  s = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL("unix bind to a link", bind(s, &at.any, unix_path(text("%s/by_link", dir), &at)), "");
  CALL("unix bind, missing parent", bind(s, &at.any, unix_path(text("%s/missing/x", dir), &at)),
       "");
  CALL("unix bind to a directory", bind(s, &at.any, unix_path(dir, &at)), "");
  umask(077);
  CALL("unix bind, umask 077", bind(s, &at.any, unix_path(text("%s/private", dir), &at)),
       describe_path(text("%s/private", dir)));
  umask(022);
  close(s), close(listener);
  s = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL("unix connect after the listener closed", connect(s, &at.any, unix_path(path, &at)), "");
  char longest[108];
  memset(longest, 'l', sizeof longest);
  memcpy(longest, "/tmp/", 5);
  CALL("unix connect, 108 characters and no NUL", connect(s, &at.any, unix_name(longest, 108, &at)),
       "");
  CALL("unix connect, size 111", connect(s, &at.any, 111), "");
  close(s);
}

static void unix_names(void) {
  union Address at;
  char name[40];
  const int n = snprintf(name, sizeof name, "%cabstract-%d", 0, getpid());
  socklen_t size = unix_name(name, (size_t)n, &at);
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0), s = socket(AF_UNIX, SOCK_STREAM, 0),
            other = socket(AF_UNIX, SOCK_STREAM, 0);
  CALL("abstract connect to nobody", connect(s, &at.any, size), "");
  CALL("abstract bind", bind(listener, &at.any, size), "");
  CALL("abstract bind to a name in use", bind(other, &at.any, size), "");
  must(listen(listener, 1) == 0, "listen");
  CALL("abstract connect", connect(s, &at.any, size), "");
  credentials(accept(listener, NULL, NULL), s);
  CALL("autobind", bind(other, &at.any, 2), "");
  size = sizeof at;
  getsockname(other, &at.any, &size);
  line("autobind's name", (long)size, 0, "");
  close(listener), close(s), close(other);
  int pair[2];
  CALL("socketpair STREAM", socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "");
  CALL("socketpair DGRAM", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), "");
  const int dgram = socket(AF_UNIX, SOCK_DGRAM, 0);
  CALL("socket AF_UNIX DGRAM", dgram >= 0 ? 0 : -1, "");
}

static void other_addresses(void) {
  static const struct {
    const char* label;
    const char* address;
  } kCases[] = {
      {"0.0.0.0", "0.0.0.0"}, {"127.9.9.9", "127.9.9.9"}, {"an address of nobody", "192.0.2.1"}};
  for (size_t i = 0; i < COUNT(kCases); ++i) {
    union Address at;
    socklen_t size = loopback(AF_INET, 0, &at);
    inet_pton(AF_INET, kCases[i].address, &at.in.sin_addr);
    const int s = socket(AF_INET, SOCK_STREAM, 0);
    CALL(text("bind to %s", kCases[i].label), bind(s, &at.any, size), "");
    close(s);
  }
  union Address at;
  const int s = socket(AF_INET, SOCK_STREAM, 0), listener = bound(AF_INET, SOCK_STREAM, 1);
  socklen_t size = loopback(AF_INET, htons(80), &at);
  CALL("bind to port 80", bind(s, &at.any, size), "");
  size = loopback(AF_INET, port_of(listener), &at);
  at.in.sin_addr.s_addr = 0;
  CALL("connect to 0.0.0.0", connect(s, &at.any, size), "");
  close(s), close(listener);
}

void socket_cases(void) {
  fresh_objects();
  stream_cases(AF_INET);
  stream_cases(AF_INET6);
  bad_arguments(SYS_connect, "connect");
  bad_arguments(SYS_bind, "bind");
  datagrams();
  // One name in all runs, since names are compared.
  const char dir[] = "/tmp/certgate-semantics";
  static const char* kNames[] = {"listener", "by_link", "private", "second"};
  for (size_t i = 0; i < 4; ++i) unlink(text("%s/%s", dir, kNames[i]));
  must((mkdir(dir, 0755) == 0 || errno == EEXIST) && chmod(dir, 0755) == 0, "mkdir");
  unix_streams(dir);
  unix_names();
  other_addresses();
  for (size_t i = 0; i < 4; ++i) unlink(text("%s/%s", dir, kNames[i]));
  rmdir(dir);
}
