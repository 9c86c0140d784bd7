#include "supervisor/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "kernel/cbor.h"

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

struct Ends {
  UniqueFd authority, supervisor;
  Ends() {
    int fds[2] = {-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    authority.reset(fds[0]);
    supervisor.reset(fds[1]);
  }
};

UniqueFd some_file() { return UniqueFd(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); }

Grant some_grant() {
  Grant grant;
  grant.run = "abcdefgh";
  grant.token_chain = "{\"payload\":\"…\"}";
  grant.public_key.fill(0x5a);
  grant.next_seq = 3;
  grant.segment = UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  grant.label_table = some_file();
  grant.label_names = UniqueFd(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  grant.readers = some_file();
  grant.epoch = some_file();
  grant.line = UniqueFd(::open("/dev/urandom", O_RDONLY | O_CLOEXEC));
  grant.blobs = some_file();
  grant.token_slots.push_back(some_file());
  grant.token_slots.push_back(UniqueFd(::open("/dev/full", O_RDONLY | O_CLOEXEC)));
  return grant;
}

bool same_object(int a, int b) {
  struct stat x {
  }, y{};
  return ::fstat(a, &x) == 0 && ::fstat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

// One message, with copies of a descriptor.
void send_raw(int socket, const std::vector<uint8_t>& bytes, size_t descriptors = 0) {
  const UniqueFd file = some_file();
  iovec io{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  if (descriptors > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
    for (size_t i = 0; i < descriptors; ++i) {
      const int fd = file.get();
      std::memcpy(CMSG_DATA(header) + i * sizeof fd, &fd, sizeof fd);
    }
  }
  ASSERT_EQ(::sendmsg(socket, &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

std::vector<uint8_t> grant_bytes() {
  kernel::CborWriter w;
  w.array(4);
  w.unsigned_int(1);
  w.text("{}");
  const uint8_t key[32] = {};
  w.bytes(key, sizeof key);
  w.unsigned_int(1);
  return w.take();
}

// The number that the next descriptor would get: equal before and after means that none is left.
int next_descriptor() {
  const UniqueFd fd(::fcntl(0, F_DUPFD_CLOEXEC, 0));
  return fd.get();
}

TEST(Channel, AGrantArrivesWhole) {
  const Ends ends;
  const Grant sent = some_grant();
  ASSERT_TRUE(send_grant(ends.authority.get(), sent));
  const auto got = receive_grant(ends.supervisor.get());
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_EQ(got->token_chain, sent.token_chain);
  EXPECT_EQ(got->public_key, sent.public_key);
  EXPECT_EQ(got->next_seq, sent.next_seq);
  EXPECT_TRUE(same_object(got->segment.get(), sent.segment.get()));
  EXPECT_TRUE(same_object(got->label_table.get(), sent.label_table.get()));
  EXPECT_TRUE(same_object(got->label_names.get(), sent.label_names.get()));
  EXPECT_TRUE(same_object(got->readers.get(), sent.readers.get()));
  EXPECT_TRUE(same_object(got->line.get(), sent.line.get()));
  EXPECT_EQ(::fcntl(got->segment.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(Channel, AGrantWithoutExactlyFourDescriptorsIsRefusedAndNoneStaysOpen) {
  for (const size_t descriptors : {0u, 1u, 2u, 3u, 5u, 8u}) {
    const Ends ends;
    send_raw(ends.authority.get(), grant_bytes(), descriptors);
    const int before = next_descriptor();
    EXPECT_FALSE(receive_grant(ends.supervisor.get())) << descriptors;
    EXPECT_EQ(next_descriptor(), before) << descriptors;
  }
}

TEST(Channel, AMessageOfAnotherKindOrWithMoreBehindItIsRefused) {
  const Ends ends;
  std::vector<uint8_t> bytes = grant_bytes();
  send_raw(ends.authority.get(), bytes);
  EXPECT_EQ(receive_join(ends.supervisor.get()).error().code, EPROTO);
  bytes.push_back(0);
  send_raw(ends.authority.get(), bytes, 3);
  EXPECT_EQ(receive_grant(ends.supervisor.get()).error().code, EPROTO);
  kernel::CborWriter join;
  join.array(5);
  for (const uint64_t n : {2, 1, 2, 3}) join.unsigned_int(n);
  join.text("operator");
  bytes = join.take();
  bytes.push_back(0);
  send_raw(ends.supervisor.get(), bytes);
  EXPECT_EQ(receive_join(ends.authority.get()).error().code, EPROTO);
}

TEST(Channel, AMessageLongerThanTheLimitIsRefusedNotCut) {
  const Ends ends;
  send_raw(ends.supervisor.get(), std::vector<uint8_t>(40000, 0x41));
  EXPECT_EQ(receive_join(ends.authority.get()).error().code, EMSGSIZE);
}

TEST(Channel, EveryCutOfAMessageIsRefused) {
  kernel::CborWriter join;
  join.array(5);
  join.unsigned_int(2);
  join.unsigned_int(1ull << 40);
  join.unsigned_int(77);
  join.integer(-5);
  join.text("web:a.test");
  const std::vector<uint8_t> whole = join.take();
  const Ends ends;
  for (size_t size = 1; size < whole.size(); ++size) {
    send_raw(ends.supervisor.get(), {whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size)});
    EXPECT_FALSE(receive_join(ends.authority.get())) << size;
  }
  send_raw(ends.supervisor.get(), whole);
  const auto got = receive_join(ends.authority.get());
  ASSERT_TRUE(got);
  EXPECT_EQ(got->file, (kernel::FileIdentity{1ull << 40, 77, -5}));
  EXPECT_EQ(got->label.text(), "web:a.test");
}

TEST(Channel, ALabelThatDoesNotParseIsRefusedByTheAuthority) {
  const Ends ends;
  kernel::CborWriter join;
  join.array(5);
  for (const uint64_t n : {2, 1, 2, 3}) join.unsigned_int(n);
  join.text("nobody:x");
  send_raw(ends.supervisor.get(), join.take());
  EXPECT_FALSE(receive_join(ends.authority.get()));
}

TEST(Channel, AnErrorOfTheAuthorityIsAnErrorOfTheJoin) {
  Ends ends;
  std::thread authority([&] {
    EXPECT_TRUE(receive_join(ends.authority.get()));
    EXPECT_TRUE(send_join_reply(ends.authority.get(), fail("the label table is full", ENOSPC)));
  });
  Channel channel(std::move(ends.supervisor));
  const Status done = channel.join_file({1, 2, 3}, *kernel::Label::parse("user"));
  authority.join();
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().what.find("the label table is full"), std::string::npos);
  EXPECT_EQ(done.error().code, ENOSPC);
}

TEST(Channel, TheOtherEndGoneIsAnErrorOnBothSides) {
  {
    Ends ends;
    ends.authority.reset();
    Channel channel(std::move(ends.supervisor));
    EXPECT_FALSE(channel.join_file({1, 2, 3}, {}));
  }
  Ends ends;
  ends.supervisor.reset();
  EXPECT_EQ(receive_join(ends.authority.get()).error().code, ECONNRESET);
}

TEST(Channel, AnAuthorityThatDiesBeforeItAnswersIsAnError) {
  Ends ends;
  std::thread authority([&] {
    EXPECT_TRUE(receive_join(ends.authority.get()));
    ends.authority.reset();
  });
  Channel channel(std::move(ends.supervisor));
  EXPECT_FALSE(channel.join_file({1, 2, 3}, {}));
  authority.join();
}

TEST(Channel, AnAnswerReachesTheThreadThatAsked) {
  constexpr uint64_t kThreads = 8, kJoins = 50;
  Ends ends;
  std::thread authority([&] {
    for (uint64_t i = 0; i < kThreads * kJoins; ++i) {
      const auto join = receive_join(ends.authority.get());
      ASSERT_TRUE(join);
      ASSERT_TRUE(
          send_join_reply(ends.authority.get(), fail("file " + std::to_string(join->file.ino))));
    }
  });
  Channel channel(std::move(ends.supervisor));
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&channel, t] {
      for (uint64_t i = 0; i < kJoins; ++i) {
        const uint64_t ino = t * 1000 + i;
        const Status done = channel.join_file({1, ino, 0}, {});
        ASSERT_FALSE(done);
        EXPECT_EQ(done.error().what, "file " + std::to_string(ino));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  authority.join();
}

}  // namespace
}  // namespace certgate::supervisor
