// An ask rule holds against the allow rules of other files, wherever it stands.
#include "agentd/rule_order.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "agentd/policy_analysis.h"
#include "agentd/policy_call.h"
#include "agentd/policy_file.h"
#include "agentd/policy_layers.h"
#include "agentd/policy_text.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
const PolicyContext kContext{"/home/u/ws", "/home/agent"};

// "allow write /a/**" and the like.
std::string rule(const std::string& id, const std::string& effect, const std::string& verbs,
                 const std::string& what) {
  return "[[rule]]\nid = \"" + id + "\"\nwhy = \"w\"\n" + effect + " = [" + verbs + "]\n" + what +
         "\n" + (effect == "forbid" ? "" : "accept = [\"operator\", \"user\"]\n");
}
std::string writes(const std::string& id, const std::string& effect, const std::string& path) {
  return rule(id, effect, "\"write\"", "paths = [\"" + path + "\"]");
}
std::string runs(const std::string& id, const std::string& effect, const std::string& argv) {
  return rule(id, effect, "\"exec\"", "paths = [\"/usr/bin/git\"]" + argv);
}

class RuleOrder : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-order-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }
  void put(const std::string& name, const std::string& rules, const std::string& extends = "") {
    std::ofstream(dir_ / (name + ".toml"))
        << "name = \"" << name << "\"\n"
        << (extends.empty() ? "" : "extends = [" + extends + "]\n") << rules;
  }
  CompiledPolicy load(const std::string& name) {
    auto out = load_policy((dir_ / (name + ".toml")).string(), kContext);
    EXPECT_TRUE(out) << out.error().what;
    return out ? *std::move(out) : CompiledPolicy();
  }
  std::string order(const std::string& name) {
    std::string out;
    for (const kernel::Rule& one : load(name).policy.rules)
      (out += out.empty() ? "" : " ") += one.id;
    return out;
  }
  std::string verdict(const CompiledPolicy& policy, const std::string& path) {
    AskedCall asked;
    asked.verb = kernel::Verb::kWrite;
    asked.object = path;
    asked.agent = *kernel::Label::parse("operator,user");
    const auto answer = ask(policy, kContext, asked);
    EXPECT_TRUE(answer) << answer.error().what;
    return answer ? verdict_line(policy.policy, *answer) : "";
  }
  fs::path dir_;
};

TEST_F(RuleOrder, AFileThatExtendsAsksAboutWhatTheOtherAllows) {
  put("base", writes("all", "allow", "/a/**"));
  put("top", writes("asked", "ask", "/a/b/**"), "\"base\"");
  const CompiledPolicy policy = load("top");
  EXPECT_EQ(verdict(policy, "/a/b/c"), "asks an operator: APPROVAL_REQUIRED (rule asked)");
  EXPECT_EQ(verdict(policy, "/a/c"), "allowed by rule all");
  EXPECT_TRUE(analyze(policy.policy).empty());
  // As one file it is the same policy.
  put("one", effective_text(policy).substr(effective_text(policy).find("\n\n#")));
  EXPECT_EQ(order("one"), "asked all");
}

TEST_F(RuleOrder, AWideAllowRuleOfAnotherFileSilencesNoQuestion) {
  put("base", writes("asked", "ask", "/a/b/**"));
  put("top", writes("all", "allow", "/a/**") + writes("other", "ask", "/c"), "\"base\"");
  put("apart", writes("all", "allow", "/a/**"));
  put("both", writes("none", "forbid", "/d"), "\"apart\", \"base\"");
  EXPECT_EQ(verdict(load("both"), "/a/b/c"), "asks an operator: APPROVAL_REQUIRED (rule asked)")
      << "the one that allows is not even extended by the one that asks";
  put("top", writes("all", "allow", "/a/**"), "\"base\"");
  EXPECT_EQ(verdict(load("top"), "/a/b/c"), "asks an operator: APPROVAL_REQUIRED (rule asked)");
}

TEST_F(RuleOrder, WhatAFileDoesNotAskAboutStandsBeforeItsQuestion) {
  put("base", writes("all", "allow", "/a/**") + writes("none", "forbid", "/a/x"));
  put("top",
      writes("free", "allow", "/a/b/free") + writes("asked", "ask", "/a/b/**") +
          writes("late", "allow", "/c"),
      "\"base\"");
  EXPECT_EQ(order("top"), "free asked all none late");
  const CompiledPolicy policy = load("top");
  EXPECT_EQ(verdict(policy, "/a/b/free"), "allowed by rule free");
  EXPECT_EQ(verdict(policy, "/a/b/c"), "asks an operator: APPROVAL_REQUIRED (rule asked)");
  EXPECT_EQ(verdict(policy, "/a/x"), "refused: FORBIDDEN (rule none)");
}

TEST_F(RuleOrder, AnExemptionAloneInAFileThatExtendsHolds) {
  put("base", runs("push", "ask", "\nargv = [[\"git\", \"push\", \"**\"]]") +
                  writes("asked", "ask", "/a/**") + runs("git", "allow", ""));
  const auto first = [&](const std::string& what) {
    put("top", what, "\"base\"");
    return order("top").substr(0, 3) == "new";
  };
  EXPECT_TRUE(first(runs("new", "allow", "\nargv = [[\"git\", \"push\", \"origin\"]]")));
  EXPECT_TRUE(first(writes("new", "allow", "/a/b")));
  EXPECT_TRUE(first(writes("new", "allow", "/a/b/**")));
  EXPECT_FALSE(first(runs("new", "allow", ""))) << "any arguments are more than those of a push";
  EXPECT_FALSE(first(runs("new", "allow", "\nargv = [[\"git\", \"*\", \"origin\"]]")));
  EXPECT_FALSE(first(writes("new", "allow", "/**")));
  EXPECT_FALSE(first(rule("new", "allow", "\"read\", \"write\"", "paths = [\"/a/b\"]")))
      << "nobody asked about reading";
}

TEST_F(RuleOrder, ALayerAsksBeforeItsOwnFilesAndMovesNoRuleOfAnother) {
  put("base", writes("all", "allow", "/a/**"));
  put("wide", writes("there", "allow", "/a/**"));
  put("admin", writes("asked", "ask", "/a/b/**"), "\"wide\"");
  CompiledPolicy policy = load("base");
  const std::string admin = (dir_ / "admin.toml").string();
  const auto text = read_policy_text(admin);
  ASSERT_TRUE(text && add_layer(policy, Layer::kAdmin, admin, *text, kContext));
  EXPECT_EQ(verdict(policy, "/a/b/c"), "asks an operator: APPROVAL_REQUIRED (rule admin:asked)");
  EXPECT_EQ(policy.policy.rules[0].id, "all");
}

}  // namespace
}  // namespace certgate::agentd
