// Tool gate: agents that know us can ask before they exec. A unix socket inside
// (sandbox::kGateSocket, its name in $CERTGATE_SOCKET); requests and answers are gate_message.h.
//
//   connection:  line → decided on the tracer thread → answer → line …
//                closed after kGateIdle without a line, or by a line that is too long
//
// Any process of the sandbox may ask, and any may use the permit: the sandbox is what carries the
// label. The io thread reads and writes; the decision is the session's own. An answer changes
// nothing about the exec but whose words its arguments are, so asking never adds trust.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>

#include "sandbox/launch.h"
#include "supervisor/exec_call.h"
#include "supervisor/session.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxGateConnections = 16;

class ToolGate {
 public:
  // Opens its socket inside; `cwd` is where a request without one is meant.
  static Result<ToolGate> start(boost::asio::io_context& io, const sandbox::Sandbox& box,
                                ExecCalls& execs, Session& session, std::string cwd);
  ToolGate(ToolGate&&) noexcept;
  ~ToolGate();

 private:
  struct Impl;
  explicit ToolGate(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace certgate::supervisor
