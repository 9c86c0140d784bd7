#include "agentd/policy_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

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
  refuses("name = [\n", "", "");
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
