#include "agentd/policy_text.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
const PolicyContext kContext{"/ws/project", "/home/agent"};

class PolicyText : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-text-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }
  Result<CompiledPolicy> load(const std::string& text) {
    std::ofstream(dir_ / "p.toml", std::ios::binary | std::ios::trunc) << text;
    return load_policy((dir_ / "p.toml").string(), kContext);
  }
  // Elsewhere, with another workspace: nothing in the text may still depend on either.
  void compiles_to_the_same(const CompiledPolicy& compiled) {
    const std::string text = effective_text(compiled);
    std::ofstream(dir_ / "p.toml", std::ios::binary | std::ios::trunc) << text;
    const auto again = load_policy((dir_ / "p.toml").string(), {"/elsewhere", "/home/agent"});
    ASSERT_TRUE(again) << again.error().what << "\n" << text;
    EXPECT_EQ(again->policy.digest(), compiled.policy.digest()) << text;
    EXPECT_EQ(again->read_only, compiled.read_only);
    EXPECT_EQ(again->env_pass, compiled.env_pass);
    EXPECT_EQ(again->home, compiled.home);
    ASSERT_EQ(again->home_files.size(), compiled.home_files.size());
    for (size_t i = 0; i < compiled.home_files.size(); ++i) {
      EXPECT_EQ(again->home_files[i].source, compiled.home_files[i].source);
      EXPECT_EQ(again->home_files[i].target, compiled.home_files[i].target);
    }
    EXPECT_EQ(again->limits.memory, compiled.limits.memory);
    EXPECT_EQ(again->limits.processes, compiled.limits.processes);
    EXPECT_EQ(again->limits.cpu_milli, compiled.limits.cpu_milli);
    EXPECT_EQ(again->limits.tmp, compiled.limits.tmp);
    EXPECT_EQ(again->limits.file_size, compiled.limits.file_size);
    EXPECT_EQ(again->limits.open_files, compiled.limits.open_files);
    EXPECT_EQ(again->limits.records_per_second, compiled.limits.records_per_second);
  }

  fs::path dir_;
};

TEST_F(PolicyText, EveryShippedPolicyCompilesToTheSameFromItsEffectiveText) {
  const fs::path all = fs::path(CERTGATE_SOURCE_DIR) / "policies";
  for (const auto& entry : fs::recursive_directory_iterator(all)) {
    if (entry.path().extension() != ".toml") continue;
    SCOPED_TRACE(entry.path().string());
    const auto compiled = load_policy(entry.path().string(), kContext);
    ASSERT_TRUE(compiled) << compiled.error().what;
    compiles_to_the_same(*compiled);
  }
}

TEST_F(PolicyText, EveryTermSurvives) {
  const auto compiled = load(R"(
name = "a \"quoted\" \\ name \u0001"
[sets]
tools = ["/usr/bin/a", "~/b"]
[[zone]]
name = "ws"
paths = ["@workspace/**", "@private"]
origin = "user"
[[zone]]
name = "both"
paths = ["/srv/**"]
origin = "tool"
secrecy = ["a", "b"]
[[zone]]
name = "secret"
paths = ["/srv/key"]
secrecy = ["*"]
[[rule]]
id = "run"
why = "tab\there"
allow = ["exec", "read"]
paths = ["@tools", "@workspace/*.sh"]
argv = [["a", "x y", "**"], ["b"]]
accept = ["user", "web:*"]
ttl = "90m"
budget = 7
durability = "strict"
[[rule]]
id = "net"
why = "w"
allow = ["connect"]
to = ["[::1]:80", "*.a.test:8000-8099", "10.0.0.0/8:*"]
via = "127.0.0.1:8080"
origin = "model"
accept = ["operator"]
clearance = ["secret:a", "secret:key"]
[[rule]]
id = "more"
why = "w"
forbid = ["connect"]
to = ["udp:ntp.test:123", "unix:/run/a.sock"]
[[rule]]
id = "asks"
why = "w"
ask = ["write"]
paths = ["/a"]
accept = ["user"]
deadline = "90s"
[risk]
medium = "ask"
high = "forbid"
[sandbox]
read_only = ["/opt/x"]
env = ["KEY"]
set_env = { A = "1", B = "@workspace/b" }
home = "kept"
home_files = { "/srv/auth.json" = "~/.x/auth.json" }
[limits]
memory = "1536M"
processes = 99
cpu = 1.25
tmp = "2G"
file_size = "3M"
open_files = 512
records_per_second = 77
)");
  ASSERT_TRUE(compiled) << compiled.error().what;
  compiles_to_the_same(*compiled);
}

TEST_F(PolicyText, ARuleStandsUnderThePlaceItCameFrom) {
  const auto compiled = load(
      "name = \"x\"\n\n[[rule]]\nid = \"a\"\nwhy = \"w\"\nforbid = [\"read\"]\npaths = [\"/a\"]\n");
  ASSERT_TRUE(compiled);
  EXPECT_NE(effective_text(*compiled).find("p.toml:3\n[[rule]]\nid = \"a\"\n"), std::string::npos);
}

}  // namespace
}  // namespace certgate::agentd
