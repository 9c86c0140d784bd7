#include "kernel/decide.h"

#include <gtest/gtest.h>

#include <random>

namespace certgate::kernel {
namespace {

Label label(const char* text) { return *Label::parse(text); }

Rule rule(const std::string& id, Effect effect, std::vector<Verb> verbs, const std::string& path,
          const std::vector<std::string>& accept) {
  Rule r;
  r.id = id;
  r.why = "because " + id;
  r.effect = effect;
  r.verbs = std::move(verbs);
  r.paths.push_back(*PathPattern::parse(path));
  r.accept = *AcceptSet::parse(accept);
  return r;
}

Rule connect_rule(const std::string& id, const std::string& host,
                  const std::vector<std::string>& accept) {
  Rule r;
  r.id = id;
  r.why = "because " + id;
  r.verbs = {Verb::kConnect};
  r.endpoints.push_back(EndpointPattern::parse(host + ":80").value());
  r.accept = *AcceptSet::parse(accept);
  return r;
}

Token token() {
  Token t;
  t.id = "00112233aabbccdd";
  t.holder = "abcdefgh";
  t.issuer = "test";
  t.expires_ns = 1000;
  t.scopes = every_scope();
  return t;
}

constexpr Instant kNow{500, 10};

struct World {
  Policy policy;
  State state;
  Verdict decide(const Call& call, const Instant& now = kNow) {
    state.used.resize(policy.rules.size());
    return Decider(policy, token()).decide(state, call, now);
  }
};

Call read_call(const std::string& path, const Label& object = {}) {
  OpenEffect e;
  e.path = path;
  e.read = true;
  return {e, object};
}
Call write_call(const std::string& path, bool read = false) {
  OpenEffect e;
  e.path = path;
  e.write = true;
  e.read = read;
  return {e, {}};
}
Call exec_call(const std::vector<std::string>& images, std::vector<std::string> argv,
               const Label& object = {}) {
  ExecEffect e;
  for (const std::string& path : images) e.images.push_back({path, {}, {}, false});
  e.argv = std::move(argv);
  return {e, object};
}
Call connect_call(const std::string& host, uint16_t port = 80) {
  ConnectEffect e;
  e.host = host;
  e.port = port;
  return {e, {}};
}

const Refusal& refusal(const Verdict& v) { return std::get<Refusal>(v); }
bool allowed(const Verdict& v) { return std::holds_alternative<Certificate>(v); }

TEST(Decide, ForbidBeatsAllowWhereverItStands) {
  for (const bool first : {true, false}) {
    World w;
    const Rule allow = rule("a", Effect::kAllow, {Verb::kRead}, "/**", {"user"});
    const Rule forbid = rule("f", Effect::kForbid, {Verb::kRead}, "/secret/**", {});
    w.policy.rules = first ? std::vector<Rule>{forbid, allow} : std::vector<Rule>{allow, forbid};
    EXPECT_EQ(refusal(w.decide(read_call("/secret/x"))).reason, Reason::kForbidden);
    EXPECT_TRUE(allowed(w.decide(read_call("/public"))));
  }
}

TEST(Decide, NoRuleMeansNo) {
  World w;
  EXPECT_EQ(refusal(w.decide(read_call("/x"))).reason, Reason::kScopeMissing);
}

TEST(Decide, ARefusalNamesRuleOriginAndArgument) {
  World w;
  w.policy.rules = {rule("run", Effect::kAllow, {Verb::kExec}, "/bin/**", {"operator"})};
  w.state.label = label("operator,web:page.test");
  const Verdict own = w.decide(exec_call({"/bin/x"}, {"x"}));
  EXPECT_EQ(refusal(own).reason, Reason::kUntrustedOrigin);
  EXPECT_EQ(refusal(own).rule, "run");
  EXPECT_EQ(refusal(own).origin.text(), "web:page.test");
  EXPECT_EQ(refusal(own).argument, "agent");
  w.state.label = label("operator");
  const Verdict file = w.decide(exec_call({"/bin/x"}, {"x"}, label("web:other.test")));
  EXPECT_EQ(refusal(file).argument, "file");
  EXPECT_EQ(refusal(file).origin.text(), "web:other.test");
}

TEST(Decide, ReadingJoinsAndWritingLabelsTheFile) {
  World w;
  w.policy.rules = {rule("all", Effect::kAllow, {Verb::kRead, Verb::kWrite}, "/**",
                         {"operator", "user", "web:*"})};
  w.state.label = label("operator");
  const Verdict read = w.decide(read_call("/x", label("web:a")));
  EXPECT_EQ(std::get<Certificate>(read).raised_to(), label("operator,web:a"));
  const Verdict write = w.decide(write_call("/x"));
  EXPECT_EQ(std::get<Certificate>(write).object_label(), label("operator"));
  EXPECT_EQ(std::get<Certificate>(write).raised_to(), label("operator"));
}

TEST(Decide, ReadWriteNeedsBothRights) {
  World w;
  w.policy.rules = {rule("r", Effect::kAllow, {Verb::kRead}, "/**", {"operator"})};
  EXPECT_FALSE(allowed(w.decide(write_call("/x", true))));
  w.policy.rules.push_back(rule("w", Effect::kAllow, {Verb::kWrite}, "/**", {"operator"}));
  const Verdict both = w.decide(write_call("/x", true));
  ASSERT_TRUE(allowed(both));
  EXPECT_EQ(std::get<Certificate>(both).rules().size(), 2u);
}

TEST(Decide, EveryInterpreterNeedsARuleButTheLoaderDoesNot) {
  World w;
  w.policy.rules = {rule("script", Effect::kAllow, {Verb::kExec}, "/ws/**", {"operator"})};
  EXPECT_FALSE(allowed(w.decide(exec_call({"/ws/s", "/usr/bin/dash"}, {"s"}))));
  EXPECT_TRUE(allowed(w.decide(exec_call({"/ws/s", "/usr/lib/ld-linux-x86-64.so.2"}, {"s"}))));
  // A loader that is itself the named file is judged like any other.
  EXPECT_FALSE(allowed(w.decide(exec_call({"/usr/lib/ld-linux-x86-64.so.2"}, {"ld"}))));
}

TEST(Decide, ArgvIsPartOfTheScope) {
  World w;
  Rule git = rule("git", Effect::kAllow, {Verb::kExec}, "/usr/bin/git", {"operator"});
  git.argvs = {{"git", "status", "**"}};
  w.policy.rules = {git};
  EXPECT_TRUE(allowed(w.decide(exec_call({"/usr/bin/git"}, {"git", "status"}))));
  EXPECT_TRUE(allowed(w.decide(exec_call({"/usr/bin/git"}, {"git", "status", "--short"}))));
  EXPECT_FALSE(allowed(w.decide(exec_call({"/usr/bin/git"}, {"git", "push"}))));
  EXPECT_FALSE(allowed(w.decide(exec_call({"/usr/bin/git"}, {"git"}))));
}

TEST(Decide, ABudgetOfNAllowsExactlyN) {
  World w;
  Rule r = rule("few", Effect::kAllow, {Verb::kRead}, "/**", {"operator"});
  r.budget = 3;
  w.policy.rules = {r};
  for (int i = 0; i < 3; ++i) {
    const Verdict v = w.decide(read_call("/x"));
    ASSERT_TRUE(allowed(v)) << i;
    apply(w.state, std::get<Certificate>(v));
  }
  EXPECT_EQ(refusal(w.decide(read_call("/x"))).reason, Reason::kBudgetExhausted);
}

TEST(Decide, TimesAreKept) {
  World w;
  Rule r = rule("short", Effect::kAllow, {Verb::kRead}, "/**", {"operator"});
  r.ttl_ns = 100;
  w.policy.rules = {r};
  EXPECT_TRUE(allowed(w.decide(read_call("/x"), {500, 99})));
  EXPECT_EQ(refusal(w.decide(read_call("/x"), {500, 100})).reason, Reason::kRuleExpired);
  EXPECT_EQ(refusal(w.decide(read_call("/x"), {1000, 1})).reason, Reason::kTokenExpired);
}

TEST(Decide, AForbiddenPathCannotBeReachedByReplacingADirectoryAboveIt) {
  World w;
  w.policy.rules = {rule("hooks", Effect::kForbid, {Verb::kWrite}, "/ws/.git/hooks/**", {}),
                    rule("write", Effect::kAllow, {Verb::kWrite}, "/ws/**", {"operator"})};
  OpenEffect e;
  e.path = "/ws/.git";
  e.write = true;
  EXPECT_TRUE(allowed(w.decide({e, {}}))) << "the directory itself may be made";
  e.replaces = true;
  EXPECT_EQ(refusal(w.decide({e, {}})).reason, Reason::kForbidden);
  e.path = "/ws/src";
  EXPECT_TRUE(allowed(w.decide({e, {}})));
}

TEST(Decide, AFileWithOtherNamesIsNotWrittenUnderAnUntrustedLabel) {
  World w;
  w.policy.rules = {
      rule("out", Effect::kAllow, {Verb::kWrite}, "/ws/out/**", {"operator", "web:*"})};
  OpenEffect e;
  e.path = "/ws/out/f";
  e.write = true;
  w.state.label = label("operator,web:a");
  EXPECT_TRUE(allowed(w.decide({e, {}})));
  e.other_names = true;
  EXPECT_EQ(refusal(w.decide({e, {}})).reason, Reason::kConstraint);
  w.state.label = label("operator");
  EXPECT_TRUE(allowed(w.decide({e, {}})));
}

TEST(Decide, WhatCannotLeaveNeedsNoRuleAndJoinsNothing) {
  World w;
  for (const Transport transport : {Transport::kTcp, Transport::kUdp, Transport::kUnix}) {
    ConnectEffect e;
    e.host = "127.0.0.1";
    e.transport = transport;
    e.inside = true;
    const Verdict v = w.decide({e, {}});
    ASSERT_TRUE(allowed(v));
    EXPECT_TRUE(std::get<Certificate>(v).raised_to().empty());
    e.inside = false;
    EXPECT_EQ(refusal(w.decide({e, {}})).reason, Reason::kScopeMissing);
  }
}

TEST(Decide, AUnixSocketOfTheHostIsUnknownUnlessTheRuleSays) {
  World w;
  w.policy.rules = {connect_rule("agent", "x", {"operator"})};
  w.policy.rules[0].endpoints = {EndpointPattern::parse("unix:/run/agent.sock").value()};
  ConnectEffect e;
  e.transport = Transport::kUnix;
  e.path = "/run/agent.sock";
  const Verdict v = w.decide({e, {}});
  ASSERT_TRUE(allowed(v));
  EXPECT_EQ(std::get<Certificate>(v).raised_to(), label("unknown"));
  w.policy.rules[0].origin = *Origin::parse("tool");
  const Verdict tool = w.decide({e, {}});
  EXPECT_EQ(std::get<Certificate>(tool).raised_to(), label("tool"));
  e.path = "/run/agent.sock2";
  EXPECT_EQ(refusal(w.decide({e, {}})).reason, Reason::kScopeMissing);
}

TEST(Decide, ConnectingJoinsTheHost) {
  World w;
  w.policy.rules = {connect_rule("page", "page.test", {"operator"})};
  w.state.label = label("operator");
  const Verdict v = w.decide(connect_call("page.test"));
  EXPECT_EQ(std::get<Certificate>(v).raised_to(), label("operator,web:page.test"));
  w.policy.rules[0].origin = *Origin::parse("model");
  const Verdict model = w.decide(connect_call("page.test"));
  EXPECT_EQ(std::get<Certificate>(model).raised_to(), label("model,operator"));
}

TEST(Decide, ARaiseIsRefusedWhileACleanOnlyFileIsHeld) {
  World w;
  w.policy.rules = {connect_rule("page", "page.test", {"operator", "web:*"}),
                    rule("write", Effect::kAllow, {Verb::kWrite}, "/ws/**", {"operator"})};
  w.state.held = {{Held::Kind::kWritableFile, 1, "/ws/f"}};
  const Verdict v = w.decide(connect_call("page.test"));
  EXPECT_EQ(refusal(v).reason, Reason::kHeldWritable);
  EXPECT_EQ(refusal(v).rule, "write");
  // Once the label has the origin there is no raise, and nothing to refuse.
  w.state.label = label("web:page.test");
  EXPECT_TRUE(allowed(w.decide(connect_call("page.test"))));
}

TEST(Decide, ARaiseNamesTheConnectionsToShut) {
  World w;
  w.policy.rules = {connect_rule("page", "page.test", {"operator", "web:*"}),
                    connect_rule("sink", "sink.test", {"operator"})};
  w.state.held = {{Held::Kind::kConnection, 0, "page"}, {Held::Kind::kConnection, 1, "sink"}};
  const Verdict v = w.decide(connect_call("page.test"));
  EXPECT_EQ(std::get<Certificate>(v).shut(), std::vector<uint32_t>{1});
}

// --- properties over random worlds
// ------------------------------------------------------------------

const char* const kOriginTexts[] = {"operator",   "user",    "model", "web:a.test",
                                    "web:b.test", "unknown", "file:z"};
const char* const kPaths[] = {"/a", "/a/b", "/a/b/c", "/ab", "/x/y"};
const char* const kPatterns[] = {"/**", "/a/**", "/a", "/a/*", "/**/c", "/x/?"};

Label random_label(std::mt19937& random) {
  Label out;
  for (const char* text : kOriginTexts) {
    if (random() % 3 == 0) out = out.join(label(text));
  }
  return out;
}

World random_world(std::mt19937& random) {
  World w;
  const size_t rules = random() % 6;
  for (size_t i = 0; i < rules; ++i) {
    std::vector<std::string> accept;
    for (const char* text : kOriginTexts) {
      if (random() % 2) accept.emplace_back(text);
    }
    std::vector<Verb> verbs;
    for (const Verb v : {Verb::kExec, Verb::kRead, Verb::kWrite}) {
      if (random() % 2) verbs.push_back(v);
    }
    const Effect effect = random() % 5 == 0 ? Effect::kForbid : Effect::kAllow;
    w.policy.rules.push_back(rule("r" + std::to_string(i), effect, verbs,
                                  kPatterns[random() % std::size(kPatterns)], accept));
  }
  w.state.label = random_label(random);
  return w;
}

Call random_call(std::mt19937& random) {
  const std::string path = kPaths[random() % std::size(kPaths)];
  switch (random() % 3) {
    case 0:
      return read_call(path, random_label(random));
    case 1:
      return write_call(path);
    default:
      return exec_call({path}, {"x"}, random_label(random));
  }
}

// The rules of policy.h, said again as simply as possible.
bool reference_allows(const World& w, const Call& call) {
  const auto* open = std::get_if<OpenEffect>(&call.effect);
  const Verb verb = open == nullptr ? Verb::kExec : open->write ? Verb::kWrite : Verb::kRead;
  const std::string& path =
      open != nullptr ? open->path : std::get<ExecEffect>(call.effect).images[0].path;
  const Label judged = open != nullptr ? w.state.label : w.state.label.join(call.object);
  bool allow = false;
  for (const Rule& r : w.policy.rules) {
    bool has = false;
    for (const Verb v : r.verbs) has = has || v == verb;
    if (!has || !r.paths[0].matches(path, false)) continue;
    if (r.effect == Effect::kForbid) return false;
    allow = allow || r.accept.accepts(judged);
  }
  return allow;
}

TEST(DecideProperty, AgreesWithTheNaiveReference) {
  std::mt19937 random(1);
  size_t yes = 0;
  for (int i = 0; i < 20000; ++i) {
    World w = random_world(random);
    const Call call = random_call(random);
    const bool got = allowed(w.decide(call));
    ASSERT_EQ(got, reference_allows(w, call)) << "round " << i;
    yes += got;
  }
  EXPECT_GT(yes, 1000u);
}

TEST(DecideProperty, AddingTaintNeverTurnsARefusalIntoAPermit) {
  std::mt19937 random(2);
  for (int i = 0; i < 20000; ++i) {
    World w = random_world(random);
    const Call call = random_call(random);
    if (allowed(w.decide(call))) continue;
    w.state.label = w.state.label.join(random_label(random));
    ASSERT_FALSE(allowed(w.decide(call))) << "round " << i;
  }
}

TEST(DecideProperty, TheLabelAfterCoversTheLabelBefore) {
  std::mt19937 random(3);
  for (int i = 0; i < 5000; ++i) {
    World w = random_world(random);
    const Verdict v = w.decide(random_call(random));
    if (!allowed(v)) continue;
    ASSERT_TRUE(std::get<Certificate>(v).raised_to().covers(w.state.label));
  }
}

TEST(DecideProperty, TheSameInputGivesTheSameOutput) {
  std::mt19937 random(4);
  for (int i = 0; i < 2000; ++i) {
    World w = random_world(random);
    const Call call = random_call(random);
    const Verdict a = w.decide(call), b = w.decide(call);
    ASSERT_EQ(allowed(a), allowed(b));
    if (allowed(a)) {
      ASSERT_EQ(std::get<Certificate>(a).digest(), std::get<Certificate>(b).digest());
    } else {
      ASSERT_EQ(refusal(a).why, refusal(b).why);
    }
  }
}

static_assert(!std::is_copy_constructible_v<Certificate> &&
              !std::is_default_constructible_v<Certificate>);

}  // namespace
}  // namespace certgate::kernel
