#include "agentd/policy_analysis.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "agentd/policy_diff.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
const PolicyContext kContext{"/workspace", "/home/agent"};

std::string rule(const std::string& id, const std::string& terms) {
  return "[[rule]]\nid = \"" + id + "\"\nwhy = \"w\"\n" + terms + "\n";
}
const std::string kTrusted = "accept = [\"operator\", \"user\"]";
const std::string kAnything = "accept = [\"operator\", \"user\", \"web:*\", \"unknown\"]";

class PolicyAnalysis : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-analysis-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }
  CompiledPolicy load(const std::string& rules) {
    std::ofstream(dir_ / "p.toml", std::ios::binary | std::ios::trunc) << "name = \"x\"\n" + rules;
    auto compiled = load_policy((dir_ / "p.toml").string(), kContext);
    EXPECT_TRUE(compiled) << compiled.error().what;
    return compiled ? *std::move(compiled) : CompiledPolicy();
  }
  // "check rule" of each finding, in order.
  std::string found(const std::string& rules) {
    std::string out;
    for (const Finding& f : analyze(load(rules).policy))
      out += (out.empty() ? "" : "; ") + std::string(f.check) + " " + f.rule;
    return out;
  }
  std::vector<Change> changes(const std::string& before, const std::string& after) {
    const CompiledPolicy a = load(before), b = load(after);
    auto out = differences(a, b, kContext);
    EXPECT_TRUE(out) << out.error().what;
    return out ? *std::move(out) : std::vector<Change>();
  }

  fs::path dir_;
};

TEST_F(PolicyAnalysis, ShippedPoliciesHaveNothingWrong) {
  const fs::path all = fs::path(CERTGATE_SOURCE_DIR) / "policies";
  for (const auto& entry : fs::recursive_directory_iterator(all)) {
    if (entry.path().extension() != ".toml") continue;
    const auto compiled = load_policy(entry.path().string(), kContext);
    ASSERT_TRUE(compiled) << compiled.error().what;
    for (const Finding& f : analyze(compiled->policy))
      EXPECT_EQ(f.severity, Severity::kNote) << f.place << " " << f.what;
  }
}

TEST_F(PolicyAnalysis, ARightThatIsForbiddenEverywhereIsFound) {
  const std::string forbids =
      rule("f", "forbid = [\"write\"]\npaths = [\"/a/*\", \"/a/*/**\", \"/a\"]");
  const std::string allow = "allow = [\"write\"]\npaths = [\"/a/**\"]\n" + kTrusted;
  EXPECT_EQ(found(forbids + rule("a", allow)), "never a");
  EXPECT_EQ(found(rule("a", allow) + forbids), "never a");
  // One path is left over.
  const std::string fewer = rule("f", "forbid = [\"write\"]\npaths = [\"/a/*\", \"/a/*/**\"]");
  EXPECT_EQ(found(fewer + rule("a", allow)), "");
}

TEST_F(PolicyAnalysis, AForbiddenPlaceIsFoundToo) {
  const std::string forbid = rule("f", "forbid = [\"connect\"]\nto = [\"*.a.test:*\"]");
  const auto allow = [](const std::string& to) {
    return rule("a", "allow = [\"connect\"]\nto = [\"" + to + "\"]\n" + kTrusted);
  };
  EXPECT_EQ(found(forbid + allow("x.a.test:443")), "never a");
  EXPECT_EQ(found(forbid + allow("*.b.a.test:443")), "never a");
  EXPECT_EQ(found(forbid + allow("a.test:443")), "");
  EXPECT_EQ(found(forbid + allow("*.test:443")), "");
  const std::string block = rule("f", "forbid = [\"connect\"]\nto = [\"198.51.100.0/24:1-100\"]");
  EXPECT_EQ(found(block + allow("198.51.100.128/25:80")), "never a");
  EXPECT_EQ(found(block + allow("198.51.100.128/25:101")), "");
  EXPECT_EQ(found(block + allow("198.51.0.0/16:80")), "");
}

TEST_F(PolicyAnalysis, ARuleThatComesTooLateIsFound) {
  const std::string wide = "allow = [\"exec\"]\npaths = [\"/usr/**\"]\n";
  const std::string narrow = "allow = [\"exec\"]\npaths = [\"/usr/bin/*\"]\n";
  EXPECT_EQ(found(rule("a", wide + kTrusted) + rule("b", narrow + kTrusted)), "shadowed b");
  EXPECT_EQ(found(rule("b", narrow + kTrusted) + rule("a", wide + kTrusted)), "");
  // A question that an earlier rule answers is never asked.
  const std::string asks = "ask = [\"exec\"]\npaths = [\"/usr/bin/*\"]\n" + kTrusted;
  EXPECT_EQ(found(rule("a", wide + kTrusted) + rule("b", asks)), "shadowed b");
  EXPECT_EQ(found(rule("b", asks) + rule("a", wide + kTrusted)), "");
  // What accepts more decides more; a budget ends; other arguments are another grant.
  EXPECT_EQ(found(rule("a", wide + kTrusted) +
                  rule("b", "allow = [\"exec\"]\npaths = [\"/usr/bin/x\"]\n" + kAnything)),
            "");
  EXPECT_EQ(found(rule("a", wide + "budget = 5\n" + kTrusted) + rule("b", narrow + kTrusted)), "");
  EXPECT_EQ(found(rule("a", wide + "argv = [[\"x\"]]\n" + kTrusted) + rule("b", narrow + kTrusted)),
            "");
}

TEST_F(PolicyAnalysis, ARightThatNobodyIsCleanForIsFound) {
  EXPECT_EQ(found(rule("a", "allow = [\"read\"]\npaths = [\"/a\"]\naccept = [\"user\"]")),
            "nobody a");
}

TEST_F(PolicyAnalysis, ARightForInfluencedAgentsOnlyIsFound) {
  const std::string write = "allow = [\"write\"]\npaths = [\"/mail/**\"]\n";
  const std::string inverted = rule("a", write + "accept = [\"operator\", \"web:*\"]");
  EXPECT_EQ(found(inverted), "inverted a");
  EXPECT_EQ(found(inverted + rule("b", write + kTrusted)), "");
}

TEST_F(PolicyAnalysis, ALauncherForAnyInfluenceIsNoted) {
  EXPECT_EQ(found(rule("a", "allow = [\"exec\"]\npaths = [\"/usr/bin/python*\"]\n" + kAnything)),
            "wide a");
  EXPECT_EQ(found(rule("a", "allow = [\"exec\"]\npaths = [\"/usr/bin/python*\"]\n" + kTrusted)),
            "");
}

TEST_F(PolicyAnalysis, SecretsThatMayLeaveUnderAnyInfluenceAreNotedAndAClearanceIsADifference) {
  const auto to = [](const std::string& terms) {
    return rule("n", "allow = [\"connect\"]\nto = [\"a.test:80\"]\n" + terms);
  };
  const std::string cleared = "\nclearance = [\"secret:env\"]\n";
  EXPECT_EQ(found(to(kAnything + cleared)), "leaks n");
  EXPECT_EQ(found(to(kTrusted + cleared)), "");
  EXPECT_EQ(found(to(kAnything)), "");
  const auto more = changes(to(kTrusted), to(kTrusted + cleared));
  ASSERT_EQ(more.size(), 1u);
  EXPECT_EQ(more[0].labels, std::vector<std::string>{"operator,secret:env"});
  EXPECT_EQ(more[0].before, "refused: CLEARANCE_MISSING secret:env (rule n)");
  // One that clears more is not shadowed by one that clears less.
  const std::string later =
      "[[rule]]\nid = \"m\"\nwhy = \"w\"\nallow = [\"connect\"]\n"
      "to = [\"a.test:80\"]\n" +
      kTrusted + cleared;
  EXPECT_EQ(found(to(kTrusted) + later), "");
  EXPECT_EQ(found(to(kTrusted + cleared) + later), "shadowed m");
}

TEST_F(PolicyAnalysis, TheSamePoliciesDoNotDiffer) {
  const std::string one =
      rule("a", "allow = [\"read\", \"write\"]\npaths = [\"/a/**\", \"@private\"]\n" + kAnything) +
      rule("n", "allow = [\"connect\"]\nto = [\"a.test:80\"]\n" + kTrusted);
  EXPECT_TRUE(changes(one, one).empty());
}

TEST_F(PolicyAnalysis, EachDifferenceIsShownByACallThatTheKernelJudgesDifferently) {
  const std::string forbid = rule("f", "forbid = [\"write\"]\npaths = [\"/a/.git/**\"]");
  const std::string allow = rule("a", "allow = [\"write\"]\npaths = [\"/a/**\"]\n" + kTrusted);
  const auto more = changes(forbid + allow, allow);
  ASSERT_EQ(more.size(), 1u);
  EXPECT_EQ(more[0].direction, Direction::kMayNow);
  EXPECT_EQ(more[0].what, "may now write /a/.git (of /a/**)");
  EXPECT_EQ(more[0].before, "refused: FORBIDDEN (rule f)");
  EXPECT_EQ(more[0].after, "allowed by rule a");
  EXPECT_EQ(more[0].labels, (std::vector<std::string>{"operator", "operator,user"}));
  const auto less = changes(allow, forbid + allow);
  ASSERT_EQ(less.size(), 1u);
  EXPECT_EQ(less[0].what, "may no longer write /a/.git (of /a/**)");
}

TEST_F(PolicyAnalysis, AskingIsLessThanAllowingAndMoreThanNothing) {
  const std::string terms = " = [\"write\"]\npaths = [\"/a/b\"]\n" + kTrusted;
  const std::string allow = rule("a", "allow" + terms), ask = rule("a", "ask" + terms);
  const std::string other = rule("o", "allow = [\"read\"]\npaths = [\"/a/b\"]\n" + kTrusted);
  EXPECT_EQ(changes(ask, allow).at(0).what, "may now write /a/b");
  EXPECT_EQ(changes(ask, allow).at(0).before, "asks an operator: APPROVAL_REQUIRED (rule a)");
  EXPECT_EQ(changes(allow, ask).at(0).what, "may no longer unless an operator approves write /a/b");
  EXPECT_EQ(changes(other, other + ask).at(0).what,
            "may now when an operator approves write /a/b");
  EXPECT_EQ(changes(other + ask, other).at(0).what, "may no longer write /a/b");
}

TEST_F(PolicyAnalysis, WhatIsWidenedIsFoundOutsideWhatWasGranted) {
  const auto exec = [](const std::string& terms, const std::string& accept) {
    return rule("a", "allow = [\"exec\"]\n" + terms + "\n" + accept);
  };
  auto out = changes(exec("paths = [\"/usr/bin/*\"]", kTrusted),
                     exec("paths = [\"/usr/bin/*\", \"/usr/bin/*/**\"]", kTrusted));
  ASSERT_EQ(out.size(), 1u) << out[0].what;
  EXPECT_EQ(out[0].what.rfind("may now exec /usr/bin/", 0), 0u) << out[0].what;
  out = changes(exec("paths = [\"/x\"]", kTrusted), exec("paths = [\"/x\"]", kAnything));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].labels, (std::vector<std::string>{"operator,web:*", "operator,unknown"}));
  out =
      changes(exec("paths = [\"/x\"]\nargv = [[\"x\", \"a\"]]", kTrusted),
              exec("paths = [\"/x\"]\nargv = [[\"x\", \"a\"], [\"x\", \"b*\", \"**\"]]", kTrusted));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].what, "may now exec /x b");
}

TEST_F(PolicyAnalysis, APlaceToConnectToIsShown) {
  const auto to = [](const std::string& place) {
    return rule("a", "allow = [\"connect\"]\nto = [\"" + place + "\"]\n" + kTrusted);
  };
  const auto out = changes(to("a.test:443"), to("*.a.test:443"));
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].what, "may now connect some.a.test:443 (of *.a.test:443)");
  EXPECT_EQ(out[1].what, "may no longer connect a.test:443");
}

}  // namespace
}  // namespace certgate::agentd
