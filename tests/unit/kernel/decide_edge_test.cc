// Corners of decide() where a right answer for each part adds up to a wrong one for the whole.
#include <gtest/gtest.h>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

Label label(const char* text) { return Label::parse(text).value(); }

Rule rule(std::vector<Verb> verbs, const char* path, const std::vector<std::string>& accept) {
  Rule r;
  r.id = path;
  r.why = "test";
  r.verbs = std::move(verbs);
  r.paths.push_back(PathPattern::parse(path).value());
  r.accept = AcceptSet::parse(accept).value();
  return r;
}

struct World {
  Policy policy;
  State state;
  Verdict decide(const Call& call) {
    Token token;
    token.expires_ns = 1000;
    token.scopes = every_scope();
    state.used.resize(policy.rules.size());
    return Decider(policy, token).decide(state, call, {1, 1});
  }
};

OpenEffect read_write(const char* path) {
  OpenEffect e;
  e.path = path;
  e.read = e.write = true;
  return e;
}
ExecEffect exec(std::vector<ExecImage> images) {
  ExecEffect e;
  e.images = std::move(images);
  return e;
}

TEST(DecideEdge, MoreTaintDoesNotPermitByWideningAnotherClass) {
  World w;
  w.policy.rules = {rule({Verb::kExec}, "/a", {"web:*", "agent:x"})};
  std::vector<Origin> a, b;
  for (int i = 0; i < 20; ++i) {
    a.push_back({OriginClass::kWeb, "a" + std::to_string(i)});
    b.push_back({OriginClass::kWeb, "b" + std::to_string(i)});
  }
  b.push_back({OriginClass::kAgent, "x"});
  const Call call{exec({{"/a", {}, {}, false}}), Label::of(b)};
  w.state.label = Label::of(a);
  const bool less = std::holds_alternative<Certificate>(w.decide(call));
  w.state.label = label("web:*");
  const bool more = std::holds_alternative<Certificate>(w.decide(call));
  EXPECT_TRUE(less || !more);
}

TEST(DecideEdge, AReadWriteOpenIsJudgedForWritingUnderWhatItReads) {
  World w;
  w.policy.rules = {rule({Verb::kRead}, "/**", {"user", "web:*"}),
                    rule({Verb::kWrite}, "/ws/**", {"user"})};
  w.state.label = label("user");
  const Verdict v = w.decide({read_write("/ws/f"), label("web:evil.test")});
  ASSERT_TRUE(std::holds_alternative<Refusal>(v));
  const Refusal& refusal = std::get<Refusal>(v);
  EXPECT_EQ(refusal.reason, Reason::kUntrustedOrigin);
  EXPECT_EQ(refusal.origin.text(), "web:evil.test");
  EXPECT_EQ(refusal.argument, "file");
  EXPECT_TRUE(std::holds_alternative<Certificate>(w.decide({read_write("/ws/f"), label("user")})));
}

TEST(DecideEdge, ABudgetCountsCallsNotParts) {
  World w;
  w.policy.rules = {rule({Verb::kExec, Verb::kRead, Verb::kWrite}, "/ws/**", {"user"})};
  w.policy.rules[0].budget = 2;
  const Call calls[] = {
      {read_write("/ws/f"), label("user")},
      {exec({{"/ws/s", {}, {}, false}, {"/ws/sh", {}, {}, false}}), label("user")}};
  for (const Call& call : calls) {
    const Verdict v = w.decide(call);
    ASSERT_TRUE(std::holds_alternative<Certificate>(v));
    apply(w.state, std::get<Certificate>(v));
  }
  EXPECT_EQ(w.state.used[0], 2u);
  EXPECT_EQ(std::get<Refusal>(w.decide(calls[0])).reason, Reason::kBudgetExhausted);
}

TEST(DecideEdge, AnExecWithoutAFileIsRefused) {
  World w;
  EXPECT_EQ(std::get<Refusal>(w.decide({ExecEffect{}, {}})).reason, Reason::kInternal);
}

TEST(DecideEdge, AForbidCoversTheLoaderToo) {
  World w;
  w.policy.rules = {rule({Verb::kExec}, "/tmp/**", {}), rule({Verb::kExec}, "/ws/**", {"user"})};
  w.policy.rules[0].effect = Effect::kForbid;
  const Verdict bad =
      w.decide({exec({{"/ws/p", {}, {}, false}, {"/tmp/ld-mine", {}, {}, true}}), {}});
  EXPECT_EQ(std::get<Refusal>(bad).reason, Reason::kForbidden);
  const Verdict good =
      w.decide({exec({{"/ws/p", {}, {}, false}, {"/lib64/ld-linux.so.2", {}, {}, false}}), {}});
  ASSERT_TRUE(std::holds_alternative<Certificate>(good));
  EXPECT_EQ(std::get<Certificate>(good).rules().size(), 1u);
}

}  // namespace
}  // namespace certgate::kernel
