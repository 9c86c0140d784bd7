#include "supervisor/channel.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "kernel/cbor.h"
#include "kernel/token.h"

namespace certgate::supervisor {
namespace {

constexpr size_t kMaxMessage = 32768;
constexpr size_t kGrantFds = 7;  // and one for each token
constexpr size_t kMaxFds = kGrantFds + kernel::kMaxChain;
enum class Kind : uint8_t { kGrant = 1, kJoin = 2, kReply = 3 };

Status send_message(int fd, const std::vector<uint8_t>& data, const int* fds, size_t count) {
  iovec io{const_cast<uint8_t*>(data.data()), data.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  for (;;) {
    const ssize_t n = ::sendmsg(fd, &message, MSG_NOSIGNAL);
    if (n == static_cast<ssize_t>(data.size())) return ok();
    if (n < 0 && errno == EINTR) continue;
    return fail_errno("send on the channel", n < 0 ? errno : EMSGSIZE);
  }
}

// One whole message. code ECONNRESET = the other side is gone.
Result<std::vector<uint8_t>> receive_message(int fd, std::vector<sandbox::UniqueFd>* fds) {
  std::vector<uint8_t> data(kMaxMessage);
  iovec io{data.data(), data.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n = 0;
  do {
    n = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return fail_errno("receive on the channel", errno);
  std::vector<sandbox::UniqueFd> received;
  for (cmsghdr* h = CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= h->cmsg_len; ++i) {
      int one = -1;
      std::memcpy(&one, CMSG_DATA(h) + i * sizeof one, sizeof one);
      received.emplace_back(one);
    }
  }
  if (n == 0) return fail("the channel is closed", ECONNRESET);
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
    return fail("a message too long for the channel", EMSGSIZE);
  if (fds != nullptr) *fds = std::move(received);
  data.resize(static_cast<size_t>(n));
  return data;
}

Status expect(kernel::CborReader& reader, Kind kind, size_t items) {
  CG_TRY(const size_t count, reader.array(16));
  CG_TRY(const uint64_t got, reader.unsigned_int());
  if (count != items || got != static_cast<uint64_t>(kind))
    return fail("an unexpected message on the channel", EPROTO);
  return ok();
}

void start(kernel::CborWriter& writer, Kind kind, size_t items) {
  writer.array(items);
  writer.unsigned_int(static_cast<uint64_t>(kind));
}

}  // namespace

Result<Grant> receive_grant(int channel) {
  std::vector<sandbox::UniqueFd> fds;
  CG_TRY(const std::vector<uint8_t> data, receive_message(channel, &fds));
  kernel::CborReader reader(data.data(), data.size());
  CG_CHECK(expect(reader, Kind::kGrant, 5));
  Grant out;
  CG_TRY(out.run, reader.text(kMaxMessage));
  CG_TRY(out.token_chain, reader.text(kMaxMessage));
  CG_TRY(const std::string key, reader.bytes(out.public_key.size()));
  CG_TRY(out.next_seq, reader.unsigned_int());
  if (key.size() != out.public_key.size() || fds.size() <= kGrantFds || !reader.done()) {
    return fail("a damaged grant on the channel", EPROTO);
  }
  std::memcpy(out.public_key.data(), key.data(), key.size());
  out.segment = std::move(fds[0]);
  out.label_table = std::move(fds[1]);
  out.label_names = std::move(fds[2]);
  out.readers = std::move(fds[3]);
  out.epoch = std::move(fds[4]);
  out.line = std::move(fds[5]);
  out.blobs = std::move(fds[6]);
  for (size_t i = kGrantFds; i < fds.size(); ++i) out.token_slots.push_back(std::move(fds[i]));
  return out;
}

Status send_grant(int channel, const Grant& grant) {
  kernel::CborWriter writer;
  start(writer, Kind::kGrant, 5);
  writer.text(grant.run);
  writer.text(grant.token_chain);
  writer.bytes(grant.public_key.data(), grant.public_key.size());
  writer.unsigned_int(grant.next_seq);
  int fds[kMaxFds] = {grant.segment.get(), grant.label_table.get(), grant.label_names.get(),
                      grant.readers.get(), grant.epoch.get(), grant.line.get(),
                      grant.blobs.get()};
  const size_t slots = grant.token_slots.size();
  if (slots > kernel::kMaxChain) return fail("a chain of more than 8 tokens", EMSGSIZE);
  for (size_t i = 0; i < slots; ++i) fds[kGrantFds + i] = grant.token_slots[i].get();
  return send_message(channel, writer.data(), fds, kGrantFds + slots);
}

Result<JoinRequest> receive_join(int channel) {
  CG_TRY(const std::vector<uint8_t> data, receive_message(channel, nullptr));
  kernel::CborReader reader(data.data(), data.size());
  CG_CHECK(expect(reader, Kind::kJoin, 5));
  JoinRequest out;
  CG_TRY(out.file.fsid, reader.unsigned_int());
  CG_TRY(out.file.ino, reader.unsigned_int());
  CG_TRY(out.file.btime_ns, reader.integer());
  CG_TRY(const std::string label, reader.text(kMaxMessage));
  CG_TRY(out.label, kernel::Label::parse(label));
  if (!reader.done()) return fail("bytes after a message on the channel", EPROTO);
  return out;
}

Status send_join_reply(int channel, const Status& joined) {
  kernel::CborWriter writer;
  start(writer, Kind::kReply, 3);
  writer.text(joined ? "" : joined.error().what);
  writer.unsigned_int(joined ? 0 : static_cast<uint64_t>(joined.error().code));
  return send_message(channel, writer.data(), nullptr, 0);
}

Status Channel::join_file(const kernel::FileIdentity& file, const kernel::Label& label) {
  kernel::CborWriter writer;
  start(writer, Kind::kJoin, 5);
  writer.unsigned_int(file.fsid);
  writer.unsigned_int(file.ino);
  writer.integer(file.btime_ns);
  writer.text(label.text());
  const std::lock_guard lock(mutex_);
  CG_CHECK(send_message(fd_.get(), writer.data(), nullptr, 0));
  CG_TRY(const std::vector<uint8_t> data, receive_message(fd_.get(), nullptr));
  kernel::CborReader reader(data.data(), data.size());
  CG_CHECK(expect(reader, Kind::kReply, 3));
  CG_TRY(const std::string error, reader.text(kMaxMessage));
  CG_TRY(const uint64_t code, reader.unsigned_int());
  return error.empty() ? ok() : Status(fail(error, static_cast<int>(code)));
}

}  // namespace certgate::supervisor
