#include "agentd/policy_layers.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agentd/observe.h"
#include "agentd/policy_call.h"
#include "agentd/policy_text.h"
#include "supervisor/recorded_policy.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Verb;

class PolicyLayersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/certgate-layers-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    fs::create_directory(dir_ + "/ws");
    context_ = {dir_ + "/ws", "/home/agent"};
    write("vendor.toml", R"(name = "vendor"
[[rule]]
id = "ws"
why = "w"
allow = ["write", "read"]
paths = ["@workspace/**"]
accept = ["operator", "user"]
[limits]
processes = 100
)");
    choice_.vendor = dir_ + "/vendor.toml";
    choice_.machine = dir_ + "/no-such-machine.toml";
  }
  void TearDown() override { fs::remove_all(dir_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ + "/" + name) << text;
  }
  std::string verdict(const CompiledPolicy& policy, const std::string& path,
                      const char* label = "operator,user") {
    AskedCall asked;
    asked.verb = Verb::kWrite;
    asked.object = context_.workspace + path;
    asked.agent = *kernel::Label::parse(label);
    const auto answer = ask(policy, context_, asked);
    return answer ? verdict_line(policy.policy, *answer) : answer.error().what;
  }
  std::string error() {
    const auto loaded = load_layers(choice_, context_);
    return loaded ? "" : loaded.error().what;
  }

  std::string dir_;
  PolicyContext context_;
  LayerChoice choice_;
};

constexpr const char* kAdmin = R"(name = "machine"
[[rule]]
id = "no-keys"
why = "keys stay"
forbid = ["write"]
paths = ["@workspace/keys/**"]
[limits]
processes = 50
)";
constexpr const char* kProject = R"(name = "project"
[[rule]]
id = "src"
why = "only sources"
allow = ["write"]
paths = ["@workspace/src/**", "/etc/**"]
accept = ["operator", "web:*"]
[limits]
processes = 80
)";

TEST_F(PolicyLayersTest, LayersNarrowAndTheirRulesAreNamed) {
  write("admin.toml", kAdmin);
  choice_.admin = dir_ + "/admin.toml";
  auto two = load_layers(choice_, context_);
  ASSERT_TRUE(two) << two.error().what;
  EXPECT_EQ(verdict(*two, "/a"), "allowed by rule ws");
  EXPECT_EQ(verdict(*two, "/keys/a"), "refused: FORBIDDEN (rule admin:no-keys)");
  EXPECT_EQ(two->limits.processes, 50u);
  write("ws/.certgate.toml", kProject);
  auto three = load_layers(choice_, context_);
  ASSERT_TRUE(three) << three.error().what;
  EXPECT_EQ(verdict(*three, "/src/a", "operator"), "allowed by rule ws, project:src");
  EXPECT_EQ(verdict(*three, "/src/a"), "refused: UNTRUSTED_ORIGIN user (rule project:src)");
  EXPECT_EQ(verdict(*three, "/a"), "refused: SCOPE_MISSING");
  EXPECT_EQ(three->limits.processes, 50u);
  EXPECT_EQ(three->policy.name, "vendor");
  // Wider than the layers above: nothing is granted, and it is said.
  const auto notes = layer_notes(three->policy);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("web:*"), std::string::npos) << notes[0];
  EXPECT_NE(notes[0].find(".certgate.toml:2"), std::string::npos) << notes[0];
  const std::string shown = layers_text(*three);
  EXPECT_NE(shown.find("# layer project, which only narrows: " + dir_), std::string::npos);
  EXPECT_EQ(shown.find("\n["), std::string::npos) << "only comments";
}

TEST_F(PolicyLayersTest, NoAgentWritesTheProjectsFileEvenWhileThereIsNone) {
  const auto one = load_layers(choice_, context_);
  ASSERT_TRUE(one) << one.error().what;
  EXPECT_EQ(verdict(*one, "/.certgate.toml"), "refused: FORBIDDEN (rule project:own-file)");
  EXPECT_EQ(verdict(*one, "/sub/.certgate.toml"), "allowed by rule ws");
}

TEST_F(PolicyLayersTest, TheMachinesPolicyAlwaysAppliesAndNoOptionReplacesIt) {
  write("admin.toml", kAdmin);
  choice_.machine = dir_ + "/admin.toml";
  const auto loaded = load_layers(choice_, context_);
  ASSERT_TRUE(loaded);
  EXPECT_EQ(verdict(*loaded, "/keys/a"), "refused: FORBIDDEN (rule admin:no-keys)");
  choice_.admin = dir_ + "/vendor.toml";
  EXPECT_NE(error().find("always applies"), std::string::npos);
}

TEST_F(PolicyLayersTest, ALayerThatCannotBeReadRefusesAndSaysWhere) {
  const std::string file = dir_ + "/ws/.certgate.toml";
  for (const auto& [text, said] : std::vector<std::pair<std::string, std::string>>{
           {"name = \"p\"\n[[zone]]\nname = \"z\"\npaths = [\"/z\"]\norigin = \"operator\"\n",
            ":2:"},
           {"name = \"p\"\nextends = [\"base/system\"]\n", ":2:"},
           {"name = \"p\"\n[sandbox]\nread_only = [\"/root\"]\n", "[sandbox]"},
           {"name = \"p\"\nwat = 1\n", ":2:1"},
           {"name = \"p\"\n[[rule]]\nid = \"v\"\nwhy = \"w\"\nallow = [\"connect\"]\nto = "
            "[\"a.test:1\"]\nvia = \"127.0.0.1:1\"\naccept = [\"user\"]\n",
            "'via'"},
           {"name = ", ":1:"}}) {
    write("ws/.certgate.toml", text);
    EXPECT_NE(error().find(file), std::string::npos) << error();
    EXPECT_NE(error().find(said), std::string::npos) << error();
  }
  fs::remove(file);
  fs::create_symlink("/etc/passwd", file);
  EXPECT_NE(error().find("symbolic link"), std::string::npos) << error();
  fs::remove(file);
  ASSERT_EQ(::mkfifo(file.c_str(), 0600), 0);
  EXPECT_NE(error().find("regular file"), std::string::npos) << error();
  fs::remove(file);
  fs::create_directory(file);
  EXPECT_NE(error().find("regular file"), std::string::npos) << error();
}

TEST_F(PolicyLayersTest, ObservingAllowsWhatIsLeftAndKeepsWhatIsForbidden) {
  write("ws/.certgate.toml", kProject);
  const auto policy = load_layers(choice_, context_);
  ASSERT_TRUE(policy);
  const Observing two = observing(policy->policy);
  ASSERT_TRUE(kernel::validate(two.wide));
  ASSERT_EQ(two.wide.rules.size(), two.strict.rules.size());
  // The log holds it; a rule of a file cannot say any name.
  const std::string body = supervisor::recorded_body(two.wide);
  const auto recorded = supervisor::read_recorded_policy(body);
  ASSERT_TRUE(recorded) << recorded.error().what;
  EXPECT_EQ(recorded->digest(), two.wide.digest());
  kernel::Policy file = two.wide;
  for (kernel::Rule& rule : file.rules) {
    if (is_observing_rule(rule.id))
      rule.id = "mine-" + std::string(kernel::verb_text(rule.verbs[0]));
  }
  EXPECT_FALSE(supervisor::read_recorded_policy(supervisor::recorded_body(file)));
  const CallDecider wide(two.wide), strict(two.strict), before(policy->policy);
  const kernel::Label tainted = *kernel::Label::parse("operator,web:page.test");
  for (const char* path : {"/ws/src/a", "/etc/passwd", "/ws/.certgate.toml"}) {
    kernel::OpenEffect open;
    open.path = path[1] == 'w' ? dir_ + path : path;
    open.write = true;
    const bool forbidden = std::string(path).ends_with(".toml");
    const auto v = wide.decide({open, {}}, tainted, {}).verdict;
    EXPECT_EQ(std::holds_alternative<kernel::Certificate>(v), !forbidden) << path;
    // The strict one says what the policy itself says.
    const auto a = strict.decide({open, {}}, tainted, {}).verdict;
    const auto b = before.decide({open, {}}, tainted, {}).verdict;
    ASSERT_TRUE(std::holds_alternative<kernel::Refusal>(a)) << path;
    EXPECT_EQ(std::get<kernel::Refusal>(a).reason, std::get<kernel::Refusal>(b).reason);
    EXPECT_EQ(std::get<kernel::Refusal>(a).rule, std::get<kernel::Refusal>(b).rule);
  }
  kernel::ConnectEffect connect;
  connect.port = 443;
  for (const auto& [host, first, allowed] : std::vector<std::tuple<std::string, uint8_t, bool>>{
           {"any.name.test", 0, true}, {"8.8.8.8", 8, true}, {"10.0.0.1", 10, false}}) {
    connect.host = host;
    connect.address = {};
    if (first != 0)
      connect.address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, first, first, first, first};
    const auto v = wide.decide({connect, {}}, tainted, {}).verdict;
    EXPECT_EQ(std::holds_alternative<kernel::Certificate>(v), allowed) << host;
  }
}

}  // namespace
}  // namespace certgate::agentd
