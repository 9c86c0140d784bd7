// Another policy while an agent runs, and what an observing run records.
#include "tests/unit/supervisor/session_fixture.h"

namespace certgate::supervisor {
namespace {

// The test policy without the rule `id`, or with another accept set for it.
kernel::Policy changed_policy(const std::string& id, const std::vector<std::string>& accept = {}) {
  kernel::Policy out = test_policy();
  out.name = "changed";
  for (size_t i = 0; i < out.rules.size(); ++i) {
    if (out.rules[i].id != id) continue;
    if (accept.empty()) {
      out.rules.erase(out.rules.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      out.rules[i].accept = *kernel::AcceptSet::parse(accept);
    }
    return out;
  }
  return out;
}

TEST_F(SessionTest, AReloadDecidesTheNextCallAndIsRecordedWithBothDigests) {
  EXPECT_TRUE(judge(open_call("/any/f", true)).certificate);
  const Judged before = judge(open_call("/in/f", false));
  const auto waited = session_->reload(changed_policy("any-write"));
  ASSERT_TRUE(waited) << waited.error().what;
  RecordProperty("swap_ns", std::to_string(*waited));
  EXPECT_FALSE(judge(open_call("/any/f", true)).certificate);
  EXPECT_TRUE(judge(open_call("/clean/f", true)).certificate);
  // Who was certified before still finds the rule that it was certified by.
  EXPECT_EQ(before.rule(0)->id, "read-all");
  const auto all = records();
  const auto change = std::find_if(
      all.begin(), all.end(), [](const auto& r) { return r.kind == RecordKind::kPolicyChange; });
  ASSERT_NE(change, all.end());
  const kernel::Digest digest = changed_policy("any-write").digest();
  EXPECT_TRUE(
      std::equal(digest.begin(), digest.end(), change->digest.begin(), change->digest.end()));
  EXPECT_EQ(change->object.size(), 64u);
}

TEST_F(SessionTest, BudgetsGoOnByRuleIdWhereverTheRuleStandsNow) {
  EXPECT_TRUE(judge(open_call("/few/a", false)).certificate);
  ASSERT_TRUE(session_->reload(changed_policy("any-host")));  // every index after it moves
  EXPECT_TRUE(judge(open_call("/few/a", false)).certificate);
  const Judged third = judge(open_call("/few/a", false));
  EXPECT_FALSE(third.certificate);
  EXPECT_EQ(records().back().reason, "BUDGET_EXHAUSTED");
  ASSERT_TRUE(session_->reload(test_policy()));
  EXPECT_FALSE(judge(open_call("/few/a", false)).certificate) << "and back";
}

TEST_F(SessionTest, AReloadShutsWhatTheNewPolicyWouldNotConnect) {
  bool clean_shut = false, any_shut = false;
  const Judged clean = judge(connect_call("clean.test"), kConnection);
  const Judged any = judge(connect_call("any.test"), kConnection);
  ASSERT_TRUE(session_->settle_connection(clean.hold, [&] { clean_shut = true; }));
  ASSERT_TRUE(session_->settle_connection(any.hold, [&] { any_shut = true; }));
  ASSERT_TRUE(session_->reload(changed_policy("clean-host")));
  EXPECT_TRUE(clean_shut);
  EXPECT_FALSE(any_shut);
  // A narrower accept set of the same rule is no less.
  ASSERT_TRUE(session_->reload(changed_policy("any-host", {"user"})));
  EXPECT_TRUE(any_shut);
  // One that was still being made finds itself gone.
  const Judged pending = judge(connect_call("clean.test"), kConnection);
  ASSERT_TRUE(session_->reload(changed_policy("clean-host")));
  EXPECT_FALSE(session_->settle_connection(pending.hold, [] {}));
}

TEST_F(SessionTest, AReloadThatAnOpenFileForbidsLeavesTheOldPolicyAndSaysWhy) {
  OpenFile file = open_file("held");
  const Judged held = judge(open_call("/clean/f", true), file.hold());
  ASSERT_TRUE(held.certificate);
  ASSERT_TRUE(
      session_->settle_file(held.hold, file.fd.get(), file.identity, label("operator"), true));
  const auto refused = session_->reload(changed_policy("clean-write"));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().what.find("/clean/f is open for writing"), std::string::npos)
      << refused.error().what;
  EXPECT_TRUE(judge(open_call("/clean/g", true)).certificate) << "the old one decides";
  file.fd.reset();
  EXPECT_TRUE(session_->reload(changed_policy("clean-write")));
  EXPECT_FALSE(judge(open_call("/clean/g", true)).certificate);
}

TEST_F(SessionTest, APolicyThatIsNotValidOrNeedsAnotherStartIsNotLoaded) {
  kernel::Policy twice = test_policy();
  twice.rules.push_back(twice.rules[0]);
  EXPECT_FALSE(session_->reload(twice));
  kernel::Policy udp = test_policy();
  udp.rules.push_back(connect_rule("udp", "n.test", {"operator"}));
  udp.rules.back().endpoints[0] = *kernel::EndpointPattern::parse("udp:n.test:123");
  const auto refused = session_->reload(udp);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().what.find("UDP"), std::string::npos);
  EXPECT_EQ(session_->decider().policy().digest(), test_policy().digest());
}

TEST_F(SessionTest, CallsOfOtherThreadsAreDecidedByOneOfThePolicies) {
  std::atomic<bool> stop = false;
  std::atomic<size_t> wrong = 0, calls = 0;
  std::thread caller([&] {
    while (!stop) {
      const Judged one = judge(connect_call("any.test"));
      ++calls;
      if (!one.certificate || one.rule(0)->id != "any-host") ++wrong;
    }
  });
  int64_t longest = 0;
  for (int i = 0; i < 32; ++i) {
    const auto waited = session_->reload(i % 2 == 0 ? changed_policy("read-all") : test_policy());
    ASSERT_TRUE(waited) << waited.error().what;
    longest = std::max(longest, *waited);
    while (calls < static_cast<size_t>(i)) std::this_thread::yield();
  }
  stop = true;
  caller.join();
  EXPECT_EQ(wrong, 0u);
  RecordProperty("longest_swap_ns", std::to_string(longest));
}

TEST_F(SessionTest, ObservedCallsAreAllowedAndRecordedWithTheReasonTheyWouldBeRefusedFor) {
  kernel::Policy wide = test_policy(), strict = test_policy();
  for (const kernel::Verb verb : {kernel::Verb::kRead, kernel::Verb::kWrite}) {
    wide.rules.push_back(path_rule(std::string("observed-") + kernel::verb_text(verb), {verb},
                                   "/**", {"operator", "tool", "web:*"}));
    strict.rules.push_back(wide.rules.back());
    strict.rules.back().paths.clear();
    strict.rules.back().verbs.clear();
  }
  auto view = LabelView::open(*store_->table_for_reading(), *store_->names_for_reading());
  session_.emplace(kernel::Decider(wide, token_for_everything()), label("operator"), *recorder_,
                   std::move(*view), *readers_, *channel_, *ledger_, Report::kText,
                   kernel::Decider(strict, token_for_everything()));
  EXPECT_TRUE(judge(open_call("/any/f", true)).certificate);
  EXPECT_EQ(records().back().grade, "");
  EXPECT_TRUE(judge(open_call("/elsewhere", true)).certificate);
  EXPECT_EQ(records().back().kind, RecordKind::kCertificate);
  EXPECT_EQ(records().back().grade, kernel::kObservedGrade);
  EXPECT_EQ(records().back().reason, "SCOPE_MISSING");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(judge(open_call("/few/f", false)).certificate);
  EXPECT_EQ(records().back().reason, "BUDGET_EXHAUSTED");
  // What is open for writing where the new label may not write does not stop the raise.
  OpenFile file = open_file("held");
  const Judged held = judge(open_call("/clean/f", true), file.hold());
  ASSERT_TRUE(
      session_->settle_file(held.hold, file.fd.get(), file.identity, label("operator"), true));
  EXPECT_TRUE(poison().certificate);
  EXPECT_EQ(records().back().reason, "HELD_WRITABLE");
  EXPECT_EQ(records().back().culprit, "web:evil.test");
  EXPECT_EQ(stored_label(file.identity), "operator,web:evil.test") << "labels join as ever";
  EXPECT_TRUE(judge(open_call("/clean/g", true)).certificate);
  EXPECT_EQ(records().back().reason, "UNTRUSTED_ORIGIN");
  EXPECT_FALSE(session_->reload(test_policy())) << "it keeps its policy";
  session_.reset();
}

}  // namespace
}  // namespace certgate::supervisor
