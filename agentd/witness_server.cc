#include "agentd/witness_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <csignal>
#include <utility>

namespace certgate::agentd {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

Result<tcp::endpoint> endpoint_of(const std::string& where) {
  const size_t colon = where.rfind(':');
  if (colon == std::string::npos) return fail("--listen needs ADDRESS:PORT");
  std::string address = where.substr(0, colon);
  if (address.starts_with('[') && address.ends_with(']'))
    address = address.substr(1, address.size() - 2);
  uint16_t port = 0;
  const char* const end = where.data() + where.size();
  const auto [at, error] = std::from_chars(where.data() + colon + 1, end, port);
  error_code bad;
  const auto ip = asio::ip::make_address(address, bad);
  if (bad || error != std::errc() || at != end)
    return fail("--listen needs an IP address and a port, like 127.0.0.1:7380");
  return tcp::endpoint(ip, port);
}

// One request, one answer, the end.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const Witness& witness, std::shared_ptr<size_t> open)
      : stream_(std::move(socket)), witness_(witness), open_(std::move(open)) {
    ++*open_;
    parser_.body_limit(kMaxWitnessBody);
    parser_.header_limit(8192);
  }
  ~Connection() { --*open_; }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start() {
    stream_.expires_after(kWitnessWait);
    http::async_read(stream_, buffer_, parser_,
                     [self = shared_from_this()](error_code e, size_t) { self->answer(e); });
  }

 private:
  void answer(error_code e) {
    if (e == http::error::body_limit) {
      respond({413, "the request is too long\n"});
    } else if (!e) {
      const auto& request = parser_.get();
      if (request.target() != "/add-checkpoint") {
        respond({404, "POST /add-checkpoint\n"});
      } else if (request.method() != http::verb::post) {
        respond({405, "POST /add-checkpoint\n"});
      } else {
        respond(witness_.add_checkpoint(request.body()));
      }
    }
  }

  void respond(WitnessAnswer answer) {
    response_.result(answer.status);
    response_.version(11);
    response_.keep_alive(false);
    response_.set(http::field::content_type, answer.type);
    response_.body() = std::move(answer.body);
    response_.prepare_payload();
    stream_.expires_after(kWitnessWait);
    http::async_write(stream_, response_, [self = shared_from_this()](error_code, size_t) {
      error_code ignored;
      self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    });
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{kMaxWitnessBody + 16384};
  http::request_parser<http::string_body> parser_;
  http::response<http::string_body> response_;
  const Witness& witness_;
  const std::shared_ptr<size_t> open_;
};

}  // namespace

struct WitnessServer::Impl {
  explicit Impl(const Witness& its) : witness(its) {}

  void accept() {
    acceptor.async_accept([this](error_code e, tcp::socket socket) {
      if (e == asio::error::operation_aborted) return;
      // Beyond the limit it is closed at once; what is open has its time limits.
      if (!e && *open < kWitnessConnections)
        std::make_shared<Connection>(std::move(socket), witness, open)->start();
      accept();
    });
  }

  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  const Witness& witness;
  std::shared_ptr<size_t> open = std::make_shared<size_t>(0);
};

WitnessServer::WitnessServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WitnessServer::WitnessServer(WitnessServer&&) noexcept = default;
WitnessServer::~WitnessServer() = default;

Result<WitnessServer> WitnessServer::listen(const std::string& where, const Witness& witness) {
  CG_TRY(const tcp::endpoint endpoint, endpoint_of(where));
  auto impl = std::make_unique<Impl>(witness);
  error_code e;
  tcp::acceptor& acceptor = impl->acceptor;
  acceptor.open(endpoint.protocol(), e);
  if (!e) acceptor.set_option(tcp::acceptor::reuse_address(true), e);
  if (!e) acceptor.bind(endpoint, e);
  if (!e) acceptor.listen(asio::socket_base::max_listen_connections, e);
  if (e) return fail("listen on " + where + ": " + e.message());
  return WitnessServer(std::move(impl));
}

std::string WitnessServer::address() const {
  error_code e;
  const tcp::endpoint at = impl_->acceptor.local_endpoint(e);
  const std::string ip = at.address().to_string();
  return (at.address().is_v6() ? '[' + ip + ']' : ip) + ':' + std::to_string(at.port());
}

Status WitnessServer::run() {
  asio::signal_set stop(impl_->io, SIGTERM, SIGINT);
  stop.async_wait([this](error_code e, int) {
    if (!e) impl_->io.stop();
  });
  impl_->accept();
  impl_->io.run();
  return ok();
}

}  // namespace certgate::agentd
