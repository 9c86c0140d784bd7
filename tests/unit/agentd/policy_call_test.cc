#include "agentd/policy_call.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "agentd/policy_table.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Label;
using kernel::Step;
using kernel::Verb;

constexpr const char* kPolicy = R"(
name = "x"
[[zone]]
name = "ws"
paths = ["@workspace/**"]
origin = "user"
[[rule]]
id = "status"
why = "it only reads"
allow = ["exec"]
paths = ["/usr/bin/git"]
argv = [["git", "status", "**"]]
accept = ["operator", "user", "web:*"]
[[rule]]
id = "git"
why = "people use it"
allow = ["exec"]
paths = ["/usr/bin/git", "/usr/bin/bash"]
accept = ["operator", "user"]
budget = 2
[[rule]]
id = "hooks"
why = "git runs them"
forbid = ["write"]
paths = ["@workspace/.git/**"]
[[rule]]
id = "private"
why = "its own"
allow = ["read", "write"]
paths = ["@private", "@workspace/**"]
accept = ["operator", "user", "web:*"]
[[rule]]
id = "site"
why = "the site"
allow = ["connect"]
to = ["*.site.test:443"]
accept = ["operator"]
)";

class PolicyCall : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-call-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = fs::canonical(pattern);
    write("p.toml", kPolicy);
    auto compiled = load_policy(dir_ / "p.toml", context_);
    ASSERT_TRUE(compiled) << compiled.error().what;
    compiled_ = *std::move(compiled);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ / name, std::ios::binary | std::ios::trunc) << text;
    return dir_ / name;
  }
  Answer answer(const AskedCall& asked) {
    auto out = ask(compiled_, context_, asked);
    EXPECT_TRUE(out) << out.error().what;
    return *std::move(out);
  }
  std::string line(const AskedCall& asked) { return verdict_line(compiled_.policy, answer(asked)); }
  static AskedCall open(Verb verb, const std::string& path, const char* label) {
    AskedCall out;
    out.verb = verb;
    out.object = path;
    out.agent = *Label::parse(label);
    return out;
  }
  static AskedCall git(std::vector<std::string> argv, const char* label) {
    AskedCall out = open(Verb::kExec, "/usr/bin/git", label);
    out.argv = std::move(argv);
    out.file = *Label::parse("operator");
    return out;
  }

  const PolicyContext context_{"/workspace", "/home/agent"};
  fs::path dir_;
  CompiledPolicy compiled_;
};

TEST_F(PolicyCall, TheStepsAreThoseOfTheDecision) {
  const Answer out = answer(git({"git", "push"}, "operator,web:page.test"));
  ASSERT_EQ(out.steps.size(), 2u);
  EXPECT_EQ(out.steps[0].outcome, Step::Outcome::kArguments);
  EXPECT_EQ(out.steps[1].outcome, Step::Outcome::kRejects);
  EXPECT_EQ(out.steps[1].culprit.text(), "web:page.test");
  EXPECT_EQ(verdict_line(compiled_.policy, out),
            "refused: UNTRUSTED_ORIGIN web:page.test (rule git)");
  const std::string text = explanation(compiled_.policy, out);
  EXPECT_NE(text.find("p.toml:7), exec: is about this file, but not with these arguments"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("does not accept web:page.test"), std::string::npos) << text;
}

TEST_F(PolicyCall, WhatAllowsIsNamedAndTheLabelAfterwards) {
  EXPECT_EQ(line(git({"git", "status"}, "web:page.test")), "allowed by rule status");
  const Answer out = answer(open(Verb::kConnect, "a.site.test:443", "operator"));
  EXPECT_EQ(verdict_line(compiled_.policy, out), "allowed by rule site");
  const std::string text = explanation(compiled_.policy, out);
  EXPECT_NE(text.find("label is operator,web:a.site.test"), std::string::npos) << text;
}

TEST_F(PolicyCall, AUsedUpBudgetIsSaid) {
  AskedCall asked = git({"git", "push"}, "operator");
  asked.used = 2;
  EXPECT_EQ(line(asked), "refused: BUDGET_EXHAUSTED (rule git)");
}

TEST_F(PolicyCall, AFileHasTheLabelOfItsZone) {
  EXPECT_EQ(answer(open(Verb::kRead, "/workspace/a", "")).call.object.text(), "user");
  EXPECT_EQ(answer(open(Verb::kRead, "/srv/a", "")).call.object.text(), "unknown");
  EXPECT_EQ(line(open(Verb::kWrite, "/workspace/.git/config", "user")),
            "refused: FORBIDDEN (rule hooks)");
}

TEST_F(PolicyCall, TheSandboxesOwnPlacesArePrivate) {
  for (const char* path : {"/tmp/x", "/var/tmp/x", "/run/x", "/dev/shm/x", "/home/agent/x"})
    EXPECT_EQ(line(open(Verb::kWrite, path, "user")), "allowed by rule private") << path;
  for (const char* path : {"/tmpx/y", "/home/other/x", "/srv/x"})
    EXPECT_EQ(line(open(Verb::kWrite, path, "user")), "refused: SCOPE_MISSING") << path;
}

TEST_F(PolicyCall, AQuestionThatIsNotOneCallIsAnError) {
  for (const char* place : {"site.test:*", "*.site.test:443", "10.0.0.0/8:1", "site.test", ""})
    EXPECT_FALSE(ask(compiled_, context_, open(Verb::kConnect, place, ""))) << place;
  for (const char* path : {"a", "", "/a/../b", "/a/*"})
    EXPECT_FALSE(ask(compiled_, context_, open(Verb::kRead, path, ""))) << path;
}

TEST_F(PolicyCall, ACommandIsFoundAsASandboxWould) {
  const std::string script = write("s", "#!/bin/sh\n");
  ASSERT_EQ(::chmod(script.c_str(), 0755), 0);
  const auto asked = asked_exec({"./s", "x"}, dir_);
  ASSERT_TRUE(asked) << asked.error().what;
  EXPECT_EQ(asked->object, script);
  ASSERT_EQ(asked->interpreters.size(), 2u);
  EXPECT_EQ(asked->interpreters[0], fs::canonical("/bin/sh"));
  EXPECT_NE(asked->interpreters[1].find("ld-"), std::string::npos);
  EXPECT_FALSE(asked_exec({"no-such-program-anywhere"}, dir_));
  ASSERT_EQ(::chmod(script.c_str(), 0644), 0);
  EXPECT_FALSE(asked_exec({"./s"}, dir_));
}

TEST_F(PolicyCall, UntrustedTextIsEscaped) {
  const std::string text = explanation(
      compiled_.policy, answer(open(Verb::kRead, "/workspace/\x1b[2J", "web:page.test")));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST_F(PolicyCall, ATableSaysWhereItIsWrong) {
  const std::string table = write("t.toml", R"(policy = "p.toml"
[[case]]
why = "allowed, and argv[0] is git"
exec = ["/usr/bin/git", "status"]
label = "web:page.test"
file = "operator"
expect = "SCOPE_MISSING"
[[case]]
why = "right"
write = "@workspace/.git/config"
expect = "FORBIDDEN"
rule = "hooks"
[[case]]
why = "wrong rule"
write = "@workspace/.git/config"
expect = "FORBIDDEN"
rule = "git"
[[case]]
why = "wrong label afterwards"
connect = "a.site.test:443"
label = "operator"
expect = "allow"
raises_to = "operator"
)");
  const auto results = run_policy_table(table);
  ASSERT_TRUE(results) << results.error().what;
  ASSERT_EQ(results->size(), 4u);
  EXPECT_FALSE((*results)[0].passed);
  EXPECT_EQ((*results)[0].verdict, "allowed by rule status");
  EXPECT_TRUE((*results)[1].passed);
  EXPECT_FALSE((*results)[2].passed);
  EXPECT_FALSE((*results)[3].passed);
  EXPECT_TRUE((*results)[1].place.ends_with("t.toml:8"));
}

TEST_F(PolicyCall, ABadTableIsAnErrorWithItsPlace) {
  const auto refuses = [&](const std::string& text, const std::string& word) {
    const auto results = run_policy_table(write("t.toml", text));
    ASSERT_FALSE(results) << text;
    EXPECT_NE(results.error().what.find(word), std::string::npos) << results.error().what;
  };
  const std::string head = "policy = \"p.toml\"\n";
  refuses("[[case]]\n", "t.toml:1:1");
  refuses(head, "no [[case]]");
  refuses(head + "[[case]]\nwhy = \"x\"\nexpect = \"allow\"\n", "one of");
  refuses(head + "[[case]]\nwhy = \"x\"\nread = \"/a\"\nexpect = \"maybe\"\n", "t.toml:5:10");
  refuses(head + "[[case]]\nwhy = \"x\"\nread = \"/a\"\nexpect = \"allow\"\nx = 1\n", "t.toml:6:1");
  refuses(head + "[[case]]\nwhy = \"x\"\nread = \"a\"\nexpect = \"allow\"\n", "t.toml:2");
  refuses(head + "x = 1\n[[case]]\n", "unknown key 'x'");
  refuses("policy = \"none.toml\"\n[[case]]\n", "none.toml");
}

}  // namespace
}  // namespace certgate::agentd
