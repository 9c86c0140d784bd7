// The channel: an authority reads what a supervisor that has been taken over may send, and a
// supervisor what comes back. Messages of any bytes, with and without descriptors.
#include "supervisor/channel.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

using namespace certgate;

namespace {

struct Pair {
  sandbox::UniqueFd ours, theirs;
  Pair() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    ours.reset(ends[0]);
    theirs.reset(ends[1]);
  }
};

void put(int socket, const std::string& bytes, int descriptors) {
  static const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  iovec io{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  if (descriptors > 0) {
    const auto n = static_cast<size_t>(descriptors);
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(n * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(n * sizeof(int));
    for (size_t i = 0; i < n; ++i)
      std::memcpy(CMSG_DATA(header) + i * sizeof null, &null, sizeof null);
  }
  if (::sendmsg(socket, &message, MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) std::abort();
}

int open_descriptors() {
  const int next = ::fcntl(0, F_DUPFD_CLOEXEC, 0);  // the lowest free one
  if (next >= 0) ::close(next);
  return next;
}

}  // namespace

FUZZ_TARGET(channel) {
  static const Pair pair;
  fuzz::Bytes in(data, size);
  const uint8_t choice = in.byte();
  const std::string bytes = in.rest();
  if (bytes.empty() || bytes.size() > 60000) return 0;
  put(pair.theirs.get(), bytes, choice >> 2 & 7);
  const int before = open_descriptors();
  if (choice % 2 == 0) {
    const auto join = supervisor::receive_join(pair.ours.get());
    if (join) {
      const auto label = kernel::Label::parse(join->label.text());
      CG_LAW(label && *label == join->label);
    }
  } else {
    const auto grant = supervisor::receive_grant(pair.ours.get());
    if (grant) CG_LAW(grant->segment && grant->label_table && grant->label_names);
  }
  CG_LAW(open_descriptors() == before);  // none is left open, whatever came along
  return 0;
}
