#include "agentd/rule_pieces.h"

#include <gtest/gtest.h>

#include <random>

#include "agentd/policy_file.h"

namespace certgate::agentd {
namespace {

const PolicyContext kContext{"/ws", "/home/agent"};
constexpr size_t kWhole = SIZE_MAX;

std::string rule(const std::string& id, const std::string& more = "") {
  return "[[rule]]\nid = \"" + id + "\"\nwhy = \"w\"\nallow = [\"read\"]\npaths = [\"/" + id +
         "/**\"]\naccept = [\"user\"]\n" + more;
}

// All that comes of a policy, or the error.
std::string outcome(const std::string& text, size_t piece_bytes) {
  const auto policy = compile_policy("/p.toml", text, kContext, piece_bytes);
  if (!policy) return policy.error().what;
  const std::vector<uint8_t> form = policy->policy.canonical();
  std::string out(form.begin(), form.end());
  for (const auto& one : policy->policy.rules) out += "\n" + one.source;
  for (const auto& one : policy->policy.zones) out += "\n" + one.source;
  for (const auto& one : policy->policy.tools) out += "\n" + one.source;
  for (const auto& one : policy->home_files) out += "\n" + one.place;
  return out + "\n" + std::to_string(policy->limits.processes.value_or(0));
}

void same(const std::string& text) {
  for (const size_t bytes : {size_t{0}, size_t{15}})
    EXPECT_EQ(outcome(text, bytes), outcome(text, kWhole)) << text;
}

TEST(RulePiecesTest, TheFirstRunOfRulesIsCut) {
  const std::string head = "name = \"x\"\n# a comment\n";
  const std::string a = rule("a"), b = rule("b"), c = rule("c"), end = "[limits]\nprocesses = 30\n";
  const std::string text = head + a + b + c + end + rule("d");
  const auto cut = cut_rules(text, 0);
  ASSERT_TRUE(cut);
  ASSERT_EQ(cut->pieces.size(), 2u);
  EXPECT_EQ(cut->pieces[0].text, a);
  EXPECT_EQ(cut->pieces[0].lines_before, 2u);
  EXPECT_EQ(cut->pieces[1].text, b);
  EXPECT_EQ(cut->pieces[1].lines_before, 8u);
  EXPECT_EQ(cut->rest, head + c + end + rule("d"));
  EXPECT_EQ(cut->head_lines, 2u);
  EXPECT_EQ(cut->piece_lines, 12u);
  EXPECT_EQ(cut->rules, 3u);
  EXPECT_FALSE(cut_rules(text, text.size()));
  EXPECT_FALSE(cut_rules(head + a, 0));
  EXPECT_FALSE(cut_rules("", 0));
  const auto policy = compile_policy("/p.toml", text, kContext, 0);
  ASSERT_TRUE(policy) << policy.error().what;
  std::string places;
  for (const auto& one : policy->policy.rules) places += one.id + one.source + " ";
  EXPECT_EQ(places, "a/p.toml:3 b/p.toml:9 c/p.toml:15 d/p.toml:23 ");
  EXPECT_EQ(policy->limits.processes, 30u);
}

TEST(RulePiecesTest, WhateverIsAroundTheRulesComesOut) {
  const std::string head = "name = \"x\"\n", rules = rule("a") + rule("b") + rule("c");
  const std::string zone = "[[zone]]\nname = \"z\"\npaths = [\"/z\"]\norigin = \"user\"\n";
  const std::string home = "[sandbox]\nhome_files = [\"~/.gitconfig\"]\n";
  const std::string sets = "[sets]\ns = [\"/s\"]\n";
  for (const std::string& text :
       {head + zone + rules + home + rules, head + rules + zone + rule("d") + zone + home,
        head + zone + rules + zone, head + sets + rules + sets, head + rules + sets + home,
        head + rules + "  [limits]\nprocesses = 10\n" + rule("d") + rule("e"),
        head + rules + "[rule.more]\na = 1\n" + rule("d"), head + rules + rule("a"),
        "\xef\xbb\xbf" + head + rules, head + "# \xc3\xa9\n" + rules + "# \xc3\xa9",
        head + rules + rule("d", "# \xff\n") + rule("e"), rules, head + rules + "name = \"y\"\n",
        head + rule("a") + "name = \"y\"\n" + rule("b") + rule("c")})
    same(text);
}

TEST(RulePiecesTest, WhatOnlyLooksLikeARuleIsNone) {
  const std::string head = "name = \"x\"\n", rules = rule("a") + rule("b") + rule("c");
  for (const std::string quotes : {"\"\"\"", "'''"}) {
    const std::string open = "[risk]\n# " + quotes + "\n[[zone]]\nname = " + quotes + "\n";
    same(head + open + rules + quotes + "\npaths = [\"/z\"]\norigin = \"user\"\n");
    same(head + open + rules + quotes + "\npaths = [\"/z\"]\norigin = \"user\"\n" + rules);
    same(head + open + rules);
    same(head + rule("a", "budget = 3\n") + "[[rule]]\nid = \"q\"\nwhy = " + quotes + "\n" + rules +
         quotes + "\nallow = [\"read\"]\npaths = [\"/\"]\naccept = [\"user\"]\n" + rule("d"));
  }
  for (const std::string before :
       {"rule = []\n", "rule = [{ id = \"i\" }]\n", "rule = 1\n", "rule.x = 1\n", "[rule]\n",
        "[rule.x]\n", "  [[rule]]\n", "[sets]\na = [\n", "[sets]\na = [ # \n", "a = {\n", "x = \n"})
    same(head + before + rules), same(head + before + rules + "]\n" + rules);
}

// Lines and parts of lines in any order: what is wrong is told in the same words, at its place.
TEST(RulePiecesTest, TheSizeOfPiecesChangesNothing) {
  const std::string id = rule("@");
  const std::vector<std::string> parts{
      id,
      id,
      id,
      id,
      id,
      "[[rule]]\n",
      "[[rule]]",
      "\n",
      "\"\"\"",
      "'''",
      "why = \"\"\"",
      "# x\n",
      "[limits]\nprocesses = 40\n",
      "[[zone]]\nname = \"z\"\npaths = [\"/z\"]\norigin = \"user\"\n",
      "budget = 3\n",
      "]\n",
      "argv = [\n",
      "[\"a\"],\n",
      " [[rule]]\n",
      "[rule.x]\n",
      "\r\n",
      "\xc3\xa9",
      "\xff",
      "id = 'a'\n"};
  std::mt19937 random(7);  // NOLINT: the same every time
  size_t compiled = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = "name = \"x\"\n";
    const size_t count = 3 + random() % 8, wild = random() % 4;
    for (size_t part = 0; part < count; ++part) {
      std::string one = parts[part < wild || random() % 6 == 0 ? random() % parts.size() : 0];
      for (size_t at; (at = one.find('@')) != std::string::npos;)
        one.replace(at, 1, "r" + std::to_string(part));
      text += one;
    }
    const std::string whole = outcome(text, kWhole);
    compiled += whole.starts_with("/p.toml:") ? 0 : 1;
    for (const size_t bytes : {size_t{0}, size_t{10}})
      ASSERT_EQ(outcome(text, bytes), whole) << text;
  }
  EXPECT_GT(compiled, 1000u);
  EXPECT_LT(compiled, 3000u);
}

}  // namespace
}  // namespace certgate::agentd
