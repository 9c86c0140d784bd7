// Secrecy tags: joined like origins, judged the other way round, at sinks only.
#include <gtest/gtest.h>

#include <random>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

Label label(const std::string& text) { return Label::parse(text).value(); }

Token token() {
  Token out;
  out.holder = "run";
  out.expires_ns = 1000;
  out.scopes = every_scope();
  return out;
}

Rule path_rule(const std::string& id, Verb verb, const std::vector<std::string>& accept) {
  Rule out;
  out.id = id;
  out.why = "test";
  out.verbs = {verb};
  out.paths = {PathPattern::parse("/**").value()};
  out.accept = AcceptSet::parse(accept).value();
  return out;
}

Rule sink(const std::string& id, const std::vector<std::string>& accept,
          const std::vector<std::string>& clearance, const std::string& to = "a.test:443") {
  Rule out;
  out.id = id;
  out.why = "test";
  out.verbs = {Verb::kConnect};
  out.endpoints = {EndpointPattern::parse(to).value()};
  out.accept = AcceptSet::parse(accept).value();
  out.clearance = AcceptSet::parse(clearance, AcceptSet::Of::kTags).value();
  out.origin = Origin{OriginClass::kTool, ""};
  return out;
}

Call connect_to(const std::string& host) {
  ConnectEffect effect;
  effect.host = host;
  effect.port = 443;
  return {effect, {}};
}

Call open_of(const std::string& path, bool read, bool write, const Label& object = {}) {
  OpenEffect effect;
  effect.path = path;
  effect.read = read;
  effect.write = write;
  return {effect, object};
}

struct World {
  Policy policy;
  State state;
  Verdict decide(const Call& call) {
    state.used.resize(policy.rules.size());
    return Decider(policy, token()).decide(state, call, {1, 1, 1});
  }
};

bool allowed(const Verdict& verdict) { return std::holds_alternative<Certificate>(verdict); }

constexpr const char* kTags[] = {"env", "key", "a", "b", "c", "d", "e", "f", "*"};
constexpr const char* kOrigins[] = {"operator", "user", "web:a", "web:*", "agent:x", "unknown"};

Label random_label(std::mt19937& random) {
  Label out;
  for (size_t i = random() % 4; i-- > 0;) out = out.join(label(kOrigins[random() % 6]));
  for (size_t i = random() % 9; i-- > 0;)
    out = out.join(label(std::string("secret:") + kTags[random() % 9]));
  return out;
}

TEST(Secrecy, TagsKeepALabelASemilattice) {
  std::mt19937 random(1);
  for (int i = 0; i < 5000; ++i) {
    const Label a = random_label(random), b = random_label(random), c = random_label(random);
    ASSERT_EQ(a.join(b), b.join(a));
    ASSERT_EQ(a.join(b).join(c), a.join(b.join(c)));
    ASSERT_EQ(a.join(a), a);
    ASSERT_TRUE(a.join(b).covers(a) && a.join(b).covers(b));
    ASSERT_EQ(label(a.text()), a);
  }
}

TEST(Secrecy, ManyTagsWidenToAllOfThem) {
  Label many;
  for (int i = 0; i < 20; ++i) many = many.join(label("user,secret:t" + std::to_string(i)));
  EXPECT_EQ(many.text(), "user,secret:*");
  EXPECT_TRUE(many.covers(label("secret:anything")));
  EXPECT_FALSE(AcceptSet::parse({"secret:t1"}, AcceptSet::Of::kTags)->accepts(many));
  EXPECT_TRUE(AcceptSet::parse({"secret:*"}, AcceptSet::Of::kTags)->accepts(many));
}

TEST(Secrecy, ATagIsNoOriginAndAnOriginNoTag) {
  for (const char* text : {"secret", "secret:env", "secret:*"}) {
    EXPECT_FALSE(Origin::parse(text)) << text;
    EXPECT_FALSE(AcceptSet::parse({"user", text})) << text;
  }
  EXPECT_NE(Origin::parse("secret:env").error().what.find("clearance"), std::string::npos);
  for (const char* text : {"user", "web:a", "web:*", "secret", "secret:", "secret:a b"})
    EXPECT_FALSE(AcceptSet::parse({text}, AcceptSet::Of::kTags)) << text;
  EXPECT_FALSE(Label::parse("secret:"));
  EXPECT_FALSE(Label::parse("secret"));
}

TEST(Secrecy, AcceptNeverLooksAtTagsNorClearanceAtOrigins) {
  std::mt19937 random(2);
  const AcceptSet accept = AcceptSet::parse({"operator", "user", "web:a"}).value();
  const AcceptSet clearance = AcceptSet::parse({"secret:env"}, AcceptSet::Of::kTags).value();
  for (int i = 0; i < 5000; ++i) {
    const Label a = random_label(random);
    const Label tagged = a.join(label("secret:key"));
    const Label tainted = a.join(label("unknown,web:*"));
    ASSERT_EQ(accept.accepts(a), accept.accepts(tagged)) << a.text();
    ASSERT_EQ(clearance.accepts(a), clearance.accepts(tainted)) << a.text();
    ASSERT_FALSE(clearance.accepts(tagged));
  }
  EXPECT_TRUE(AcceptSet().accepts(label("secret:env")));
  EXPECT_TRUE(AcceptSet(AcceptSet::Of::kTags).accepts(label("web:*,unknown")));
  EXPECT_FALSE(AcceptSet(AcceptSet::Of::kTags).accepts(label("secret:env")));
}

TEST(Secrecy, AddingATagNeverPermitsMore) {
  std::mt19937 random(3);
  int permitted = 0, lost = 0;
  for (int i = 0; i < 20000; ++i) {
    World w;
    for (size_t n = 1 + random() % 3; n-- > 0;) {
      std::vector<std::string> accept, clearance;
      for (const char* o : kOrigins) {
        if (random() % 2) accept.emplace_back(o);
      }
      for (const char* t : kTags) {
        if (random() % 3 == 0) clearance.push_back(std::string("secret:") + t);
      }
      w.policy.rules.push_back(sink("r" + std::to_string(n), accept, clearance,
                                    random() % 2 ? "a.test:443" : "*.test:443"));
      if (random() % 8 == 0) {
        w.policy.rules.back().effect = Effect::kForbid;
        w.policy.rules.back().clearance = AcceptSet(AcceptSet::Of::kTags);
      }
    }
    w.policy.rules.push_back(path_rule("read", Verb::kRead, {"operator", "user"}));
    w.policy.rules.push_back(path_rule("write", Verb::kWrite, {"operator", "user"}));
    const Call call = random() % 2 ? connect_to("a.test")
                                   : open_of("/x", random() % 2 == 0, true, random_label(random));
    const Label less = random_label(random);
    w.state.label = less;
    const bool before = allowed(w.decide(call));
    w.state.label = less.join(label(std::string("secret:") + kTags[random() % 9]));
    const bool after = allowed(w.decide(call));
    ASSERT_TRUE(before || !after);
    permitted += before;
    lost += before && !after;
  }
  EXPECT_GT(permitted, 1000);
  EXPECT_GT(lost, 100);
}

TEST(Secrecy, ASinkWithoutClearanceNamesTheTag) {
  World w;
  w.policy.rules = {sink("api", {"operator", "web:*"}, {"secret:env"})};
  w.state.label = label("operator,secret:env");
  EXPECT_TRUE(allowed(w.decide(connect_to("a.test"))));
  w.state.label = label("operator,web:page.test,secret:env,secret:key");
  const auto refusal = std::get<Refusal>(w.decide(connect_to("a.test")));
  EXPECT_EQ(refusal.reason, Reason::kClearanceMissing);
  EXPECT_EQ(refusal.origin.text(), "secret:key");
  EXPECT_EQ(refusal.argument, "agent");
  EXPECT_EQ(refusal.rule, "api");
  EXPECT_EQ(static_cast<int>(refusal.reason), 26);
  EXPECT_STREQ(reason_text(refusal.reason), "CLEARANCE_MISSING");
}

TEST(Secrecy, ALaterRuleWithClearanceAllows) {
  World w;
  w.policy.rules = {sink("plain", {"operator"}, {}), sink("cleared", {"operator"}, {"secret:*"})};
  w.state.label = label("operator,secret:env");
  const Verdict verdict = w.decide(connect_to("a.test"));
  ASSERT_TRUE(allowed(verdict));
  EXPECT_EQ(std::get<Certificate>(verdict).rules()[0].rule, 1u);
}

TEST(Secrecy, WhatIsReadIsCarriedOnAndOnlyConnectionsAreShut) {
  World w;
  w.policy.rules = {path_rule("read", Verb::kRead, {"operator"}),
                    path_rule("write", Verb::kWrite, {"operator"}), sink("plain", {"operator"}, {}),
                    sink("cleared", {"operator"}, {"secret:env"})};
  w.state.label = label("operator");
  w.state.held = {{Held::Kind::kConnection, 2, "a.test:443"},
                  {Held::Kind::kConnection, 3, "a.test:443"},
                  {Held::Kind::kWritableFile, 1, "/log"}};
  const Verdict read = w.decide(open_of("/ws/.env", true, false, label("operator,secret:env")));
  ASSERT_TRUE(allowed(read));
  const auto& certificate = std::get<Certificate>(read);
  EXPECT_EQ(certificate.raised_to().text(), "operator,secret:env");
  EXPECT_EQ(certificate.shut(), std::vector<uint32_t>{0});
  apply(w.state, certificate);
  const Verdict write = w.decide(open_of("/ws/copy", false, true));
  ASSERT_TRUE(allowed(write));
  EXPECT_EQ(std::get<Certificate>(write).object_label().text(), "operator,secret:env");
}

TEST(Secrecy, AConnectionThatAnotherAgentsSecretReachesIsShut) {
  World w;
  w.policy.rules = {sink("plain", {"operator"}, {})};
  w.state.label = label("operator");
  w.state.held = {{Held::Kind::kConnection, 0, "a.test:443"}};
  const auto raise = Decider(w.policy, token()).raise(w.state, label("secret:key"));
  EXPECT_EQ(std::get<Raise>(raise).shut, std::vector<uint32_t>{0});
}

TEST(Secrecy, EveryZoneOfAPlaceAddsItsTags) {
  Policy p;
  const auto add = [&](const char* path, std::optional<Origin> origin, const char* secrecy) {
    p.zones.push_back(
        {"z", PathPattern::parse(path).value(), std::move(origin), "", label(secrecy)});
  };
  add("/ws/**", Origin{OriginClass::kUser, ""}, "");
  add("/ws/**/.env", std::nullopt, "secret:env");
  add("/ws/prod/**", Origin{OriginClass::kTool, ""}, "secret:prod");
  add("/ws/prod/very/long/path/**", std::nullopt, "");
  EXPECT_EQ(p.zone_label("/ws/a").text(), "user");
  EXPECT_EQ(p.zone_label("/ws/.env").text(), "user,secret:env");
  EXPECT_EQ(p.zone_label("/ws/a/b/.env").text(), "user,secret:env");
  EXPECT_EQ(p.zone_label("/ws/prod/.env").text(), "tool,secret:env,secret:prod");
  EXPECT_EQ(p.zone_label("/ws/prod/very/long/path/x").text(), "tool,secret:prod");
  EXPECT_EQ(p.zone_label("/else/.env").text(), "unknown");
  EXPECT_EQ(p.zone_secrecy("/ws/prod/.env").text(), "secret:env,secret:prod");
  EXPECT_FALSE(validate(p)) << "the last zone says nothing";
  p.zones.pop_back();
  EXPECT_TRUE(validate(p));
}

TEST(Secrecy, ThePolicyDigestCoversIt) {
  Policy base;
  base.rules = {sink("r", {"user"}, {})};
  base.zones.push_back({"z", PathPattern::parse("/z").value(), Origin{OriginClass::kUser, ""}});
  Policy cleared = base, secret = base, bare = base;
  cleared.rules[0].clearance = AcceptSet::parse({"secret:a"}, AcceptSet::Of::kTags).value();
  secret.zones[0].secrecy = label("secret:a");
  bare.zones[0] = secret.zones[0];
  bare.zones[0].origin.reset();
  EXPECT_NE(cleared.digest(), base.digest());
  EXPECT_NE(secret.digest(), base.digest());
  EXPECT_NE(bare.digest(), secret.digest());
}

TEST(Secrecy, OnlyARuleThatAllowsToConnectHasAClearance) {
  const auto tags = AcceptSet::parse({"secret:a"}, AcceptSet::Of::kTags).value();
  Rule read = path_rule("r", Verb::kRead, {"user"});
  EXPECT_TRUE(validate(read));
  read.clearance = tags;
  EXPECT_FALSE(validate(read));
  Rule forbid = sink("f", {}, {});
  forbid.effect = Effect::kForbid;
  EXPECT_TRUE(validate(forbid));
  forbid.clearance = tags;
  EXPECT_FALSE(validate(forbid));
}

// Globs are told apart by their first and last bytes first: that loses none that matches.
TEST(Secrecy, FixedBytesOfAGlobLoseNoMatch) {
  struct Row {
    const char *pattern, *path;
    bool is_match;
  };
  constexpr Row kRows[] = {{"/ws/**/.env", "/ws/.env", true},
                           {"/ws/**/.env", "/ws/a/b/.env", true},
                           {"/ws/**/.env", "/ws/a.env", false},
                           {"/ws/**/.env", "/wsx/.env", false},
                           {"/**/.ssh/**", "/.ssh", true},
                           {"/**/.ssh/**", "/a/.ssh/x/y", true},
                           {"/ws/**/*.key", "/ws/.key", true},
                           {"/ws/**/*.key", "/ws/a/b.key", true},
                           {"/ws/**/*key.pem", "/ws/key.pem", true},
                           {"/a?/b", "/ax/b", true},
                           {"/a?/b", "/a/b", false},
                           {"/**/b", "/b", true},
                           {"/*/x/**", "/a/x", true},
                           {"/ws/**/.env.*.local", "/ws/.env.a.local", true},
                           {"/ws/**/.env.*.local", "/ws/.env.local", false}};
  for (const Row& row : kRows) {
    EXPECT_EQ(PathPattern::parse(row.pattern)->matches(row.path, false), row.is_match)
        << row.pattern << ' ' << row.path;
  }
}

}  // namespace
}  // namespace certgate::kernel
