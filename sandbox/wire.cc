#include "sandbox/wire.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace certgate::sandbox {
namespace {

// Room for more descriptors than we expect, so that an excess is seen and closed.
constexpr size_t kMaxFds = 4;
constexpr unsigned kNone = ~0u;
union ControlBuffer {
  cmsghdr align;
  char bytes[CMSG_SPACE(kMaxFds * sizeof(int))];
};

// Takes the descriptors out of a message: the first goes to `fd`, the others are closed.
size_t take_descriptors(msghdr& message, UniqueFd& fd) {
  size_t count = 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t fds = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < fds; ++i) {
      int received = -1;
      std::memcpy(&received, CMSG_DATA(part) + i * sizeof(int), sizeof received);
      if (++count == 1)
        fd.reset(received);
      else
        close(received);
    }
  }
  return count;
}

}  // namespace

int send_message(int socket, const void* data, size_t size, int fd, int flags) {
  iovec vector{const_cast<void*>(data), size};
  ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  if (fd >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
  }
  ssize_t sent = -1;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL | flags);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

ssize_t receive_message(int socket, void* data, size_t size, UniqueFd& fd, int flags) {
  fd.reset();
  iovec vector{data, size};
  ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t got = -1;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | flags);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  const size_t fds = take_descriptors(message, fd);
  if (fds > 1 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    fd.reset();
    return -EPROTO;
  }
  return got;
}

int close_others(std::initializer_list<int> keep) {
  unsigned first = 0;
  for (;;) {
    // The smallest kept descriptor that has not been passed yet; lists here are a few entries long.
    unsigned next = kNone;
    for (const int fd : keep) {
      if (fd >= 0 && static_cast<unsigned>(fd) >= first)
        next = std::min(next, static_cast<unsigned>(fd));
    }
    if (next == kNone) return close_range(first, ~0u, 0) == 0 ? 0 : -errno;
    if (next > first && close_range(first, next - 1, 0) != 0) return -errno;
    first = next + 1;
  }
}

}  // namespace certgate::sandbox
