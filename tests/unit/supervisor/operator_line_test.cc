#include "supervisor/operator_line.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cerrno>
#include <random>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

class OperatorLine : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    supervisor_.reset(ends[0]);
    authority_.reset(ends[1]);
  }
  sandbox::UniqueFd supervisor_, authority_;
};

ApprovalRequest request() {
  ApprovalRequest out;
  out.seq = 17;
  out.pid = 42;
  out.digest.fill(9);
  out.risk = kernel::Risk::kMedium;
  out.deadline_ns = -5;
  out.verb = "exec";
  out.object = std::string("\xff\0x", 3);
  out.argv = {"", "a", std::string("\0", 1)};
  out.env = {"A=\n"};
  out.came_in = {"web:a by run-1 a:80"};
  return out;
}

TEST_F(OperatorLine, WhatIsSaidArrives) {
  ASSERT_TRUE(send_request(supervisor_.get(), request().encode()));
  ASSERT_TRUE(send_over(supervisor_.get(), 17));
  auto first = receive_asked(authority_.get());
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_EQ(std::get<ApprovalRequest>(*first).encode(), request().encode());
  auto second = receive_asked(authority_.get());
  ASSERT_TRUE(second);
  EXPECT_EQ(std::get<RequestOver>(*second).seq, 17u);
  EXPECT_EQ(receive_asked(authority_.get()).error().code, EAGAIN);
  ASSERT_TRUE(send_answer(authority_.get(), {17, kernel::Approval::Answer::kDenied, "ann", "no"}));
  const auto message = receive_answer(supervisor_.get());
  ASSERT_TRUE(message);
  const auto* answer = std::get_if<ApprovalAnswer>(&*message);
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->seq, 17u);
  EXPECT_EQ(answer->answer, kernel::Approval::Answer::kDenied);
  EXPECT_EQ(answer->who + answer->why, "annno");
}

TEST_F(OperatorLine, APolicyAndWhatBecameOfItArrive) {
  const std::string body(kMaxPolicyBytes, '\xff');
  ASSERT_TRUE(send_policy(authority_.get(), body));
  const auto policy = receive_answer(supervisor_.get());
  ASSERT_TRUE(policy) << policy.error().what;
  EXPECT_EQ(std::get<NewPolicy>(*policy).body, body);
  EXPECT_FALSE(send_policy(authority_.get(), body + "x")) << "told, not cut";
  ASSERT_TRUE(send_outcome(supervisor_.get(), {PolicyOutcome::What::kTaken, "12"}));
  const auto outcome = receive_asked(authority_.get());
  ASSERT_TRUE(outcome) << outcome.error().what;
  EXPECT_EQ(std::get<PolicyOutcome>(*outcome).what, PolicyOutcome::What::kTaken);
  EXPECT_EQ(std::get<PolicyOutcome>(*outcome).text, "12");
}

TEST_F(OperatorLine, NothingElseDoes) {
  const std::vector<uint8_t> good = request().encode();
  std::mt19937 random(5);
  for (size_t cut = 0; cut < good.size(); ++cut) EXPECT_FALSE(decode_asked(good.data(), cut));
  for (int i = 0; i < 5000; ++i) {
    std::vector<uint8_t> bad = good;
    bad[random() % bad.size()] = static_cast<uint8_t>(random());
    const auto asked = decode_asked(bad.data(), bad.size());
    if (const auto* one = asked ? std::get_if<ApprovalRequest>(&*asked) : nullptr) {
      ASSERT_EQ(one->encode(), bad) << "one spelling";
    }
  }
  // An expiry is the supervisor's own to find.
  ASSERT_TRUE(send_answer(authority_.get(), {17, kernel::Approval::Answer::kExpired, "", ""}));
  EXPECT_FALSE(receive_answer(supervisor_.get()));
}

TEST_F(OperatorLine, AMessageThatIsTooLongOrNotTakenIsNotSent) {
  ApprovalRequest large = request();
  large.argv.assign(1, std::string(kMaxRequestBytes, 'x'));
  EXPECT_EQ(send_request(supervisor_.get(), large.encode()).error().code, EMSGSIZE);
  large.argv.assign(1, std::string(kMaxRequestBytes / 2, 'x'));
  Status sent = ok();
  for (int i = 0; i < 1000 && sent; ++i) sent = send_request(supervisor_.get(), large.encode());
  ASSERT_FALSE(sent) << "a reader that has stopped holds nobody up";
  EXPECT_EQ(sent.error().code, EAGAIN);
  authority_.reset();
  EXPECT_EQ(receive_answer(supervisor_.get()).error().code, ECONNRESET);
}

}  // namespace
}  // namespace certgate::supervisor
