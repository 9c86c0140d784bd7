#include "supervisor/tool_gate.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "supervisor/gate_message.h"

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;
using asio::local::stream_protocol;
using boost::system::error_code;

constexpr std::chrono::seconds kGateIdle{60};
constexpr int kBacklog = 16;

// Below the sandbox's own /run, where the agent's user may connect and nobody else is.
Status bind_gate(const sandbox::Sandbox& box, int socket) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (box.socket_names == sandbox::SocketNames::kBound) {
    std::strncpy(name.sun_path, sandbox::kGateSocket, sizeof name.sun_path - 1);
    CG_TRY(const int error, sandbox::bind_inside(box, socket, -1, name, sizeof name, 0077));
    return error == 0 ? ok() : Status(fail_errno("bind the tool gate inside", error));
  }
  const sandbox::UniqueFd run(
      ::openat(box.root.get(), "run", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  std::snprintf(name.sun_path, sizeof name.sun_path, "/proc/self/fd/%d/certgate.sock", run.get());
  // NOLINTNEXTLINE: the socket API's own cast
  if (!run || ::bind(socket, reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
      ::fchmodat(run.get(), "certgate.sock", 0700, 0) != 0)
    return fail_errno("bind the tool gate inside", errno);
  return ok();
}

}  // namespace

struct ToolGate::Impl : std::enable_shared_from_this<ToolGate::Impl> {
  Impl(asio::io_context& context, ExecCalls& exec_calls, Session& judge, std::string where)
      : io(context), execs(exec_calls), session(judge), cwd(std::move(where)), acceptor(context) {}

  struct Connection {
    explicit Connection(stream_protocol::socket s)
        : socket(std::move(s)), idle(socket.get_executor()) {}
    stream_protocol::socket socket;
    asio::steady_timer idle;
    std::string in, out;
  };
  using Shared = std::shared_ptr<Connection>;

  void accept() {
    acceptor.async_accept([self = shared_from_this()](error_code e, stream_protocol::socket s) {
      if (e == asio::error::operation_aborted) return;
      if (!e && self->open_connections < kMaxGateConnections) {
        ++self->open_connections;
        self->read(std::make_shared<Connection>(std::move(s)));
      }
      self->accept();
    });
  }

  void close(const Shared& c) {
    if (!c->socket.is_open()) return;
    error_code ignored;
    c->idle.cancel();
    c->socket.close(ignored);
    --open_connections;
  }

  void read(const Shared& c) {
    c->idle.expires_after(kGateIdle);
    c->idle.async_wait([self = shared_from_this(), c](error_code e) {
      if (!e) self->close(c);
    });
    asio::async_read_until(c->socket, asio::dynamic_buffer(c->in, kMaxGateLine + 1), '\n',
                           [self = shared_from_this(), c](error_code e, size_t size) {
                             c->idle.cancel();
                             if (e == asio::error::not_found)
                               return self->write(c, gate_error("a request is longer than 128 KiB"),
                                                  true);
                             if (e) return self->close(c);
                             const std::string line = c->in.substr(0, size - 1);
                             c->in.erase(0, size);
                             self->handle(c, line);
                           });
  }

  void write(const Shared& c, std::string text, bool last) {
    c->out = std::move(text);
    asio::async_write(c->socket, asio::buffer(c->out),
                      [self = shared_from_this(), c, last](error_code e, size_t) {
                        e || last ? self->close(c) : self->read(c);
                      });
  }

  void handle(const Shared& c, const std::string& line) {
    auto request = parse_gate_request(line);
    if (!request) return write(c, gate_error(request.error().what), false);
    if (session.crowded())
      return write(c, gate_error("the agent makes too many records; ask again later"), false);
    execs.run_apart([self = shared_from_this(), c, request = *std::move(request)] {
      std::string answer = self->decide(request);
      asio::post(self->io,
                 [self, c, answer = std::move(answer)] { self->write(c, answer, false); });
    });
  }

  // On the tracer thread: it pins and reads the program.
  std::string decide(const GateRequest& request) {
    const CallInfo info{0, "request", request.tool};
    if (const auto refused = session.add_taint(info, request.taint))
      return gate_answer(refused->id, refused->refusal);
    const kernel::Tool* tool = nullptr;
    for (const kernel::Tool& one : session.decider().policy().tools) {
      if (one.name == request.tool) tool = &one;
    }
    PinnedExec pin;
    if (tool == nullptr || execs.pin_program(tool->program, pin) != 0) {
      const Permitted refused = session.refuse_tool(info, request.tool, request.intent);
      return gate_answer(refused.id, refused.refusal);
    }
    pin.argv = request.args;
    pin.argv.insert(pin.argv.begin(), tool->parts[0].value->one_of[0]);
    pin.cwd = request.cwd.empty() ? cwd : request.cwd;
    const auto label = execs.images_label(pin, Reads::kOnce);
    if (!label) {
      const Permitted refused =
          session.refuse_tool(info, request.tool, request.intent, label.error().what);
      return gate_answer(refused.id, refused.refusal);
    }
    const kernel::Call call{pin.effect(), *label, request.sources};
    const Permitted answer = session.permit(info, call, request.intent);
    if (!answer.permit) return gate_answer(answer.id, answer.refusal);
    return gate_answer(GatePermit{answer.id, answer.tool, tool->program, answer.label,
                                  answer.sources, answer.permit->sha256, answer.permit->argv,
                                  kPermitTtl_ns / 1'000'000, answer.asks});
  }

  asio::io_context& io;
  ExecCalls& execs;
  Session& session;
  const std::string cwd;
  stream_protocol::acceptor acceptor;  // io thread only, like all below
  size_t open_connections = 0;
};

ToolGate::ToolGate(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
ToolGate::ToolGate(ToolGate&&) noexcept = default;
ToolGate::~ToolGate() = default;

Result<ToolGate> ToolGate::start(asio::io_context& io, const sandbox::Sandbox& box,
                                 ExecCalls& execs, Session& session, std::string cwd) {
  auto impl = std::make_shared<Impl>(io, execs, session, std::move(cwd));
  CG_TRY(sandbox::UniqueFd socket, sandbox::inside_socket(box, AF_UNIX, SOCK_STREAM));
  CG_CHECK(bind_gate(box, socket.get()));
  if (::listen(socket.get(), kBacklog) != 0) return fail_errno("listen at the tool gate", errno);
  error_code error;
  impl->acceptor.assign(stream_protocol(), socket.get(), error);
  if (error) return fail("tool gate: " + error.message());
  (void)socket.release();
  impl->accept();
  return ToolGate(std::move(impl));
}

}  // namespace certgate::supervisor
