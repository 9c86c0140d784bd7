// Ask rules and approvals: what an operator's word can do, and what it cannot.
#include <gtest/gtest.h>

#include <random>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

constexpr Instant kNow{500, 10, 1000};
constexpr int64_t kLater = 2000;

Label label(const std::string& text) { return *Label::parse(text); }

Rule rule(const std::string& id, Effect effect, std::vector<Verb> verbs, const std::string& path,
          const std::vector<std::string>& accept = {"operator", "user", "web:*"}) {
  Rule out;
  out.id = id;
  out.why = "because " + id;
  out.effect = effect;
  out.verbs = std::move(verbs);
  out.paths.push_back(*PathPattern::parse(path));
  if (out.grants()) out.accept = *AcceptSet::parse(accept);
  return out;
}

Token token() {
  Token out;
  out.holder = "run";
  out.expires_ns = 1000;
  out.scopes = every_scope();
  return out;
}

Call write_call(const std::string& path) {
  OpenEffect e;
  e.path = path;
  e.write = true;
  return {e, {}};
}

struct World {
  Policy policy;
  State state;
  Token with = token();
  World() { state.label = label("user"); }
  Verdict decide(const Call& call, const Instant& now = kNow) {
    state.used.resize(policy.rules.size());
    return Decider(policy, with).decide(state, call, now);
  }
  std::string reason(const Call& call, const Instant& now = kNow) {
    const Verdict verdict = decide(call, now);
    const auto* refusal = std::get_if<Refusal>(&verdict);
    return refusal == nullptr ? "allow" : reason_text(refusal->reason);
  }
  void answer(const Call& call, Approval::Answer answer, const std::string& under = "user",
              int64_t until = kLater) {
    state.approvals.push_back({answer, "run-" + std::to_string(state.approvals.size() + 1),
                               action_digest(call.effect), label(under), until});
  }
};

constexpr auto kApproved = Approval::Answer::kApproved;
constexpr auto kDenied = Approval::Answer::kDenied;
constexpr auto kExpired = Approval::Answer::kExpired;

World asking() {
  World w;
  w.policy.rules = {rule("ask", Effect::kAsk, {Verb::kWrite}, "/ws/**")};
  return w;
}

TEST(Approval, AnAskRuleNeedsOneForThisVeryActionAndSaysWhichAndHowLong) {
  World w = asking();
  w.policy.rules[0].deadline_ns = 7;
  const Verdict verdict = w.decide(write_call("/ws/a"));
  const auto& refusal = std::get<Refusal>(verdict);
  EXPECT_EQ(refusal.reason, Reason::kApprovalRequired);
  EXPECT_EQ(refusal.digest, action_digest(write_call("/ws/a").effect));
  EXPECT_EQ(refusal.deadline_ns, 7u);
  EXPECT_EQ(refusal.rule, "ask");
  EXPECT_EQ(refusal.decision, label("user"));
  w.answer(write_call("/ws/b"), kApproved);
  EXPECT_EQ(w.reason(write_call("/ws/a")), "APPROVAL_REQUIRED") << "another action's approval";
  w.answer(write_call("/ws/a"), kApproved);
  const Verdict approved = w.decide(write_call("/ws/a"));
  EXPECT_EQ(std::get<Certificate>(approved).approval(), "run-2");
}

TEST(Approval, IsUsedOnce) {
  World w = asking();
  const Call call = write_call("/ws/a");
  w.answer(call, kApproved);
  const Verdict verdict = w.decide(call);
  apply(w.state, std::get<Certificate>(verdict));
  EXPECT_TRUE(w.state.approvals.empty());
  EXPECT_EQ(w.reason(call), "APPROVAL_REQUIRED");
  w.answer(call, kApproved);
  w.answer(call, kApproved);
  w.state.approvals[1].id = "another";
  const Verdict first = w.decide(call);
  apply(w.state, std::get<Certificate>(first));
  EXPECT_EQ(w.state.approvals.size(), 1u) << "two requests, two approvals";
}

TEST(Approval, NeverOverridesAForbidALabelATokenOrABudget) {
  World w = asking();
  const Call call = write_call("/ws/a");
  w.answer(call, kApproved, "user,web:x,agent:y");
  ASSERT_EQ(w.reason(call), "allow");
  World forbidden = w;
  forbidden.policy.rules.push_back(rule("never", Effect::kForbid, {Verb::kWrite}, "/ws/a"));
  EXPECT_EQ(forbidden.reason(call), "FORBIDDEN");
  World tainted = w;
  tainted.state.label = label("user,agent:y");
  EXPECT_EQ(tainted.reason(call), "UNTRUSTED_ORIGIN");
  World without_token = w;
  without_token.with.scopes[0].verbs = {Verb::kRead};
  EXPECT_EQ(without_token.reason(call), "TOKEN_MISSING");
  World expired = w;
  expired.with.expires_ns = 1;
  EXPECT_EQ(expired.reason(call), "TOKEN_EXPIRED");
  World used_up = w;
  used_up.policy.rules[0].budget = 1;
  used_up.state.used = {1};
  EXPECT_EQ(used_up.reason(call), "BUDGET_EXHAUSTED");
  World held = w;
  held.policy.rules.push_back(rule("clean", Effect::kAllow, {Verb::kRead}, "/**", {"user"}));
  OpenEffect both;
  both.path = "/ws/a";
  both.read = both.write = true;
  held.state.held.push_back({Held::Kind::kWritableFile, 1, "/ws/held"});
  held.answer({both, {}}, kApproved, "user,web:x");
  EXPECT_EQ(held.reason({both, label("web:x")}), "HELD_WRITABLE");
}

TEST(Approval, IsGoodForNoMoreThanTheLabelThatWasShown) {
  World w = asking();
  const Call call = write_call("/ws/a");
  w.answer(call, kApproved, "user");
  w.state.label = label("user,web:x");
  EXPECT_EQ(w.reason(call), "APPROVAL_REQUIRED") << "the label has risen since";
  w.answer(call, kApproved, "user,web:*");
  EXPECT_EQ(w.reason(call), "allow");
}

TEST(Approval, ADenialAndALateAnswerAreNo) {
  World w = asking();
  const Call call = write_call("/ws/a");
  w.answer(call, kDenied);
  EXPECT_EQ(w.reason(call), "APPROVAL_DENIED");
  EXPECT_EQ(w.reason(call), "APPROVAL_DENIED") << "a denial stands";
  EXPECT_EQ(w.reason(call, {500, 10, kLater}), "APPROVAL_REQUIRED") << "until its time is over";
  EXPECT_EQ(w.reason(write_call("/ws/b")), "APPROVAL_REQUIRED");
  w.state.approvals.clear();
  w.answer(call, kExpired);
  EXPECT_EQ(w.reason(call), "APPROVAL_EXPIRED");
  w.state.approvals.clear();
  w.answer(call, kApproved, "user", kNow.boot_ns);
  EXPECT_EQ(w.reason(call), "APPROVAL_REQUIRED") << "an approval that came too late is none";
}

TEST(Approval, TheFirstAllowOrAskRuleThatAcceptsDecidesAndAskingBeforeItStays) {
  const Rule ask = rule("ask", Effect::kAsk, {Verb::kWrite}, "/ws/**", {"user"});
  const Rule allow = rule("allow", Effect::kAllow, {Verb::kWrite}, "/ws/**", {"user", "web:*"});
  World w;
  w.policy.rules = {ask, allow};
  EXPECT_EQ(w.reason(write_call("/ws/a")), "APPROVAL_REQUIRED");
  w.state.label = label("web:x");
  EXPECT_EQ(w.reason(write_call("/ws/a")), "APPROVAL_REQUIRED") << "taint must not free a call";
  w.answer(write_call("/ws/a"), kApproved, "web:x");
  EXPECT_EQ(w.reason(write_call("/ws/a")), "allow");
  w.policy.rules = {allow, ask};
  w.state.label = label("user");
  EXPECT_EQ(w.reason(write_call("/ws/a")), "allow");
}

TEST(Approval, OneCoversAllPartsOfACall) {
  World w;
  w.policy.rules = {rule("scripts", Effect::kAsk, {Verb::kExec}, "/ws/**"),
                    rule("shells", Effect::kAsk, {Verb::kExec}, "/bin/**")};
  ExecEffect exec;
  exec.images = {{"/ws/x", {}, {}, false}, {"/bin/sh", {}, {}, false}};
  exec.argv = {"x"};
  const Call call{exec, label("user")};
  EXPECT_EQ(w.reason(call), "APPROVAL_REQUIRED");
  w.answer(call, kApproved);
  EXPECT_EQ(w.reason(call), "allow");
  exec.env = {"LD_PRELOAD=/tmp/x.so"};
  EXPECT_EQ(w.reason({exec, label("user")}), "APPROVAL_REQUIRED") << "another environment";
}

TEST(Approval, WhatAPathChangeDoesIsPartOfTheAction) {
  OpenEffect a, b;
  a.path = b.path = "/ws/a";
  a.write = b.write = true;
  a.how = std::string("rename\0/ws/a\0/ws/b", 18);
  b.how = "unlink";
  EXPECT_NE(action_digest(a), action_digest(b));
}

TEST(Approval, PoliciesThatCannotBeMeantAreRefused) {
  Policy p;
  p.rules = {rule("ask", Effect::kAsk, {Verb::kWrite}, "/ws/**")};
  EXPECT_TRUE(validate(p));
  p.rules[0].deadline_ns = kMaxDeadline_ns + 1;
  EXPECT_FALSE(validate(p));
  p.rules[0].deadline_ns = 1;
  EXPECT_TRUE(validate(p));
  p.rules[0].effect = Effect::kAllow;
  EXPECT_FALSE(validate(p)) << "a deadline, and nobody is asked";
  Rule udp;
  udp.id = "udp";
  udp.why = "x";
  udp.effect = Effect::kAsk;
  udp.verbs = {Verb::kConnect};
  udp.endpoints = {*EndpointPattern::parse("udp:ntp.test:123")};
  EXPECT_FALSE(validate(udp));
  p.rules.clear();
  p.risk = {Effect::kAllow, Effect::kAsk, Effect::kAllow};
  EXPECT_FALSE(validate(p)) << "high milder than medium";
  p.risk = {Effect::kAllow, Effect::kAsk, Effect::kForbid};
  EXPECT_TRUE(validate(p));
}

TEST(Approval, AskDeadlineAndRiskArePartOfTheDigest) {
  Policy p;
  p.rules = {rule("r", Effect::kAllow, {Verb::kWrite}, "/ws/**")};
  const Digest before = p.digest();
  p.rules[0].effect = Effect::kAsk;
  const Digest asks = p.digest();
  EXPECT_NE(before, asks);
  p.rules[0].deadline_ns = 5;
  EXPECT_NE(asks, p.digest());
  p.rules[0].effect = Effect::kAllow;
  p.rules[0].deadline_ns.reset();
  p.risk[2] = Effect::kAsk;
  EXPECT_NE(before, p.digest());
}

TEST(Risk, IsAskedForbiddenOrAllowedAsThePolicySays) {
  World w;
  w.policy.rules = {rule("all", Effect::kAllow, {Verb::kWrite}, "/**")};
  OpenEffect cut;
  cut.path = "/ws/a";
  cut.write = true;
  cut.flags = 01000;  // O_TRUNC
  const Call call{cut, {}};
  EXPECT_EQ(std::get<Certificate>(w.decide(call)).risk().level, Risk::kMedium);
  w.policy.risk = {Effect::kAllow, Effect::kAsk, Effect::kForbid};
  EXPECT_EQ(w.reason(call), "APPROVAL_REQUIRED");
  w.answer(call, kApproved, "user,web:x");
  EXPECT_EQ(w.reason(call), "allow");
  w.state.label = label("web:x");
  const Verdict verdict = w.decide(call);
  EXPECT_EQ(std::get<Refusal>(verdict).reason, Reason::kForbidden) << "high, whoever approved";
  EXPECT_EQ(std::get<Refusal>(verdict).risk, Risk::kHigh);
}

TEST(Risk, FallsOnceTheSameWasDoneBeforeAndInsideNothingIsRisky) {
  World w;
  w.policy.rules = {rule("all", Effect::kAllow, {Verb::kExec, Verb::kWrite}, "/**")};
  ExecEffect exec;
  exec.images = {{"/bin/x", {}, {}, false}};
  const Call call{exec, label("user")};
  const Verdict first = w.decide(call);
  EXPECT_EQ(std::get<Certificate>(first).risk().level, Risk::kMedium);
  apply(w.state, std::get<Certificate>(first));
  EXPECT_EQ(std::get<Certificate>(w.decide(call)).risk().level, Risk::kLow);
  OpenEffect inside;
  inside.path = "/tmp/x";
  inside.write = inside.inside = true;
  inside.how = "unlink";
  w.state.label = label("web:x");
  EXPECT_EQ(std::get<Certificate>(w.decide({inside, {}})).risk().level, Risk::kLow);
}

constexpr const char* kOrigins[] = {"operator", "user",   "policy", "model", "tool",
                                    "agent:a",  "file:z", "web:x",  "web:y", "unknown"};

Label random_label(std::mt19937& random) {
  Label out;
  for (const char* origin : kOrigins) {
    if (random() % 3 == 0) out = out.join(label(origin));
  }
  return out;
}

Call random_call(std::mt19937& random) {
  if (random() % 4 == 0) {
    ExecEffect e;
    e.images = {{random() % 2 ? "/bin/a" : "/ws/b", {}, {}, random() % 2 == 0}};
    return {e, random_label(random)};
  }
  OpenEffect e;
  e.path = random() % 2 ? "/ws/a" : "/ws/b";
  e.read = random() % 2;
  e.write = !e.read || random() % 2;
  e.flags = random() % 2 ? 01000 : 0;
  e.inside = random() % 4 == 0;
  e.how = random() % 3 == 0 ? "unlink" : "";
  return {e, random_label(random)};
}

TEST(RiskProperty, JoiningOriginsNeverLowersALevel) {
  std::mt19937 random(11);
  for (int i = 0; i < 20000; ++i) {
    const Call call = random_call(random);
    const Label a = random_label(random), b = random_label(random);
    std::vector<uint64_t> seen;
    if (random() % 2) remember(risk_of(call.effect, a, {}).subject, seen);
    ASSERT_LE(risk_of(call.effect, a, seen).level, risk_of(call.effect, a.join(b), seen).level);
  }
}

// Refused, asked, allowed: in that order, and taint never moves a call up.
TEST(RiskProperty, AddingTaintNeverMakesACallFreer) {
  std::mt19937 random(12);
  size_t asked = 0;
  for (int i = 0; i < 20000; ++i) {
    World w;
    for (size_t n = random() % 4; n > 0; --n) {
      std::vector<std::string> accept;
      for (const char* origin : kOrigins) {
        if (random() % 4) accept.emplace_back(origin);
      }
      w.policy.rules.push_back(rule(std::to_string(n), random() % 2 ? Effect::kAsk : Effect::kAllow,
                                    {Verb::kExec, Verb::kRead, Verb::kWrite},
                                    random() % 2 ? "/ws/**" : "/**", accept));
    }
    w.policy.risk = {Effect::kAllow, random() % 2 ? Effect::kAllow : Effect::kAsk,
                     random() % 2 ? Effect::kAsk : Effect::kForbid};
    w.state.label = random_label(random);
    const Call call = random_call(random);
    if (random() % 2) remember(risk_of(call.effect, {}, {}).subject, w.state.seen);
    const auto freedom = [&] {
      const std::string reason = w.reason(call);
      return reason == "allow" ? 2 : reason == "APPROVAL_REQUIRED" ? 1 : 0;
    };
    const int before = freedom();
    asked += before == 1;
    w.state.label = w.state.label.join(random_label(random));
    ASSERT_LE(freedom(), before) << "round " << i;
  }
  EXPECT_GT(asked, 1000u);
}

}  // namespace
}  // namespace certgate::kernel
