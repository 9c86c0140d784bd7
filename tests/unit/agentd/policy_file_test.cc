#include "agentd/policy_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "agentd/policy_table.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
const PolicyContext kContext{"/home/u/ws", "/home/agent"};
constexpr const char* kRule =
    "name = \"x\"\n[[rule]]\nid = \"a\"\nwhy = \"w\"\nallow = [\"read\"]\npaths = "
    "[\"/**\"]\naccept = [\"user\"]\n";

class PolicyFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-policy-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }
  Result<CompiledPolicy> load(const std::string& text) {
    std::ofstream(dir_ / "p.toml", std::ios::binary | std::ios::trunc) << text;
    return load_policy((dir_ / "p.toml").string(), kContext);
  }
  void refuses(const std::string& text, const std::string& place, const std::string& word) {
    const auto policy = load(text);
    ASSERT_FALSE(policy) << text;
    EXPECT_NE(policy.error().what.find("p.toml:" + place), std::string::npos)
        << policy.error().what;
    EXPECT_NE(policy.error().what.find(word), std::string::npos) << policy.error().what;
  }
  static std::string with(const std::string& from, const std::string& to) {
    std::string text = kRule;
    text.replace(text.find(from), from.size(), to);
    return text;
  }

  fs::path dir_;
};

TEST_F(PolicyFileTest, EveryShippedPolicyCompiles) {
  size_t files = 0;
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(CERTGATE_SOURCE_DIR) / "policies")) {
    if (entry.path().extension() != ".toml") continue;
    const auto policy = load_policy(entry.path().string(), kContext);
    EXPECT_TRUE(policy) << policy.error().what;
    ++files;
  }
  EXPECT_GE(files, 4u);
}

TEST_F(PolicyFileTest, EveryShippedPolicyHasATableThatHolds) {
  std::set<fs::path> covered;
  for (const auto& entry : fs::directory_iterator(fs::path(CERTGATE_SOURCE_DIR) / "tests/policy")) {
    SCOPED_TRACE(entry.path().string());
    const auto results = run_policy_table(entry.path().string());
    ASSERT_TRUE(results) << results.error().what;
    for (const CaseResult& one : *results)
      EXPECT_TRUE(one.passed) << one.place << " " << one.why << "\n" << one.explanation;
    covered.insert(entry.path().filename());
  }
  for (const auto& entry :
       fs::recursive_directory_iterator(fs::path(CERTGATE_SOURCE_DIR) / "policies")) {
    if (entry.path().extension() != ".toml") continue;
    EXPECT_TRUE(covered.contains(entry.path().filename())) << entry.path();
  }
}

TEST_F(PolicyFileTest, SetsAndPlacesAreExpanded) {
  const auto policy = load(
      "name = \"x\"\n[sets]\ntools = [\"/bin/a\", \"@more\"]\nmore = [\"~/b\", "
      "\"@workspace/c/**\"]\n[[rule]]\nid = \"a\"\n"
      "why = \"w\"\nallow = [\"exec\"]\npaths = [\"@tools\", \"@private\"]\naccept = [\"user\"]\n");
  ASSERT_TRUE(policy) << policy.error().what;
  std::vector<std::string> paths;
  for (const auto& p : policy->policy.rules[0].paths) paths.push_back(p.text());
  EXPECT_EQ(paths,
            (std::vector<std::string>{"/bin/a", "/home/agent/b", "/home/u/ws/c/**", "@private"}));
}

TEST_F(PolicyFileTest, ErrorsNameThePlaceAndTheCure) {
  ASSERT_TRUE(load(kRule));
  refuses("name = \"x\"\ncolour = 1\n", "2:1", "unknown key 'colour'");
  refuses(with("why = \"w\"\n", ""), "2:1", "'why'");
  refuses(with("[\"read\"]", "[\"fly\"]"), "5:9", "no such verb");
  refuses(with("allow = [\"read\"]", "allow = [\"read\"]\nforbid = [\"write\"]"), "6:10",
          "not both");
  refuses(with("[\"/**\"]", "[\"relative\"]"), "6:9", "not absolute");
  refuses(with("[\"/**\"]", "[]"), "6:9", "not empty");
  refuses(with("[\"/**\"]", "[\"@none\"]"), "6:9", "unknown set");
  refuses(with("[\"user\"]", "[\"web\"]"), "7:10", "web:*");
  refuses(with("accept = [\"user\"]\n", ""), "2:1", "accepts");
  refuses(with("id = \"a\"", "id = \"a\"\nttl = \"soon\""), "4:7", "ttl");
  refuses(with("id = \"a\"", "id = \"a\"\nbudget = 0"), "4:10", "budget");
  refuses(with("id = \"a\"", "id = \"a\"\nvia = \"127.0.0.1:1\""), "4:7", "via");
  refuses(std::string(kRule) + std::string(kRule).substr(11), "9:6", "already used");
  refuses(
      "name = \"x\"\n[sets]\na = [\"@a\"]\n[[zone]]\nname = \"z\"\npaths = [\"@a\"]\norigin = "
      "\"user\"\n",
      "6:9", "nested");
  const auto zone = [](const std::string& terms) {
    return "name = \"x\"\n[[zone]]\nname = \"z\"\npaths = [\"/z\"]\n" + terms;
  };
  ASSERT_TRUE(load(zone("secrecy = [\"env\"]\n")));
  refuses(zone(""), "2:1", "'secrecy'");
  refuses(zone("origin = \"secret:env\"\n"), "5:10", "secrecy tag");
  refuses(zone("secrecy = [\"a b\"]\n"), "5:11", "not plain");
  refuses(with("[\"user\"]", "[\"secret:env\"]"), "7:10", "clearance");
  refuses(with("id = \"a\"", "id = \"a\"\nclearance = [\"secret:env\"]"), "2:1", "connect");
  refuses(with("id = \"a\"", "id = \"a\"\nclearance = [\"user\"]"), "4:13", "secret:");
  refuses("name = [\n", "", "");
}

TEST_F(PolicyFileTest, LimitsOfLayeredPoliciesAreTheSmallerOfBoth) {
  std::ofstream(dir_ / "base.toml")
      << "name = \"b\"\n[limits]\nmemory = \"1G\"\nprocesses = 64\ncpu = 1\n";
  const auto policy = load(
      "name = \"x\"\nextends = [\"base\"]\n[limits]\nmemory = \"2G\"\nprocesses = 32\ncpu = 0.5\n"
      "tmp = \"64M\"\nfile_size = \"64K\"\nopen_files = 100\nrecords_per_second = 1000\n");
  ASSERT_TRUE(policy) << policy.error().what;
  EXPECT_EQ(policy->limits.memory, uint64_t{1} << 30);
  EXPECT_EQ(policy->limits.processes, 32u);
  EXPECT_EQ(policy->limits.cpu_milli, 500u);
  EXPECT_EQ(policy->limits.tmp, uint64_t{64} << 20);
  EXPECT_EQ(policy->limits.file_size, 65536u);
  EXPECT_EQ(policy->limits.open_files, 100u);
  EXPECT_EQ(policy->limits.records_per_second, 1000u);
}

TEST_F(PolicyFileTest, WrongLimitsNameThePlaceAndTheForm) {
  const std::string head = "name = \"x\"\n[limits]\n";
  ASSERT_TRUE(load(head));
  refuses(head + "memory = 2\n", "3:10", "\"512M\" or \"2G\"");
  for (const char* bad :
       {"\"2\"", "\"2GB\"", "\"-2G\"", "\"0G\"", "\"15M\"", "\"9999999T\"", "2.5"})
    refuses(head + "memory = " + bad + "\n", "3:10", "'memory' must be");
  for (const char* bad : {"0", "7", "-1", "\"64\"", "1.5", "4194305"})
    refuses(head + "processes = " + bad + "\n", "3:13", "'processes' must be");
  for (const char* bad : {"0", "0.001", "-1", "nan", "inf", "\"1\"", "1025"})
    refuses(head + "cpu = " + bad + "\n", "3:7", "'cpu' must be");
  refuses(head + "tmp = \"512K\"\n", "3:7", "'tmp'");
  refuses(head + "file_size = \"63K\"\n", "3:13", "'file_size' must be a size from \"64K\" on");
  refuses(head + "open_files = 3\n", "3:14", "'open_files'");
  refuses(head + "records_per_second = 1\n", "3:22", "'records_per_second'");
  refuses(head + "disk = \"1G\"\n", "3:1", "unknown key 'disk'");
  refuses("name = \"x\"\nlimits = 3\n", "2:10", "[limits]");
}

TEST_F(PolicyFileTest, ARuleAllowsAsksOrForbids) {
  const std::string head = "name = \"x\"\n[[rule]]\nid = \"a\"\nwhy = \"w\"\npaths = [\"/a\"]\n";
  const auto policy = load(head + "ask = [\"read\"]\naccept = [\"user\"]\ndeadline = \"5m\"\n");
  ASSERT_TRUE(policy) << policy.error().what;
  EXPECT_EQ(policy->policy.rules[0].effect, kernel::Effect::kAsk);
  EXPECT_EQ(policy->policy.rules[0].deadline_ns, 300'000'000'000u);
  refuses(head, "3:6", "needs one of 'allow', 'ask' and 'forbid'");
  refuses(head + "ask = [\"read\"]\nforbid = [\"read\"]\n", "7:10", "has 'ask' and 'forbid'");
  refuses(head + "ask = [\"read\"]\n", "", "which origins");
  refuses(head + "ask = [\"read\"]\naccept = [\"user\"]\ndeadline = \"2h\"\n", "8:12",
          "'deadline'");
  refuses(head + "allow = [\"read\"]\naccept = [\"user\"]\ndeadline = \"2m\"\n", "",
          "for ask rules");
}

TEST_F(PolicyFileTest, TheStricterTreatmentOfARiskCounts) {
  using kernel::Effect;
  const std::string head = "name = \"x\"\n[risk]\n";
  const auto risk = [&](const std::string& text) {
    const auto policy = load(text);
    EXPECT_TRUE(policy) << policy.error().what;
    return policy ? policy->policy.risk : decltype(policy->policy.risk){};
  };
  using Three = std::array<Effect, 3>;
  EXPECT_EQ(risk("name = \"x\"\n"), (Three{Effect::kAllow, Effect::kAllow, Effect::kAllow}));
  EXPECT_EQ(risk(head + "high = \"ask\"\n"), (Three{Effect::kAllow, Effect::kAllow, Effect::kAsk}));
  EXPECT_EQ(risk(head + "medium = \"ask\"\n"), (Three{Effect::kAllow, Effect::kAsk, Effect::kAsk}));
  std::ofstream(dir_ / "base.toml")
      << "name = \"b\"\n[risk]\nmedium = \"ask\"\nhigh = \"forbid\"\n";
  EXPECT_EQ(risk("name = \"x\"\nextends = [\"base\"]\n[risk]\nlow = \"allow\"\nmedium = \"allow\"\n"
                 "high = \"allow\"\n"),
            (Three{Effect::kAllow, Effect::kAsk, Effect::kForbid}));
  refuses(head + "high = \"maybe\"\n", "3:8", "\"allow\", \"ask\" or \"forbid\"");
  refuses(head + "medium = \"ask\"\nhigh = \"allow\"\n", "4:8", "more mildly");
  refuses(head + "most = \"ask\"\n", "3:1", "unknown key 'most'");
  refuses("name = \"x\"\nrisk = 3\n", "2:8", "[risk]");
}

TEST_F(PolicyFileTest, NothingThatIsWrittenCrashesTheCompiler) {
  std::mt19937 random(7);
  std::ifstream in(fs::path(CERTGATE_SOURCE_DIR) / "policies/examples/quickstart.toml");
  std::string good((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  good.replace(good.find("\"base/system\""), 13,
               "\"" CERTGATE_SOURCE_DIR "/policies/base/system.toml\"");
  ASSERT_TRUE(load(good));
  size_t refused = 0;
  for (int i = 0; i < 800; ++i) {
    std::string bad = good;
    for (size_t flips = 1 + random() % 3; flips > 0; --flips)
      bad[random() % bad.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bad.resize(random() % bad.size());
    refused += !load(bad);
  }
  EXPECT_GT(refused, 100u);
}

}  // namespace
}  // namespace certgate::agentd
