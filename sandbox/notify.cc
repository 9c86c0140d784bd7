#include "sandbox/notify.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "kernel/mutant.h"

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

namespace certgate::sandbox {
namespace {

constexpr uint64_t kSyncWakeUp = 1;  // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP

bool respond(int fd, uint64_t id, int64_t value, int error, uint32_t flags) {
  seccomp_notif_resp response{};
  response.id = id;
  response.val = value;
  response.error = -error;
  response.flags = flags;
  return ::ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &response) == 0;
}

// 0 or the errno.
int install(int listener, uint64_t id, int fd, uint32_t newfd_flags) {
  seccomp_notif_addfd addfd{};
  addfd.id = id;
  addfd.flags = SECCOMP_ADDFD_FLAG_SEND;
  addfd.srcfd = static_cast<uint32_t>(fd);
  addfd.newfd_flags = newfd_flags;
  return ::ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &addfd) >= 0 ? 0 : errno;
}

}  // namespace

bool Listener::set_wake(Wake wake) const {
  const uint64_t flags = wake == Wake::kSameCpu ? kSyncWakeUp : 0;
  return ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags) == 0;
}

Result<TrappedCall> Listener::receive() const {
  for (;;) {
    // The kernel demands zeroed memory, and may know a longer struct than our headers do.
    union {
      seccomp_notif notif;
      char room[256];
    } buffer;
    std::memset(&buffer, 0, sizeof buffer);
    if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, &buffer.notif) == 0) {
      TrappedCall call;
      call.id = buffer.notif.id;
      call.tid = static_cast<int>(buffer.notif.pid);
      call.nr = buffer.notif.data.nr;
      for (int i = 0; i < 6; ++i) call.args[i] = buffer.notif.data.args[i];
      if (answer_again(call)) continue;
      return call;
    }
    if (errno == ENOENT || errno == EINTR) {
      // Before 6.11 RECV may never return once the last task has gone: ask poll first.
      pollfd p{fd_.get(), POLLIN, 0};
      if (::poll(&p, 1, -1) > 0 && (p.revents & (POLLHUP | POLLERR)) && !(p.revents & POLLIN)) {
        return fail("the sandbox has ended", ENODEV);
      }
      continue;
    }
    return fail_errno("receive a seccomp notification", errno);
  }
}

bool Listener::valid(uint64_t id) const {
  return ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

bool Listener::answer(const TrappedCall& call, int64_t value) const {
  const bool sent = respond(fd_.get(), call.id, value, 0, 0);
  const bool lost = !sent && errno == ENOENT;
  const bool doubtful = sent && interrupts_ == Interrupts::kHandled;
  if (!lost && !doubtful) return sent;
  const bool kept = restarts_.keep(call, {lost ? Arrival::kLost : Arrival::kPerhaps, value, {}, 0});
  return sent || kept;
}

bool Listener::refuse(uint64_t id, int error) const {
  if (mutant(Mutant::kContinues)) return proceed_to_exec(id);
  if (mutant(Mutant::kSilent)) return true;
  return respond(fd_.get(), id, 0, error, 0);
}

bool Listener::proceed_to_exec(uint64_t id) const {
  return respond(fd_.get(), id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

int Listener::inject(const TrappedCall& call, int fd, uint32_t newfd_flags) const {
  const int error = install(fd_.get(), call.id, fd, newfd_flags);
  const bool lost = error == ENOENT || error == ESRCH;  // ESRCH: it went while this waited
  const bool doubtful = error == 0 && interrupts_ == Interrupts::kHandled;
  if (!lost && !doubtful) return error;
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  const Arrival arrival = lost ? Arrival::kLost : Arrival::kPerhaps;
  const bool kept = copy && restarts_.keep(call, {arrival, 0, std::move(copy), newfd_flags});
  return error == 0 || kept ? 0 : ENOENT;
}

// True: this call has had its effect already, and is answered.
bool Listener::answer_again(const TrappedCall& call) const {
  std::optional<KeptAnswer> kept = restarts_.take(call);
  if (!kept) return false;
  if (!kept->fd) {
    answer(call, kept->value);
  } else if (const int error = inject(call, kept->fd.get(), kept->fd_flags); error != 0) {
    refuse(call.id, error);
  }
  return true;
}

}  // namespace certgate::sandbox
