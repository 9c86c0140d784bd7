#include "supervisor/resolver.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <map>
#include <set>

#include "kernel/mutant.h"
#include "supervisor/dns.h"

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using asio::ip::udp;
using boost::system::error_code;
using Reply = std::function<void(std::vector<uint8_t>)>;

constexpr uint16_t kPort = 53;
constexpr uint32_t kTtl = 60;  // seconds, for us and for the caller's cache
constexpr size_t kMaxRemembered = 4096;
constexpr size_t kWorkers = 4;

Status bind_inside(int fd, bool tcp_socket) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(kPort);
  ::inet_pton(AF_INET, sandbox::kResolverAddress, &at.sin_addr);
  // NOLINTNEXTLINE: the socket API's own cast
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) {
    return fail_errno("bind the resolver inside the sandbox", errno);
  }
  if (tcp_socket && ::listen(fd, 16) != 0)
    return fail_errno("listen for TCP queries inside", errno);
  return ok();
}

}  // namespace

struct Resolver::Impl : std::enable_shared_from_this<Resolver::Impl> {
  Impl(asio::io_context& context, NameTable& table, Session& judge)
      : io(context), names(table), session(judge), datagrams(context), streams(context) {}

  struct Stream {
    explicit Stream(tcp::socket s) : socket(std::move(s)) {}
    tcp::socket socket;
    std::array<uint8_t, 2> head{};
    std::vector<uint8_t> body;
  };
  using Clock = std::chrono::steady_clock;

  void receive() {
    datagrams.async_receive_from(
        asio::buffer(room), from, [self = shared_from_this()](error_code e, size_t n) {
          if (e == asio::error::operation_aborted) return;
          if (!e) {
            const udp::endpoint to = self->from;
            self->answer_query(self->room.data(), n, [self, to](const std::vector<uint8_t>& bytes) {
              error_code ignored;  // a reply that cannot be sent is a lost datagram
              self->datagrams.send_to(asio::buffer(bytes), to, 0, ignored);
            });
          }
          self->receive();
        });
  }

  void accept() {
    streams.async_accept([self = shared_from_this()](error_code e, tcp::socket socket) {
      if (e == asio::error::operation_aborted) return;
      if (!e && self->open_streams < kMaxTcpQueries) {
        ++self->open_streams;
        self->read_stream(std::make_shared<Stream>(std::move(socket)));
      }
      self->accept();
    });
  }

  void read_stream(const std::shared_ptr<Stream>& stream) {
    asio::async_read(
        stream->socket, asio::buffer(stream->head),
        [self = shared_from_this(), stream](error_code e, size_t) {
          const size_t size = size_t{stream->head[0]} << 8 | stream->head[1];
          if (e || size == 0 || size > dns::kMaxQuery) return self->end_stream();
          stream->body.resize(size);
          asio::async_read(
              stream->socket, asio::buffer(stream->body),
              [self, stream](error_code error, size_t n) {
                if (error) return self->end_stream();
                self->answer_query(
                    stream->body.data(), n, [self, stream](std::vector<uint8_t> bytes) {
                      const auto length = static_cast<uint16_t>(bytes.size());
                      bytes.insert(bytes.begin(), {static_cast<uint8_t>(length >> 8),
                                                   static_cast<uint8_t>(length)});
                      auto owned = std::make_shared<std::vector<uint8_t>>(std::move(bytes));
                      asio::async_write(stream->socket, asio::buffer(*owned),
                                        [self, stream, owned](error_code, size_t) {
                                          self->end_stream();  // one query a connection, as RFC
                                                               // 7766 allows a server
                                        });
                    });
              });
        });
  }
  void end_stream() { --open_streams; }

  void answer_query(const uint8_t* data, size_t size, Reply reply) {
    const auto parsed = dns::parse_query(data, size);
    if (!parsed) return;  // not a query: nothing that could be answered
    const dns::Query& query = *parsed;
    if (query.cls != dns::kClassIn)
      return reply(dns::answer(query, dns::Code::kNotImplemented, {}, 0));
    if (mutant(Mutant::kNames)) return reply(found(query));
    if (!names.could_allow(query.name)) {
      refuse(query.name);
      return reply(dns::answer(query, dns::Code::kNoSuchName, {}, 0));
    }
    if (query.type != dns::kTypeA) return reply(dns::answer(query, dns::Code::kOk, {}, 0));
    // Where nothing may be asked the name still gets its address: the connection is refused there,
    // with the reason.
    if (names.has_via(query.name) || !names.allows_now(query.name, session.label()))
      return reply(found(query));
    const auto it = exists.find(query.name);
    if (it != exists.end() && Clock::now() < it->second.until) {
      return reply(it->second.found ? found(query)
                                    : dns::answer(query, dns::Code::kNoSuchName, {}, 0));
    }
    look_up(query, std::move(reply));
  }

  std::vector<uint8_t> found(const dns::Query& query) {
    const auto address = names.bind(query.name);
    if (!address) return dns::answer(query, dns::Code::kServerFailure, {}, 0);
    const uint32_t ipv4 = uint32_t{(*address)[12]} << 24 | uint32_t{(*address)[13]} << 16 |
                          uint32_t{(*address)[14]} << 8 | (*address)[15];
    return dns::answer(query, dns::Code::kOk, ipv4, kTtl);
  }

  // The host's resolver may take seconds: it runs elsewhere, its answer comes back to the io
  // thread. A name that is being asked for already is not asked for again.
  void look_up(const dns::Query& query, Reply reply) {
    const auto found_name = asked.find(query.name);
    if (waiters >= kMaxWaiters || (found_name == asked.end() && asked.size() >= kMaxLookups))
      return reply(dns::answer(query, dns::Code::kServerFailure, {}, 0));
    ++waiters;
    if (found_name != asked.end()) {
      found_name->second.push_back({query, std::move(reply)});
      return;
    }
    asked[query.name].push_back({query, std::move(reply)});
    asio::post(workers, [self = shared_from_this(), name = query.name] {
      const bool there = static_cast<bool>(resolve_on_host(name));
      asio::post(self->io, [self, name, there] { self->looked_up(name, there); });
    });
  }

  void looked_up(const std::string& name, bool there) {
    if (exists.size() >= kMaxRemembered) exists.clear();
    exists[name] = {there, Clock::now() + std::chrono::seconds(kTtl)};
    const auto answered = asked.extract(name);
    waiters -= answered.mapped().size();
    for (const Waiting& one : answered.mapped()) {
      one.reply(there ? found(one.query) : dns::answer(one.query, dns::Code::kNoSuchName, {}, 0));
    }
  }

  // One refusal a name: a program asks for A and AAAA, and again.
  void refuse(const std::string& name) {
    if (refused.size() >= kMaxRemembered || !refused.insert(name).second) return;
    session.refuse_name(name);
  }

  struct Known {
    bool found = false;
    Clock::time_point until;
  };
  struct Waiting {
    dns::Query query;
    Reply reply;
  };
  asio::io_context& io;
  NameTable& names;
  Session& session;
  udp::socket datagrams;
  tcp::acceptor streams;
  udp::endpoint from;
  std::array<uint8_t, dns::kMaxQuery> room{};
  std::map<std::string, Known> exists;  // io thread only, like all below
  std::set<std::string> refused;
  std::map<std::string, std::vector<Waiting>> asked;  // by name, while the host looks it up
  size_t waiters = 0, open_streams = 0;
  asio::thread_pool workers{kWorkers};
};

Resolver::Resolver(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
Resolver::Resolver(Resolver&&) noexcept = default;
Resolver::~Resolver() = default;

Result<Resolver> Resolver::start(asio::io_context& io, NetCalls& net, NameTable& names,
                                 Session& session) {
  auto impl = std::make_shared<Impl>(io, names, session);
  CG_TRY(sandbox::UniqueFd datagrams, net.inside_socket(AF_INET, SOCK_DGRAM));
  CG_TRY(sandbox::UniqueFd streams, net.inside_socket(AF_INET, SOCK_STREAM));
  CG_CHECK(bind_inside(datagrams.get(), false));
  CG_CHECK(bind_inside(streams.get(), true));
  error_code error;
  impl->datagrams.assign(udp::v4(), datagrams.get(), error);
  if (error) return fail("resolver: " + error.message());
  (void)datagrams.release();
  impl->streams.assign(tcp::v4(), streams.get(), error);
  if (error) return fail("resolver: " + error.message());
  (void)streams.release();
  impl->receive();
  impl->accept();
  return Resolver(std::move(impl));
}

}  // namespace certgate::supervisor
