#include "supervisor/relay.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <map>
#include <mutex>
#include <utility>

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;
using Socket = asio::generic::stream_protocol::socket;
using boost::system::error_code;

void abort_on_close(int fd) {
  const linger now{1, 0};  // the peer sees a reset, as the other side did
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

}  // namespace

// One connection; lives on the io thread. The raw fds stay open until it has left the table.
struct Link : std::enable_shared_from_this<Link> {
  Link(asio::io_context& io) : inside(io), outside(io) {}

  void start() {
    pump(inside, outside, up);
    pump(outside, inside, down);
  }
  void pump(Socket& from, Socket& to, std::array<char, kRelayBuffer>& buffer) {
    from.async_read_some(asio::buffer(buffer), [self = shared_from_this(), &from, &to, &buffer](
                                                   error_code error, size_t n) {
      if (error == asio::error::eof) {
        error_code ignored;
        to.shutdown(Socket::shutdown_send, ignored);  // half-close travels on
        return self->finished();
      }
      if (error) return self->broken();
      asio::async_write(to, asio::buffer(buffer.data(), n),
                        [self, &from, &to, &buffer](error_code write_error, size_t) {
                          if (write_error) return self->broken();
                          self->pump(from, to, buffer);
                        });
    });
  }
  void broken() {
    if (inside.is_open()) abort_on_close(inside.native_handle());
    if (outside.is_open()) abort_on_close(outside.native_handle());
    ::shutdown(inside.native_handle(), SHUT_RDWR);
    ::shutdown(outside.native_handle(), SHUT_RDWR);
    finished();
  }
  void finished() {
    if (++done == 2) on_end();
  }

  Socket inside, outside;
  std::array<char, kRelayBuffer> up{}, down{};
  std::function<void()> on_end;
  int done = 0;  // directions that have ended
};

struct Relay::Impl {
  explicit Impl(asio::io_context& context) : io(context) {}
  asio::io_context& io;
  std::mutex mutex;  // guards the table
  std::map<uint64_t, std::shared_ptr<Link>> links;
  uint64_t next = 1;
};

Relay::Relay(asio::io_context& io) : impl_(std::make_shared<Impl>(io)) {}
Relay::~Relay() = default;

uint64_t Relay::add(sandbox::UniqueFd inside, sandbox::UniqueFd outside,
                    std::function<void()> on_end) {
  auto link = std::make_shared<Link>(impl_->io);
  error_code error;
  link->inside.assign({AF_INET, SOCK_STREAM}, inside.get(), error);
  if (error) return 0;
  (void)inside.release();
  link->outside.assign({AF_INET, SOCK_STREAM}, outside.get(), error);
  if (error) return 0;
  (void)outside.release();
  uint64_t id = 0;
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->links.size() >= kMaxRelays) return 0;
    id = impl_->next++;
    impl_->links.emplace(id, link);
  }
  link->on_end = [impl = impl_, id, on_end = std::move(on_end)] {
    std::shared_ptr<Link> last;
    {
      const std::lock_guard lock(impl->mutex);
      const auto it = impl->links.find(id);
      if (it == impl->links.end()) return;
      last = std::move(it->second);
      impl->links.erase(it);
    }
    on_end();
  };
  return id;
}

void Relay::start(uint64_t id) {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->links.find(id);
  if (it == impl_->links.end()) return;
  asio::post(impl_->io, [link = it->second] { link->start(); });
}

void Relay::shut(uint64_t id) {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->links.find(id);
  if (it == impl_->links.end()) return;
  // Both directions at once, in the kernel: what is in our buffers was written before, the rest
  // never leaves.
  ::shutdown(it->second->outside.native_handle(), SHUT_RDWR);
  ::shutdown(it->second->inside.native_handle(), SHUT_RDWR);
}

}  // namespace certgate::supervisor
