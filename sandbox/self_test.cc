#include "sandbox/self_test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <iterator>
#include <string>

#include "sandbox/wire.h"

namespace certgate::sandbox {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kDirt = 0xdeadbeef00000000;       // the kernel drops it from an int
constexpr uint32_t kForeignAddress = 0xc6336401;     // 198.51.100.1, of nobody (RFC 5737)
constexpr unsigned long kNoDescriptor = 0xffffffff;  // -1

enum Attempt : uint8_t {
  kOpen,
  kOpenDirty,
  kExec,
  kConnect,
  kRing,
  kTrace,
  kNamespace,
  kCloneDirty,
  kTerminalDirty,
  kPacketDirty,
  kAttempts
};

constexpr SelfTestStep kSteps[] = {
    {"an open of the root directory", EACCES, true},
    {"an openat with dirt above its int arguments", EACCES, true},
    {"an execve", EACCES, true},
    {"a connect to a foreign address", EACCES, true},
    {"io_uring_setup", ENOSYS, false},
    {"ptrace", EPERM, false},
    {"unshare of a user namespace", EPERM, false},
    {"clone into a user namespace with dirt above the flags", EPERM, false},
    {"TIOCSTI with dirt above the request", EPERM, false},
    {"a packet socket with dirt above the family", EAFNOSUPPORT, false},
};
static_assert(std::size(kSteps) == kAttempts);

struct Reply {
  uint32_t step = 0;
  int32_t error = 0;  // 0: it got through
};

int connect_to(uint16_t port) {
  const int fd = static_cast<int>(syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (fd < 0) return errno;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(kForeignAddress);
  const int error = syscall(SYS_connect, fd, &to, sizeof to) == 0 ? 0 : errno;
  close(fd);
  return error;
}

// Of a call that gives a descriptor.
int opened(long fd) {
  if (fd < 0) return errno;
  close(static_cast<int>(fd));
  return 0;
}

int errno_of(long result) { return result < 0 ? errno : 0; }

// Close-on-exec tells our side: the socket's end without a reply means that the exec happened.
int execute(const SelfTestOrder& order) {
  char name[] = "self-test";
  char* const argv[] = {name, nullptr};
  char* const env[] = {nullptr};
  return errno_of(syscall(SYS_execve, order.program, argv, env));
}

int clone_dirty() {
  const long pid = syscall(SYS_clone, kDirt | CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) _exit(0);
  return errno_of(pid);
}

int attempt(uint32_t step, const SelfTestOrder& order) {
  switch (step) {
    case kOpen:
      return opened(syscall(SYS_open, "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    case kOpenDirty:
      return opened(syscall(SYS_openat, kDirt | static_cast<uint32_t>(AT_FDCWD), "/",
                            kDirt | O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    case kExec:
      return execute(order);
    case kConnect:
      return connect_to(order.port);
    case kRing:
      return errno_of(syscall(SYS_io_uring_setup, 0, nullptr));
    case kTrace:
      return errno_of(syscall(SYS_ptrace, PTRACE_TRACEME, 0, 0, 0));
    case kNamespace:
      return errno_of(syscall(SYS_unshare, kDirt | CLONE_NEWUSER));
    case kCloneDirty:
      return clone_dirty();
    case kTerminalDirty:
      return errno_of(syscall(SYS_ioctl, kNoDescriptor, kDirt | TIOCSTI, ""));
    case kPacketDirty:
      return opened(syscall(SYS_socket, kDirt | AF_PACKET, SOCK_RAW, 0));
    default:
      return 0;
  }
}

bool perform(int gate, const SelfTestOrder& order) {
  for (uint32_t step = 0; step < kAttempts; ++step) {
    const Reply reply{step, attempt(step, order)};
    if (send_message(gate, &reply, sizeof reply, -1) != 0) return false;
  }
  return true;
}

Error got_through(const SelfTestStep& step, const std::string& how) {
  return fail(std::string("self-test: ") + step.what + " " + how + ", where " +
              (step.judged ? "the supervisor must refuse it" : "the filter must close it") +
              "; nothing was started. Cure: `certgate doctor` tells whether this host's seccomp "
              "works; otherwise report this with the kernel's version");
}

// Serves until the reply to this step has arrived.
Status await_reply(const Sandbox& box, int listener, const SelfTestStep& step, Reply& reply,
                   const std::function<void()>& serve_one, int limit_ms) {
  const auto deadline = Clock::now() + std::chrono::milliseconds(limit_ms);
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return got_through(step, "got no answer in time");
    pollfd watched[] = {{listener, POLLIN, 0}, {box.gate.get(), POLLIN, 0}};
    if (poll(watched, 2, static_cast<int>(left)) < 0 && errno != EINTR)
      return fail_errno("self-test: poll", errno);
    if (watched[1].revents != 0) break;
    if ((watched[0].revents & POLLIN) != 0) serve_one();
  }
  UniqueFd none;
  const ssize_t got = receive_message(box.gate.get(), &reply, sizeof reply, none);
  if (got == sizeof reply) return ok();
  return got_through(step, "got through or killed its process");
}

}  // namespace

std::span<const SelfTestStep> self_test_steps() { return kSteps; }

Status run_self_test(const Sandbox& box, int listener, const SelfTestOrder& order,
                     const std::function<void()>& serve_one, int limit_ms) {
  if (const int error = send_message(box.gate.get(), &order, sizeof order, -1); error != 0)
    return fail_errno("self-test: ask the agent's first process", -error);
  for (uint32_t i = 0; i < kAttempts; ++i) {
    const SelfTestStep& step = kSteps[i];
    Reply reply;
    CG_CHECK(await_reply(box, listener, step, reply, serve_one, limit_ms));
    if (reply.step != i) return fail("self-test: an answer to another attempt", EPROTO);
    if (reply.error == 0) return got_through(step, "got through");
    if (reply.error != step.error)
      return got_through(
          step, "got errno " + std::to_string(reply.error) + ", not " + std::to_string(step.error));
  }
  return ok();
}

bool await_release(int gate) {
  for (;;) {
    SelfTestOrder order;
    UniqueFd none;
    const ssize_t got = receive_message(gate, &order, sizeof order, none);
    if (got == 1) return true;
    if (got != sizeof order || !perform(gate, order)) return false;
  }
}

}  // namespace certgate::sandbox
