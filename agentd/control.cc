#include "agentd/control.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <utility>

#include "agentd/state_dir.h"
#include "sandbox/wire.h"
#include "supervisor/sealed_text.h"

namespace certgate::agentd {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using sandbox::UniqueFd;

constexpr const char* kDirectory = "control";
constexpr mode_t kOnlyUs = 0177;

// The state directory's own path may be longer than a socket's address can be.
sockaddr_un address_of(int dir, const std::string& run) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  std::snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/%s", dir, run.c_str());
  return at;
}

bool is_run(const std::string& text) {
  return !text.empty() && text.size() <= 32 &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string::npos;
}

Result<UniqueFd> open_directory(int state_dir) {
  CG_CHECK(make_dir(state_dir, kDirectory));
  UniqueFd dir(::openat(state_dir, kDirectory, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!dir) return disk_error(kDirectory, errno);
  return dir;
}

Result<std::string> receive_text(int fd, int flags) {
  std::string text(kMaxControlBytes, '\0');
  UniqueFd beside;
  const ssize_t n = sandbox::receive_message(fd, text.data(), text.size(), beside, flags);
  if (n == -EPROTO) return fail("a message too long for a control socket", EMSGSIZE);
  if (n < 0) return fail_errno("receive on a control socket", static_cast<int>(-n));
  if (n == 0) return fail("the other side has closed the control socket", ECONNRESET);
  text.resize(static_cast<size_t>(n));
  if (!beside) return text;
  CG_TRY(const std::string body, supervisor::read_sealed(beside.get(), kMaxControlText));
  return text + body;
}

Status send_text(int fd, const std::string& text, int flags) {
  if (text.size() > kMaxControlText) return fail("too long for a control socket", EMSGSIZE);
  size_t here = text.size();
  UniqueFd beside;
  if (here > kMaxControlBytes) {
    here = text.find('\n') + 1;  // a verb, or how it went
    CG_TRY(beside, supervisor::seal_text(text.substr(here)));
  }
  const int error = -sandbox::send_message(fd, text.data(), here, beside.get(), flags);
  return error == 0 ? ok() : Status(fail_errno("send on a control socket", error));
}

}  // namespace

// The listener and who has connected, all on one io thread.
struct Control::Served {
  struct Peer {
    Peer(asio::io_context& io, UniqueFd from)
        : fd(std::move(from)), wait(io, ::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0)), limit(io) {}
    UniqueFd fd;
    asio::posix::stream_descriptor wait;
    asio::steady_timer limit;
  };

  Served(asio::io_context& loop, int from, const std::map<std::string, Handler>& all)
      : io(loop), listener(from), wait(loop, ::fcntl(from, F_DUPFD_CLOEXEC, 0)), handlers(all) {}

  void accept_one() {
    wait.async_wait(asio::posix::stream_descriptor::wait_read, [this](error_code e) {
      if (e) return;
      UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      if (fd && peers < kMaxControlPeers) serve(std::make_shared<Peer>(io, std::move(fd)));
      accept_one();
    });
  }

  void serve(const std::shared_ptr<Peer>& peer) {
    ++peers;
    peer->limit.expires_after(std::chrono::seconds(kControlSeconds));
    peer->limit.async_wait([peer](error_code e) {
      if (!e) peer->wait.cancel();
    });
    peer->wait.async_wait(asio::posix::stream_descriptor::wait_read, [this, peer](error_code e) {
      --peers;
      peer->limit.cancel();
      if (e) return;
      const auto asked = receive_text(peer->fd.get(), MSG_DONTWAIT);
      if (!asked) return;
      const Result<std::string> answer = handle(peer->fd.get(), *asked);
      (void)send_text(peer->fd.get(), answer ? "ok\n" + *answer : "no\n" + answer.error().what,
                      MSG_DONTWAIT);  // who asked and went has no use for it
    });
  }

  Result<std::string> handle(int fd, const std::string& asked) const {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
      return fail_errno("who asks on a control socket", errno);
    if (peer.uid != ::geteuid() && peer.uid != 0)
      return fail("only the user who started certgate, and root, may ask");
    const size_t line = asked.find('\n');
    const auto handler = handlers.find(asked.substr(0, line));
    if (handler == handlers.end()) return fail("this run's certgate does not know that command");
    return handler->second(line == std::string::npos ? "" : asked.substr(line + 1), peer.uid);
  }

  asio::io_context& io;
  const int listener;
  asio::posix::stream_descriptor wait;
  const std::map<std::string, Handler>& handlers;
  size_t peers = 0;
};

Control::Control(UniqueFd dir, std::string run, UniqueFd listener)
    : dir_(std::move(dir)), run_(std::move(run)), listener_(std::move(listener)) {}
Control::Control(Control&&) noexcept = default;

Control::~Control() {
  served_.reset();
  if (listener_) ::unlinkat(dir_.get(), run_.c_str(), 0);
}

Result<Control> Control::make(int state_dir, const std::string& run) {
  if (!is_run(run)) return fail("control: not the id of a run");
  CG_TRY(UniqueFd dir, open_directory(state_dir));
  UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return fail_errno("make a control socket", errno);
  const sockaddr_un at = address_of(dir.get(), run);
  const mode_t before = ::umask(kOnlyUs);
  // NOLINTNEXTLINE: the socket API's own cast
  const bool bound = ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
  const int error = errno;
  ::umask(before);
  if (!bound) return fail_errno("make the control socket of this run", error);
  Control out(std::move(dir), run, std::move(listener));
  if (::listen(out.listener_.get(), kMaxControlPeers) != 0)
    return fail_errno("listen on the control socket", errno);
  return out;
}

void Control::on(const std::string& verb, Handler handler) { handlers_[verb] = std::move(handler); }

void Control::serve(asio::io_context& io) {
  served_ = std::make_shared<Served>(io, listener_.get(), handlers_);
  served_->accept_one();
}

Result<std::vector<std::string>> running_controls(int state_dir) {
  CG_TRY(const std::vector<std::string> names, list_dir(state_dir, kDirectory));
  std::vector<std::string> out;
  for (const std::string& name : names) {
    if (is_run(name)) out.push_back(name);
  }
  return out;
}

Result<std::string> control_call(int state_dir, const std::string& run, const std::string& verb,
                                 const std::string& body) {
  if (!is_run(run)) return fail("'" + run + "' is not the id of a run", ENOENT);
  CG_TRY(const UniqueFd dir, open_directory(state_dir));
  const UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("make a socket", errno);
  const timeval limit{kControlSeconds, 0};
  for (const int option : {SO_RCVTIMEO, SO_SNDTIMEO})
    ::setsockopt(fd.get(), SOL_SOCKET, option, &limit, sizeof limit);
  const sockaddr_un at = address_of(dir.get(), run);
  // NOLINTNEXTLINE: the socket API's own cast
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) {
    const int error = errno;
    if (error == ECONNREFUSED) ::unlinkat(dir.get(), run.c_str(), 0);
    return fail("no run " + run + " is there to be asked (" + std::strerror(error) + ")", error);
  }
  CG_CHECK(send_text(fd.get(), verb + "\n" + body, 0));
  CG_TRY(const std::string reply, receive_text(fd.get(), 0));
  const size_t line = reply.find('\n');
  const std::string rest = line == std::string::npos ? "" : reply.substr(line + 1);
  if (reply.substr(0, line) != "ok") return fail(rest);
  return rest;
}

}  // namespace certgate::agentd
