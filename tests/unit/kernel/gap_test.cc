// What earlier work left open (each a finding of its kind elsewhere), and that it is closed here.
// The ones that need a running agent are in tests/e2e/gaps.py.
#include <gtest/gtest.h>

#include <set>
#include <type_traits>

#include "kernel/decide.h"
#include "kernel/merkle.h"

namespace certgate::kernel {
namespace {

Token token() {
  Token out;
  out.expires_ns = 1'000'000;
  out.scopes = every_scope();
  return out;
}

Policy one_rule(const std::string& pattern) {
  Policy out;
  Rule rule;
  rule.id = "r";
  rule.verbs = {Verb::kExec, Verb::kRead, Verb::kWrite};
  rule.paths = {PathPattern::parse(pattern).value()};
  rule.accept = AcceptSet::parse({"operator", "user"}).value();
  out.rules.push_back(rule);
  return out;
}

Call read_of(const std::string& path, const char* label) {
  OpenEffect effect;
  effect.path = path;
  effect.read = true;
  return {effect, Label::parse(label).value()};
}

Digest tree_root(const std::vector<Digest>& leaves) {
  CompactRange range;
  for (const Digest& leaf : leaves) range.append(leaf);
  return range.root();
}

// A digest that anybody can compute is no authority.
TEST(Gap, G1_NobodyMintsACertificateOrAToken) {
  EXPECT_FALSE(std::is_default_constructible_v<Certificate>);
  EXPECT_FALSE(std::is_copy_constructible_v<Certificate>);
  EXPECT_FALSE(std::is_copy_assignable_v<Certificate>);
  const Token t = token();
  const std::string unsigned_one =
      dsse_envelope(kTokenPayloadType, t.payload(), "k", std::vector<uint8_t>(64));
  EXPECT_FALSE(verify_chain(unsigned_one, RawPublicKey{}));
}

// The caller has no say in what it is tainted by: whatever it asks, the label only grows.
TEST(Gap, G2_NoCallLowersTheLabel) {
  const Policy policy = one_rule("/**");
  const Decider decider(policy, token());
  State state;
  state.label = Label::parse("operator,user").value();
  state.used.resize(1);
  for (const char* label : {"", "operator", "user", "operator,user"}) {
    const Verdict v = decider.decide(state, read_of("/f", label), {});
    ASSERT_TRUE(std::holds_alternative<Certificate>(v));
    EXPECT_TRUE(std::get<Certificate>(v).raised_to().covers(state.label)) << label;
  }
}

TEST(Gap, G4_WithoutATokenNothing) {
  const Policy policy = one_rule("/**");
  const Decider decider(policy, TokenChain{}, "run");
  const Verdict v = decider.decide({}, read_of("/f", ""), {});
  ASSERT_TRUE(std::holds_alternative<Refusal>(v));
  EXPECT_EQ(std::get<Refusal>(v).reason, Reason::kTokenMissing);
}

TEST(Gap, G5_NoTreeIsAnothersTree) {
  const auto leaf = [](char c) { return leaf_hash(&c, 1); };
  const std::vector<Digest> three{leaf('a'), leaf('b'), leaf('c')};
  std::vector<Digest> four = three;
  four.push_back(leaf('c'));
  EXPECT_NE(tree_root(three), tree_root(four)) << "an odd leaf is not doubled";
  // A leaf that is made of two hashes is not their parent.
  std::vector<uint8_t> both(three[0].begin(), three[0].end());
  both.insert(both.end(), three[1].begin(), three[1].end());
  EXPECT_NE(leaf_hash(both.data(), both.size()), node_hash(three[0], three[1]));
}

TEST(Gap, G8_ASiblingWithTheSamePrefixIsOutside) {
  const Policy policy = one_rule("/ws/**");
  const Decider decider(policy, token());
  State state;
  state.used.resize(1);
  for (const char* path : {"/ws-evil/f", "/wsf", "/w", "/"}) {
    const Verdict v = decider.decide(state, read_of(path, ""), {});
    ASSERT_TRUE(std::holds_alternative<Refusal>(v)) << path;
    EXPECT_EQ(std::get<Refusal>(v).reason, Reason::kScopeMissing);
  }
}

TEST(Gap, G11_EveryReasonHasOneNameAndEveryNameOneReason) {
  std::set<std::string> names;
  size_t known = 0;
  for (unsigned i = 1; i < 64; ++i) {
    const auto reason = static_cast<Reason>(i);
    const std::string name = reason_text(reason);
    if (name == "INTERNAL" && reason != Reason::kInternal) continue;  // no such code
    ++known;
    EXPECT_TRUE(names.insert(name).second) << name;
    const auto back = parse_reason(name);
    ASSERT_TRUE(back) << name;
    EXPECT_EQ(*back, reason);
  }
  EXPECT_GE(known, 14u);
  EXPECT_FALSE(parse_reason("internal"));
  EXPECT_FALSE(parse_reason(""));
}

}  // namespace
}  // namespace certgate::kernel
