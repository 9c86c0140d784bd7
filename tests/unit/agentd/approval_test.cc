// The operator's word on its way to a supervisor: the statement, the control socket, the desk.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <cstring>
#include <thread>

#include "agentd/approval_desk.h"
#include "agentd/rule_proposal.h"
#include "agentd/state_dir.h"
#include "tests/unit/agentd/log_fixture.h"

namespace certgate::agentd {
namespace {

using supervisor::ApprovalRequest;

int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

ApprovalRequest request(uint64_t seq) {
  ApprovalRequest out;
  out.seq = seq;
  out.pid = 42;
  out.digest[0] = static_cast<uint8_t>(seq);
  out.risk = kernel::Risk::kHigh;
  out.deadline_ns = now_ns() + 60'000'000'000;
  out.verb = "exec";
  out.call = "execve";
  out.object = "/usr/bin/git";
  out.rule = "publish";
  out.why = "people decide";
  out.label = "operator,web:a.test";
  out.argv = {"git", std::string("a\0\x1b", 3)};
  out.env = {"A=1"};
  out.images = {"00 /usr/bin/git"};
  return out;
}

class DeskTest : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    log_.emplace(opened());
    int line[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line), 0);
    ours_.reset(line[0]);
    theirs_.reset(line[1]);
    desk_.emplace("abcd2345", *log_, ours_.get());
    ASSERT_TRUE(supervisor::send_request(theirs_.get(), request(7).encode()));
    ASSERT_TRUE(desk_->take());
  }

  ApprovalStatement statement(uint64_t seq = 7) {
    ApprovalStatement s;
    s.run = "abcd2345";
    s.seq = seq;
    s.digest = request(seq).digest;
    s.origins = request(seq).label;
    s.consent = Consent::kApprove;
    s.uid = 1000;
    s.user = "ann";
    s.time_ns = now_ns();
    s.expires_ns = s.time_ns + 10'000'000'000;
    s.nonce = "00112233aabbccdd";
    return s;
  }
  std::string sealed(ApprovalStatement s) {
    auto line = seal(s, log_->key());
    EXPECT_TRUE(line);
    return *line;
  }
  std::string why(const std::string& envelope, uint64_t uid = 1000) {
    const auto done = desk_->answer(envelope, uid);
    return done ? "" : done.error().what;
  }

  std::optional<LogStore> log_;
  sandbox::UniqueFd ours_, theirs_;
  std::optional<ApprovalDesk> desk_;
};

TEST_F(DeskTest, AnAnswerIsLoggedThenHandedOnAndTakenOnce) {
  EXPECT_EQ(desk_->waiting(), "7\n");
  const std::string envelope = sealed(statement());
  const uint64_t before = records();
  EXPECT_EQ(why(envelope), "");
  EXPECT_EQ(records(), before + 3) << "start, approval, stop";
  EXPECT_EQ(verdict(), "yes");
  const auto message = supervisor::receive_answer(theirs_.get());
  ASSERT_TRUE(message) << message.error().what;
  const auto* answer = std::get_if<supervisor::ApprovalAnswer>(&*message);
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->seq, 7u);
  EXPECT_EQ(answer->answer, kernel::Approval::Answer::kApproved);
  EXPECT_EQ(answer->who, "ann (uid 1000)");
  EXPECT_EQ(desk_->waiting(), "");
  EXPECT_NE(why(envelope).find("waits"), std::string::npos) << "a replay";
  EXPECT_EQ(supervisor::receive_answer(theirs_.get()).error().code, EAGAIN);
}

TEST_F(DeskTest, AnAnswerIsForOneRequestOneActionOneLabelOneUserAndNow) {
  struct Row {
    void (*change)(ApprovalStatement&);
    const char* why;
  };
  const Row kRows[] = {
      {[](ApprovalStatement& s) { s.digest[0] ^= 1; }, "another action"},
      {[](ApprovalStatement& s) { s.origins = "operator"; }, "another label"},
      {[](ApprovalStatement& s) { s.run = "abcd2346"; }, "not about this run"},
      {[](ApprovalStatement& s) { s.seq = 8; }, "waits"},
      {[](ApprovalStatement& s) { s.uid = 0; }, "another user"},
      {[](ApprovalStatement& s) { s.expires_ns = now_ns() - 1; }, "not of now"},
      {[](ApprovalStatement& s) { s.time_ns = now_ns() + 5'000'000'000; }, "not of now"},
  };
  const uint64_t before = records();
  for (const Row& row : kRows) {
    ApprovalStatement s = statement();
    row.change(s);
    EXPECT_NE(why(sealed(s)).find(row.why), std::string::npos) << row.why << ": " << why(sealed(s));
  }
  EXPECT_EQ(records(), before) << "what is no answer leaves no trace of one";
  EXPECT_EQ(supervisor::receive_answer(theirs_.get()).error().code, EAGAIN);
  EXPECT_EQ(desk_->waiting(), "7\n");
}

TEST_F(DeskTest, NoOtherBytesAreAnAnswer) {
  const std::string good = sealed(statement());
  size_t refused = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    refused += !desk_->answer(bad, 1000);
    refused += !desk_->answer(good.substr(0, i), 1000);
  }
  EXPECT_EQ(refused, 2 * good.size());
  auto other = SigningKey::generate();
  ApprovalStatement s = statement();
  EXPECT_FALSE(desk_->answer(*seal(s, *other), 1000));
  EXPECT_EQ(why(good), "") << "the true one is still taken";
}

TEST_F(DeskTest, ARequestThatIsOverOrLateIsNotThere) {
  ASSERT_TRUE(supervisor::send_over(theirs_.get(), 7));
  ASSERT_TRUE(desk_->take());
  EXPECT_EQ(desk_->waiting(), "");
  ApprovalRequest late = request(9);
  late.deadline_ns = now_ns() - 1;
  ASSERT_TRUE(supervisor::send_request(theirs_.get(), late.encode()));
  ASSERT_TRUE(desk_->take());
  EXPECT_EQ(desk_->waiting(), "");
  EXPECT_FALSE(desk_->request("9"));
  for (const char* bad : {"", "7x", "-1", "99999999999999999999999"})
    EXPECT_FALSE(desk_->request(bad));
}

TEST_F(DeskTest, WhatIsShownIsWhatTheSupervisorSent) {
  const auto body = desk_->request("7");
  ASSERT_TRUE(body);
  // NOLINTNEXTLINE: octets
  auto back =
      supervisor::decode_asked(reinterpret_cast<const uint8_t*>(body->data()), body->size());
  ASSERT_TRUE(back);
  const auto& shown = std::get<ApprovalRequest>(*back);
  EXPECT_EQ(shown.argv, request(7).argv);
  EXPECT_EQ(shown.digest, request(7).digest);
  EXPECT_EQ(shown.label, request(7).label);
}

TEST_F(DeskTest, AStatementHasOneSpelling) {
  ApprovalStatement s = statement();
  s.why = plain("it's \"fine\"\\\n\xff", 100);
  EXPECT_EQ(s.why, "it's ?fine????");
  const std::string line = sealed(s);
  const auto back = open_statement(line, log_->key().verifier());
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(back->payload(), [&] {
    s.issuer = log_->key().name();
    return s.payload();
  }());
  EXPECT_FALSE(open_statement(line + "\n", log_->key().verifier()));
  EXPECT_FALSE(open_statement(" " + line, log_->key().verifier()));
}

TEST_F(LogTest, AControlSocketIsForItsUserAnswersAndGoesWithItsOwner) {
  auto log = opened();
  const int dir = log.dir_fd();
  boost::asio::io_context io(1);  // outlives who serves on it
  {
    auto made = Control::make(dir, "abcd2345");
    ASSERT_TRUE(made) << made.error().what;
    EXPECT_FALSE(Control::make(dir, "abcd2345")) << "one for each run";
    EXPECT_FALSE(Control::make(dir, "../x"));
    Control control = *std::move(made);
    struct stat s {};
    ASSERT_EQ(::stat((state_ + "/control/abcd2345").c_str(), &s), 0);
    EXPECT_EQ(s.st_mode & 0777, 0600u);
    control.on("echo", [](const std::string& body, uid_t peer) -> Result<std::string> {
      if (body == "no") return fail("as asked");
      return body + std::to_string(peer);
    });
    control.serve(io);
    std::thread server([&io] { io.run(); });
    EXPECT_EQ(*running_controls(dir), std::vector<std::string>{"abcd2345"});
    const auto echoed = control_call(dir, "abcd2345", "echo", "a\nb");
    EXPECT_TRUE(echoed && *echoed == "a\nb" + std::to_string(::geteuid()));
    EXPECT_EQ(control_call(dir, "abcd2345", "echo", "no").error().what, "as asked");
    EXPECT_FALSE(control_call(dir, "abcd2345", "other", ""));
    // What is too long for a message goes beside it, both ways.
    const std::string much(3 * kMaxControlBytes, 'x');
    const auto all = control_call(dir, "abcd2345", "echo", much);
    EXPECT_TRUE(all && all->starts_with(much)) << (all ? "" : all.error().what);
    EXPECT_FALSE(control_call(dir, "abcd2345", "echo", std::string(kMaxControlText, 'x')));
    EXPECT_TRUE(control_call(dir, "abcd2345", "echo", "still there"));
    io.stop();
    server.join();
  }
  EXPECT_EQ(control_call(dir, "abcd2345", "echo", "").error().code, ENOENT);
}

TEST_F(LogTest, WhatAKilledRunLeftIsRemovedByWhoeverFindsIt) {
  auto log = opened();
  const int dir = log.dir_fd();
  { auto made = Control::make(dir, "abcd2345"); }
  ASSERT_TRUE(make_dir(dir, "control"));
  {
    const sandbox::UniqueFd dead(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    sockaddr_storage at{};
    at.ss_family = AF_UNIX;
    const std::string path = state_ + "/control/dead2345";
    std::memcpy(at.__ss_padding, path.c_str(), path.size() + 1);
    // NOLINTNEXTLINE: the socket API's own cast
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&at),
                     static_cast<socklen_t>(sizeof(sa_family_t) + path.size() + 1)),
              0);
  }
  EXPECT_EQ(control_call(dir, "dead2345", "echo", "").error().code, ECONNREFUSED);
  EXPECT_EQ(*running_controls(dir), std::vector<std::string>{});
}

TEST(RuleProposal, NamesThisActionAndTheseOriginsOnly) {
  ApprovalRequest r = request(7);
  r.argv = {"git", "push", "a \"b\""};
  const auto rule = proposed_rule(r, "abcd2345-7");
  ASSERT_TRUE(rule) << rule.error().what;
  EXPECT_NE(rule->find("argv = [[\"git\", \"push\", \"a \\\"b\\\"\"]]"), std::string::npos)
      << *rule;
  EXPECT_NE(rule->find("accept = [\"operator\", \"web:a.test\"]"), std::string::npos) << *rule;
  EXPECT_NE(rule->find("paths = [\"/usr/bin/git\"]"), std::string::npos);
  r.argv.push_back("*.c");
  EXPECT_FALSE(proposed_rule(r, "x")) << "a pattern would say more";
  ApprovalRequest file = request(8);
  file.verb = "read and write";
  file.object = "/ws/a";
  file.argv.clear();
  ASSERT_TRUE(proposed_rule(file, "x"));
  EXPECT_NE(proposed_rule(file, "x")->find("allow = [\"read\", \"write\"]"), std::string::npos);
  file.object = "/ws/?";
  EXPECT_FALSE(proposed_rule(file, "x"));
}

}  // namespace
}  // namespace certgate::agentd
