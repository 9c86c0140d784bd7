#include "supervisor/datagrams.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <tuple>
#include <utility>

#include "supervisor/host_connect.h"
#include "supervisor/report.h"

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using Descriptor = asio::posix::stream_descriptor;

constexpr size_t kMaxDatagram = 65536;
constexpr int kBurst = 64;  // datagrams taken from one socket before the others have their turn
constexpr size_t kMaxRefused = 4096;
constexpr size_t kWaitingOverhead = 64;  // bytes of bookkeeping for each datagram that waits
constexpr const char* kCall = "datagram";

// Who talks to whom, as seen inside.
struct Conversation {
  Endpoint from, to;
  auto tie() const { return std::tie(from.address, from.port, to.address, to.port); }
  bool operator<(const Conversation& other) const { return tie() < other.tie(); }
};

// One of our sockets inside: all addresses of a family, one port.
struct Gate {
  Gate(asio::io_context& io, int address_family, uint16_t at)
      : socket(io), family(address_family), port(at) {}
  Descriptor socket;
  int family;
  uint16_t port;
};

struct Flow {
  explicit Flow(asio::io_context& io) : host(io) {}
  Descriptor host;  // never closed while anyone can still cut it
  std::atomic<bool> cut{false};
  // The rest belongs to the io thread.
  uint64_t hold = 0;
  bool open = false;
  Clock::time_point used;
  std::vector<std::vector<uint8_t>> waiting;
};

union Control {
  cmsghdr header;
  char room[128];
};

// NOLINTBEGIN: the socket API's own casts
Result<sandbox::UniqueFd> open_gate(NetCalls& net, int family, uint16_t port) {
  CG_TRY(sandbox::UniqueFd fd, net.inside_socket(family, SOCK_DGRAM));
  const int on = 1;
  sockaddr_storage at{};
  socklen_t size = sizeof(sockaddr_in);
  if (family == AF_INET) {
    auto* in = reinterpret_cast<sockaddr_in*>(&at);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    ::setsockopt(fd.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
  } else {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&at);
    size = sizeof *in6;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_FREEBIND, &on, sizeof on);
  }
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), size) != 0)
    return fail_errno("bind UDP port " + std::to_string(port) + " inside the sandbox", errno);
  return fd;
}

// Takes one datagram and says where it was going. Size, or -1.
ssize_t receive(int fd, std::vector<uint8_t>& room, Conversation& who) {
  sockaddr_storage from{};
  Control control{};
  iovec part{room.data(), room.size()};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &message, MSG_DONTWAIT);
  if (n < 0) return -1;
  if (const auto source = endpoint_of(from, message.msg_namelen)) who.from = *source;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      in_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_addr = info.ipi_addr;
      sockaddr_storage storage{};
      std::memcpy(&storage, &to, sizeof to);
      if (const auto target = endpoint_of(storage, sizeof to)) who.to.address = target->address;
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info{};
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      std::memcpy(who.to.address.data(), &info.ipi6_addr, who.to.address.size());
    }
  }
  return n;
}

// The answer comes from where the agent sent to.
void send_back(const Gate& gate, int fd, const Conversation& who, const void* data, size_t size) {
  sockaddr_storage to{};
  const socklen_t to_size = to_sockaddr(who.from, to);
  Control control{};
  iovec part{const_cast<void*>(data), size};
  msghdr message{};
  message.msg_name = &to;
  message.msg_namelen = to_size;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  cmsghdr* c = &control.header;
  if (gate.family == AF_INET) {
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, who.to.address.data() + 12, sizeof info.ipi_spec_dst);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(CMSG_DATA(c), &info, sizeof info);
    message.msg_controllen = CMSG_SPACE(sizeof info);
  } else {
    in6_pktinfo info{};
    std::memcpy(&info.ipi6_addr, who.to.address.data(), sizeof info.ipi6_addr);
    c->cmsg_level = IPPROTO_IPV6;
    c->cmsg_type = IPV6_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    std::memcpy(CMSG_DATA(c), &info, sizeof info);
    message.msg_controllen = CMSG_SPACE(sizeof info);
  }
  (void)::sendmsg(fd, &message,
                  MSG_DONTWAIT | MSG_NOSIGNAL);  // what is not taken is a lost datagram
}

// From here on nothing is sent or received any more; callable from any thread.
void cut(Flow& flow) {
  flow.cut = true;
  const sockaddr none{AF_UNSPEC, {}};
  ::connect(flow.host.native_handle(), &none, sizeof none);
}
// NOLINTEND

}  // namespace

struct Datagrams::Impl : std::enable_shared_from_this<Datagrams::Impl> {
  Impl(asio::io_context& context, const NameTable& table, Session& judge)
      : io(context), names(table), session(judge), sweep_timer(context), room(kMaxDatagram) {}

  void serve(const std::shared_ptr<Gate>& gate) {
    gate->socket.async_wait(Descriptor::wait_read, [self = shared_from_this(), gate](error_code e) {
      if (e) return;
      for (int i = 0; i < kBurst; ++i) {
        Conversation who;
        who.to.port = gate->port;
        const ssize_t n = receive(gate->socket.native_handle(), self->room, who);
        if (n < 0) break;
        self->take(gate, who, static_cast<size_t>(n));
      }
      self->serve(gate);
    });
  }

  void take(const std::shared_ptr<Gate>& gate, const Conversation& who, size_t size) {
    const auto it = flows.find(who);
    if (it != flows.end() && !it->second->cut) return pass_on(*it->second, size);
    if (it != flows.end()) forget(it);
    if (const auto flow = admit(gate, who)) pass_on(*flow, size);
  }

  void pass_on(Flow& flow, size_t size) {
    flow.used = Clock::now();
    if (flow.open) {
      (void)::send(flow.host.native_handle(), room.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (waiting_bytes + size + kWaitingOverhead <= kMaxWaitingBytes) {
      waiting_bytes += size + kWaitingOverhead;
      flow.waiting.emplace_back(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(size));
    }
  }

  // Judges a new conversation. Empty when it is refused.
  std::shared_ptr<Flow> admit(const std::shared_ptr<Gate>& gate, const Conversation& who) {
    const auto now = Clock::now();
    const std::pair target(who.to.address, who.to.port);
    const auto known = refused.find(target);
    if (known != refused.end() && now < known->second) return nullptr;
    if (session.crowded()) return nullptr;  // lost, as a datagram may be: nothing was decided
    if (refused.size() >= kMaxRefused) refused.clear();
    kernel::ConnectEffect effect;
    effect.transport = kernel::Transport::kUdp;
    effect.address = who.to.address;
    effect.port = who.to.port;
    effect.host = names.name_of(effect.address).value_or(address_text(effect.address));
    const CallInfo info{0, kCall, object_text(effect)};
    const auto again_at = now + std::chrono::seconds(kRefusedSeconds);
    if (flows.size() >= kMaxConversations) {
      refused[target] = again_at;
      session.refuse_constraint(info, object_text(effect), kernel::Verb::kConnect,
                                "more than 1024 UDP conversations at once");
      return nullptr;
    }
    Hold hold;
    hold.kind = Hold::Kind::kConnection;
    Judged judged = session.judge(info, kernel::Call{effect, {}}, hold);
    if (!judged.certificate || kernel::action_digest(effect) != judged.certificate->digest()) {
      refused[target] = again_at;
      return nullptr;
    }
    auto flow = std::make_shared<Flow>(io);
    flow->hold = judged.hold;
    flow->used = now;
    flows.emplace(who, flow);
    const kernel::Rule& rule = *judged.rule(0);
    asio::post(workers, [self = shared_from_this(), gate, who, effect, &rule, seq = judged.seq] {
      sandbox::UniqueFd host;
      int error = EHOSTUNREACH;
      if (const auto to = host_targets(rule, effect, self->names))
        error = connect_host(
            *to, SOCK_DGRAM, 0, [] { return 0; }, host);
      self->session.outcome(seq, kCall, 0, error, "emulated");
      asio::post(self->io,
                 [self, gate, who, fd = std::make_shared<sandbox::UniqueFd>(std::move(host))] {
                   self->opened(gate, who, *fd);
                 });
    });
    return flow;
  }

  void opened(const std::shared_ptr<Gate>& gate, const Conversation& who, sandbox::UniqueFd& host) {
    const auto it = flows.find(who);
    if (it == flows.end()) return;
    const std::shared_ptr<Flow> flow = it->second;
    if (!host) return forget(it);
    flow->host.assign(host.release());
    if (!session.settle_connection(flow->hold, [flow] { cut(*flow); })) return forget(it);
    flow->open = true;
    for (const auto& bytes : take_waiting(*flow)) {
      (void)::send(flow->host.native_handle(), bytes.data(), bytes.size(),
                   MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    answers(gate, who, flow);
  }

  void answers(const std::shared_ptr<Gate>& gate, const Conversation& who,
               const std::shared_ptr<Flow>& flow) {
    flow->host.async_wait(
        Descriptor::wait_read, [self = shared_from_this(), gate, who, flow](error_code e) {
          if (e || flow->cut) return;
          for (int i = 0; i < kBurst && !flow->cut; ++i) {
            const ssize_t n = ::recv(flow->host.native_handle(), self->room.data(),
                                     self->room.size(), MSG_DONTWAIT);
            if (n < 0) break;
            flow->used = Clock::now();
            send_back(*gate, gate->socket.native_handle(), who, self->room.data(),
                      static_cast<size_t>(n));
          }
          self->answers(gate, who, flow);
        });
  }

  std::vector<std::vector<uint8_t>> take_waiting(Flow& flow) {
    for (const auto& bytes : flow.waiting) waiting_bytes -= bytes.size() + kWaitingOverhead;
    return std::exchange(flow.waiting, {});
  }

  using Flows = std::map<Conversation, std::shared_ptr<Flow>>;
  void forget(Flows::iterator it) {
    error_code ignored;
    if (it->second->host.is_open()) it->second->host.cancel(ignored);
    take_waiting(*it->second);
    session.release(it->second->hold);
    flows.erase(it);
  }

  void sweep() {
    sweep_timer.expires_after(std::chrono::seconds(kIdleSeconds / 4));
    sweep_timer.async_wait([self = shared_from_this()](error_code e) {
      if (e) return;
      const auto oldest = Clock::now() - std::chrono::seconds(kIdleSeconds);
      for (auto it = self->flows.begin(); it != self->flows.end();) {
        const auto at = it++;
        if (at->second->cut || at->second->used < oldest) self->forget(at);
      }
      self->sweep();
    });
  }

  asio::io_context& io;
  const NameTable& names;
  Session& session;
  asio::steady_timer sweep_timer;
  std::vector<uint8_t> room;  // io thread only, like all below
  Flows flows;
  size_t waiting_bytes = 0;
  std::map<std::pair<Address, uint16_t>, Clock::time_point> refused;  // until when
  asio::thread_pool workers{1};
};

Datagrams::Datagrams(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Datagrams::Datagrams(Datagrams&&) noexcept = default;
Datagrams::~Datagrams() = default;

Result<Datagrams> Datagrams::start(asio::io_context& io, NetCalls& net, const NameTable& names,
                                   Session& session) {
  auto impl = std::make_shared<Impl>(io, names, session);
  for (const uint16_t port : session.decider().policy().udp_ports()) {
    for (const int family : {AF_INET, AF_INET6}) {
      auto fd = open_gate(net, family, port);
      // A host without IPv6 has no such sockets, and no such addresses.
      if (!fd && family == AF_INET6 && fd.error().code == EAFNOSUPPORT) continue;
      if (!fd) return fd.error();
      auto gate = std::make_shared<Gate>(io, family, port);
      gate->socket.assign(fd->release());
      impl->serve(gate);
    }
  }
  impl->sweep();
  return Datagrams(std::move(impl));
}

}  // namespace certgate::supervisor
