#include "supervisor/self_test.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <cstring>

#include "kernel/mutant.h"
#include "sandbox/self_test.h"
#include "supervisor/connect_call.h"
#include "supervisor/exec_call.h"
#include "supervisor/open_call.h"
#include "supervisor/supervise.h"

namespace certgate::supervisor {
namespace {

constexpr const char* kPrograms[] = {"/bin/true", "/usr/bin/true", "/usr/bin/env", "/bin/sh",
                                     "/lib64/ld-linux-x86-64.so.2"};

Status find_program(const PathWalk& walk, sandbox::SelfTestOrder& order) {
  for (const char* path : kPrograms) {
    Resolution found =
        walk.resolve(Caller{::getpid()}, Base{}, path, Final::kFollow, Missing::kError);
    if (found.error || ::faccessat(found.object.get(), "", X_OK, AT_EMPTY_PATH) != 0) continue;
    std::strncpy(order.program, path, sizeof order.program - 1);
    return ok();
  }
  return fail("self-test: none of /bin/true, /usr/bin/env and /bin/sh is inside the sandbox",
              ENOENT);
}

// Without a trap a connection to any address at this port would succeed inside.
Status listen_inside(const sandbox::Sandbox& box, sandbox::UniqueFd& listener, uint16_t& port) {
  CG_TRY(listener, sandbox::inside_socket(box, AF_INET, SOCK_STREAM));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  socklen_t size = sizeof at;
  // NOLINTBEGIN: the socket API's own casts
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&at), &size) != 0) {
    return fail_errno("self-test: listen inside the sandbox", errno);
  }
  // NOLINTEND
  port = ntohs(at.sin_port);
  return ok();
}

Status prove(const sandbox::Sandbox& box, Trap& trap, ContentDigests& digests) {
  sandbox::SelfTestOrder order;
  CG_CHECK(find_program(trap.walk, order));
  sandbox::UniqueFd target;
  CG_CHECK(listen_inside(box, target, order.port));
  ScriptBindings bindings;
  NameTable names(trap.session.decider().policy());
  boost::asio::io_context io(1);
  Relay relay(io);
  BlockingPool pool(trap.listener);
  OpenCalls opens(trap, pool, bindings, digests);
  ExecCalls execs(trap, bindings, digests);
  NetCalls net(trap, pool, box, names, relay);
  const auto serve_one = [&] {
    const auto call = trap.listener.receive();
    if (!call) return;
    if (call->nr == SYS_open || call->nr == SYS_openat) return opens.handle(*call);
    if (call->nr == SYS_execve) return execs.submit(*call);
    if (call->nr == SYS_connect) return net.handle(*call);
    trap.listener.refuse(call->id, ENOTRECOVERABLE);  // nothing else is attempted
  };
  return sandbox::run_self_test(box, trap.listener.fd(), order, serve_one);
}

}  // namespace

Status prove_refusals(const sandbox::Sandbox& box, const Trap& trap, TokenLedger& ledger,
                      LabelView labels, ReaderTable& readers, Recorder& recorder, Channel& channel,
                      ContentDigests& digests) {
  if (mutant(Mutant::kSelfTest)) return ok();
  kernel::Policy no_rules;
  no_rules.name = "self-test";
  const kernel::Decider& real = trap.session.decider();
  Session session(kernel::Decider(no_rules, real.chain(), real.holder()), {}, recorder,
                  std::move(labels), readers, channel, ledger, Report::kSelfTest);
  Trap probe{trap.listener, session, trap.walk, trap.places, trap.stdio, trap.uid, trap.gid, {}};
  Status proved = prove(box, probe, digests);
  size_t judged = 0;
  for (const sandbox::SelfTestStep& step : sandbox::self_test_steps()) judged += step.judged;
  if (proved && session.refusals() != judged) {
    proved = fail("self-test: " + std::to_string(session.refusals()) + " refusals recorded, not " +
                  std::to_string(judged) + "; nothing was started");
  }
  if (proved) return proved;
  ::syscall(SYS_pidfd_send_signal, box.init_pidfd.get(), SIGKILL, nullptr, 0);
  kernel::Record stop;
  stop.error = kExitFailed;
  stop.grade = kernel::kSelfTestGrade;
  stop.why = proved.error().what;
  if (const Status closed = recorder.close(std::move(stop)); !closed) return closed;
  return proved;
}

}  // namespace certgate::supervisor
