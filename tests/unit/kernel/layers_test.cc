// Layers only narrow: each decides by its own rules, all must allow (policy.h).
#include <gtest/gtest.h>

#include "kernel/decide.h"
#include "supervisor/policy_load.h"

namespace certgate::kernel {
namespace {

const std::vector<std::string> kAll = {"operator", "user",   "policy", "model",  "tool",
                                       "agent:*",  "file:*", "web:*",  "unknown"};

Rule rule(uint8_t layer, Effect effect, const std::string& id, Verb verb,
          const std::vector<std::string>& objects, const std::vector<std::string>& accept = kAll) {
  Rule out;
  out.layer = layer;
  out.effect = effect;
  out.id = id;
  out.why = "because " + id;
  out.verbs = {verb};
  for (const std::string& text : objects) {
    if (verb == Verb::kConnect) {
      out.endpoints.push_back(*EndpointPattern::parse(text));
    } else {
      out.paths.push_back(*PathPattern::parse(text));
    }
  }
  if (effect == Effect::kAllow) out.accept = *AcceptSet::parse(accept);
  return out;
}

Token everything() {
  Token out;
  out.expires_ns = INT64_MAX;
  out.scopes = every_scope();
  return out;
}

Verdict decide(const Policy& policy, const Effects& effect, const char* label = "operator",
               State state = {}) {
  state.label = *Label::parse(label);
  state.used.resize(policy.rules.size());
  return Decider(policy, everything()).decide(state, {effect, {}}, {});
}

Effects write_to(const std::string& path) {
  OpenEffect open;
  open.path = path;
  open.write = true;
  return open;
}

std::string verdict(const Policy& policy, const Effects& effect, const char* label = "operator") {
  const Verdict v = decide(policy, effect, label);
  if (const auto* refusal = std::get_if<Refusal>(&v))
    return std::string(reason_text(refusal->reason)) + " " + refusal->rule;
  std::string out;
  for (const RuleUse& use : std::get<Certificate>(v).rules())
    out += policy.rules[use.rule].id + " ";
  return out;
}

Policy with(std::vector<Rule> rules) {
  Policy out;
  out.name = "layers";
  out.rules = std::move(rules);
  EXPECT_TRUE(validate(out));
  return out;
}

TEST(Layers, ALowerLayerWithoutAnAllowRuleLeavesTheVerbToTheOthers) {
  const Policy policy =
      with({rule(0, Effect::kAllow, "ws", Verb::kWrite, {"/ws/**"}),
            rule(1, Effect::kForbid, "admin:keys", Verb::kWrite, {"/ws/keys/**"})});
  EXPECT_EQ(verdict(policy, write_to("/ws/a")), "ws ");
  EXPECT_EQ(verdict(policy, write_to("/ws/keys/a")), "FORBIDDEN admin:keys");
  EXPECT_EQ(verdict(policy, write_to("/etc/a")), "SCOPE_MISSING ");
}

TEST(Layers, EveryLayerThatSpeaksOfAVerbMustAllow) {
  const Policy policy = with(
      {rule(0, Effect::kAllow, "ws", Verb::kWrite, {"/ws/**"}),
       rule(1, Effect::kAllow, "admin:some", Verb::kWrite, {"/ws/a/**", "/ws/b/**", "/etc/**"}),
       rule(2, Effect::kAllow, "project:less", Verb::kWrite, {"/ws/a/**", "/**"}, {"operator"})});
  EXPECT_EQ(verdict(policy, write_to("/ws/a/x")), "ws admin:some project:less ");
  EXPECT_EQ(verdict(policy, write_to("/ws/c/x")), "SCOPE_MISSING ");
  // What a lower one allows beyond the first grants nothing.
  EXPECT_EQ(verdict(policy, write_to("/etc/x")), "SCOPE_MISSING ");
  EXPECT_EQ(verdict(policy, write_to("/ws/a/x"), "operator,user"), "UNTRUSTED_ORIGIN project:less");
}

TEST(Layers, EachLayersBudgetIsCountedByItself) {
  Policy policy = with({rule(0, Effect::kAllow, "ws", Verb::kWrite, {"/ws/**"}),
                        rule(1, Effect::kAllow, "admin:twice", Verb::kWrite, {"/ws/**"})});
  policy.rules[1].budget = 2;
  const Decider decider(policy, everything());
  State state;
  state.used.resize(2);
  for (int i = 0; i < 2; ++i) {
    const Verdict v = decider.decide(state, {write_to("/ws/a"), {}}, {});
    ASSERT_TRUE(std::holds_alternative<Certificate>(v));
    apply(state, std::get<Certificate>(v));
  }
  EXPECT_EQ(state.used, (std::vector<uint64_t>{2, 2}));
  const Verdict v = decider.decide(state, {write_to("/ws/a"), {}}, {});
  ASSERT_TRUE(std::holds_alternative<Refusal>(v));
  EXPECT_EQ(std::get<Refusal>(v).reason, Reason::kBudgetExhausted);
  EXPECT_EQ(std::get<Refusal>(v).rule, "admin:twice");
}

TEST(Layers, ALowerLayerMayAddAnOriginToAPeerAndNotTakeOneAway) {
  Policy policy =
      with({rule(0, Effect::kAllow, "page", Verb::kConnect, {"page.test:443"}),
            rule(2, Effect::kAllow, "project:page", Verb::kConnect, {"page.test:443"})});
  policy.rules[1].origin = *Origin::parse("operator");
  ConnectEffect connect;
  connect.host = "page.test";
  connect.port = 443;
  const Verdict v = decide(policy, connect);
  ASSERT_TRUE(std::holds_alternative<Certificate>(v));
  EXPECT_EQ(std::get<Certificate>(v).raised_to().text(), "operator,web:page.test");
}

TEST(Layers, AHandleIsHeldToTheRulesOfAllLayers) {
  const Policy policy =
      with({rule(0, Effect::kAllow, "ws", Verb::kWrite, {"/ws/**"}),
            rule(0, Effect::kAllow, "read", Verb::kRead, {"/**"}),
            rule(1, Effect::kAllow, "admin:clean", Verb::kWrite, {"/ws/**"}, {"operator"})});
  State state;
  state.label = *Label::parse("operator");
  state.held = {{Held::Kind::kWritableFile, 0, "/ws/f", {2}}};
  const auto raised = Decider(policy, everything()).raise(state, *Label::parse("web:page.test"));
  ASSERT_TRUE(std::holds_alternative<Refusal>(raised));
  EXPECT_EQ(std::get<Refusal>(raised).rule, "admin:clean");
  state.held[0].lower.clear();
  EXPECT_TRUE(std::holds_alternative<Raise>(
      Decider(policy, everything()).raise(state, *Label::parse("web:page.test"))));
}

// All policies of up to three allow or forbid rules in the lower layers, over two paths, two labels
// and two verbs: no call is allowed that the first layer alone refuses, and a forbid always holds.
TEST(Layers, NoLowerLayerEverAllowsMore) {
  const std::vector<Rule> first = {rule(0, Effect::kAllow, "a", Verb::kWrite, {"/a"}, {"operator"}),
                                   rule(0, Effect::kAllow, "ab", Verb::kRead, {"/a", "/b"})};
  std::vector<Rule> lower;
  for (uint8_t layer = 1; layer < kMaxLayers; ++layer) {
    for (const Verb verb : {Verb::kRead, Verb::kWrite}) {
      for (const char* path : {"/a", "/**"}) {
        lower.push_back(rule(layer, Effect::kAllow, "", verb, {path}, {"operator"}));
        lower.push_back(rule(layer, Effect::kAllow, "", verb, {path}));
        lower.push_back(rule(layer, Effect::kForbid, "", verb, {path}));
      }
    }
  }
  const Policy alone = with(first);
  size_t allowed = 0, refused = 0;
  for (size_t i = 0; i < lower.size(); ++i) {
    for (size_t j = 0; j < lower.size(); ++j) {
      std::vector<Rule> rules = first;
      rules.push_back(lower[i]), rules.back().id = "x";
      rules.push_back(lower[j]), rules.back().id = "y";
      const Policy both = with(rules);
      for (const char* path : {"/a", "/b"}) {
        for (const bool writes : {false, true}) {
          for (const char* label : {"operator", "operator,web:page.test"}) {
            OpenEffect open;
            open.path = path;
            open.read = !writes;
            open.write = writes;
            const Verdict v = decide(both, open, label);
            if (std::holds_alternative<Refusal>(v)) {
              ++refused;
              continue;
            }
            ++allowed;
            EXPECT_TRUE(std::holds_alternative<Certificate>(decide(alone, open, label)));
          }
        }
      }
    }
  }
  EXPECT_GT(allowed, 100u);
  EXPECT_GT(refused, 100u);
}

TEST(Layers, ViaIsForTheFirstLayerOnly) {
  Rule via = rule(1, Effect::kAllow, "admin:x", Verb::kConnect, {"page.test:443"});
  EXPECT_TRUE(validate(via));
  via.endpoints[0].via = "127.0.0.1:80";
  EXPECT_FALSE(validate(via));
  via.layer = 0;
  EXPECT_TRUE(validate(via));
  via.layer = kMaxLayers;
  EXPECT_FALSE(validate(via));
}

TEST(PolicyLoad, WhatIsLoadedHasTheSameCanonicalForm) {
  Policy policy = with(
      {rule(0, Effect::kAllow, "ws", Verb::kWrite, {"/ws/**", "@private"}),
       rule(0, Effect::kAllow, "net", Verb::kConnect,
            {"a.test:443", "*.b.test:8000-8099", "[::1]:*", "udp:c.test:53", "unix:/run/x.sock"}),
       rule(2, Effect::kForbid, "project:x", Verb::kExec, {"/usr/bin/?at"})});
  policy.rules[2].argvs = {{"cat", "**"}, {"rat"}};
  policy.rules[1].origin = *Origin::parse("tool");
  policy.rules[1].endpoints[0].via = "127.0.0.1:80";
  policy.rules[0].ttl_ns = 5;
  policy.rules[0].budget = 7;
  policy.rules[0].durability = Durability::kStrict;
  policy.zones.push_back({"z", *PathPattern::parse("/z/**"), *Origin::parse("file:z")});
  policy.zones.push_back({"s", *PathPattern::parse("/s/**"), {}, "", *Label::parse("secret:s")});
  policy.rules[1].clearance = *AcceptSet::parse({"secret:s"}, AcceptSet::Of::kTags);
  policy.rules.push_back(rule(0, Effect::kAsk, "asks", Verb::kExec, {"/usr/bin/git"}));
  policy.rules.back().deadline_ns = 60'000'000'000;
  policy.risk = {Effect::kAllow, Effect::kAsk, Effect::kForbid};
  Tool tool;
  tool.name = "t";
  tool.why = "w";
  tool.program = "/usr/bin/t";
  tool.pin = Tool::Pin::kExact;
  tool.sha256[3] = 9;
  tool.run_by = {"/usr/bin/sh"};
  ValueSpec value;
  value.min = -3;
  value.accept = *AcceptSet::parse({"user"});
  value.within = {*PathPattern::parse("/ws/**")};
  tool.parts.resize(2);
  tool.parts[0].flag = "t";
  tool.parts[1] = {"-m", value, true, false, 2};
  tool.env = {{"LC_*", {}}};
  tool.cwd = {*PathPattern::parse("/ws/**")};
  tool.descriptors = Tool::Descriptors::kAny;
  policy.tools = {tool};
  policy.rules.push_back(rule(0, Effect::kAllow, "tools", Verb::kExec, {}));
  policy.rules.back().tools = {0};
  const std::vector<uint8_t> bytes = policy.canonical();
  const auto loaded = supervisor::load_canonical(bytes.data(), bytes.size());
  ASSERT_TRUE(loaded) << loaded.error().what;
  EXPECT_EQ(loaded->canonical(), bytes);
  EXPECT_EQ(loaded->digest(), policy.digest());
  EXPECT_EQ(loaded->rules[0].ttl_ns, 5u);
  EXPECT_EQ(loaded->rules[2].layer, 2);
  EXPECT_EQ(loaded->rules[1].endpoints[0].via, "127.0.0.1:80");
}

TEST(PolicyLoad, EveryCutAndEveryFlippedByteIsRefusedOrAnotherCanonicalForm) {
  const Policy policy = with({rule(0, Effect::kAllow, "ws", Verb::kWrite, {"/ws/**"}),
                              rule(1, Effect::kForbid, "admin:x", Verb::kConnect, {"a.test:1"})});
  const std::vector<uint8_t> bytes = policy.canonical();
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(supervisor::load_canonical(bytes.data(), n)) << n;
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::vector<uint8_t> other = bytes;
      other[i] = static_cast<uint8_t>(other[i] ^ 1 << bit);
      const auto loaded = supervisor::load_canonical(other.data(), other.size());
      EXPECT_TRUE(!loaded || loaded->canonical() == other) << i << "." << bit;
    }
  }
  std::vector<uint8_t> longer = bytes;
  longer.push_back(0);
  EXPECT_FALSE(supervisor::load_canonical(longer.data(), longer.size()));
}

}  // namespace
}  // namespace certgate::kernel
