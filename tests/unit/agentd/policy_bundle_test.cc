#include "agentd/policy_bundle.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agentd/signing_key.h"
#include "supervisor/policy_load.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPolicy = R"(name = "packed"
[sets]
trusted = ["operator", "user"]
[[zone]]
name = "ws"
paths = ["@workspace/**"]
origin = "user"
[[rule]]
id = "ws"
why = "w"
allow = ["write", "read"]
paths = ["@workspace/**", "~/.cache/**", "@private", "@workspace/*.c"]
accept = ["@trusted"]
budget = 5
[[rule]]
id = "net"
why = "n"
allow = ["connect"]
to = ["a.test:443"]
via = "127.0.0.1:8443"
origin = "tool"
accept = ["@trusted"]
[[rule]]
id = "socket"
why = "s"
allow = ["connect"]
to = ["unix:@workspace/x.sock"]
accept = ["@trusted"]
[sandbox]
read_only = ["/opt/tool", "@workspace"]
set_env = { CACHE = "~/cache", WS = "@workspace" }
env = ["TOKEN"]
home = "kept"
home_files = ["~/.netrc"]
[limits]
memory = "512M"
cpu = 1.5
file_size = "3M"
)";

class PolicyBundleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/certgate-bundle-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    std::string text = kPolicy;
    // A socket's path is a pattern, in which sets stand only as whole items.
    text.replace(text.find("unix:@workspace"), 15, "unix:/run");
    std::ofstream(dir_ + "/p.toml") << text;
    key_.emplace(*SigningKey::generate());
    payload_ = *bundle_payload(dir_ + "/p.toml");
    text_ = *seal_bundle(payload_, key_->name(), *key_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::string dir_, payload_, text_;
  std::optional<SigningKey> key_;
};

TEST_F(PolicyBundleTest, PlacedItIsWhatItsSourcesCompileTo) {
  const auto bundle = open_bundle(text_, {key_->public_key()});
  ASSERT_TRUE(bundle) << bundle.error().what;
  for (const PolicyContext& context :
       {PolicyContext{"/srv/one", "/home/agent"}, PolicyContext{"/tmp/a b", "/home/x"}}) {
    const auto placed = place(*bundle, context, "p.bundle");
    const auto direct = load_policy(dir_ + "/p.toml", context);
    ASSERT_TRUE(placed && direct);
    EXPECT_EQ(placed->policy.digest(), direct->policy.digest());
    EXPECT_EQ(placed->read_only, direct->read_only);
    EXPECT_EQ(placed->env_set, direct->env_set);
    EXPECT_EQ(placed->env_pass, direct->env_pass);
    EXPECT_EQ(placed->home, direct->home);
    ASSERT_EQ(placed->home_files.size(), 1u);
    EXPECT_EQ(placed->home_files[0].target, direct->home_files[0].target);
    EXPECT_EQ(placed->limits.memory, direct->limits.memory);
    EXPECT_EQ(placed->limits.cpu_milli, direct->limits.cpu_milli);
    EXPECT_EQ(placed->limits.file_size, direct->limits.file_size);
    EXPECT_FALSE(placed->limits.tmp);
    ASSERT_EQ(placed->sources.size(), 1u);
    EXPECT_EQ(placed->sources[0].first, "p.toml");
  }
}

TEST_F(PolicyBundleTest, EveryShippedPolicyIsTheSamePolicyAfterLoadingAndAfterPacking) {
  size_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(CERTGATE_SOURCE_DIR "/policies")) {
    if (entry.path().extension() != ".toml") continue;
    const PolicyContext context{"/srv/one", "/home/agent"};
    const auto compiled = load_policy(entry.path(), context);
    ASSERT_TRUE(compiled) << compiled.error().what;
    const auto form = compiled->policy.canonical();
    const auto loaded = supervisor::load_canonical(form.data(), form.size());
    ASSERT_TRUE(loaded) << entry.path() << ": " << loaded.error().what;
    EXPECT_EQ(loaded->canonical(), form);
    const auto text = seal_bundle(*bundle_payload(entry.path()), key_->name(), *key_);
    const auto placed = place(*open_bundle(*text, {key_->public_key()}), context, "b");
    ASSERT_TRUE(placed) << entry.path();
    EXPECT_EQ(placed->policy.digest(), compiled->policy.digest()) << entry.path();
    ++count;
  }
  EXPECT_GT(count, 5u);
}

TEST_F(PolicyBundleTest, NoneIsAboutAnyHostWhateverItsRuleIsCalled) {
  std::ofstream(dir_ + "/q.toml") << R"(name = "q"
[[rule]]
id = "observed-connect"
why = "one host"
allow = ["connect"]
to = ["a:1"]
accept = ["operator"]
)";
  auto payload = bundle_payload(dir_ + "/q.toml");
  ASSERT_TRUE(payload) << payload.error().what;
  ASSERT_TRUE(open_bundle(*seal_bundle(*payload, key_->name(), *key_), {key_->public_key()}));
  const size_t at = payload->find("ca:1");  // a text of three characters
  ASSERT_NE(at, std::string::npos);
  payload->replace(at + 1, 3, "*:*");
  const auto opened =
      open_bundle(*seal_bundle(*payload, key_->name(), *key_), {key_->public_key()});
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().what.find("any host"), std::string::npos) << opened.error().what;
}

TEST_F(PolicyBundleTest, AnyOtherKeyAndAnyFlippedByteIsRefused) {
  EXPECT_FALSE(open_bundle(text_, {}));
  EXPECT_FALSE(open_bundle(text_, {SigningKey::generate()->public_key()}));
  for (size_t i = 0; i < text_.size(); i += 7) {
    std::string other = text_;
    other[i] = static_cast<char>(other[i] ^ 1);
    // The name of the key is a hint, which the signature does not cover.
    const size_t name = text_.find("\"keyid\":\"") + 9;
    const bool hint = i >= name && i < text_.find('"', name);
    EXPECT_TRUE(hint || !open_bundle(other, {key_->public_key()})) << i;
  }
  for (size_t cut = 1; cut < 200; cut += 13)
    EXPECT_FALSE(open_bundle(text_.substr(0, text_.size() - cut), {key_->public_key()}));
  EXPECT_FALSE(open_bundle(text_ + "x", {key_->public_key()}));
}

TEST_F(PolicyBundleTest, ATokensSignatureIsNoBundles) {
  const auto signature = key_->sign(kernel::dsse_pae("application/vnd.in-toto+json", payload_));
  const std::string forged = kernel::dsse_envelope(kBundleType, payload_, key_->name(),
                                                   {signature->begin(), signature->end()});
  EXPECT_FALSE(open_bundle(forged, {key_->public_key()}));
}

TEST_F(PolicyBundleTest, SourcesThatSayThePlaceholderAreNotPacked) {
  std::ofstream(dir_ + "/q.toml")
      << "name = \"q\"\n[[rule]]\nid = \"a\"\nwhy = \"/@workspace/x\"\nforbid = [\"read\"]\n"
         "paths = [\"/x\"]\n";
  EXPECT_FALSE(bundle_payload(dir_ + "/q.toml"));
}

TEST_F(PolicyBundleTest, TrustIsDemandedByTheOptionAndByTheFile) {
  const PolicyContext context{"/srv/one", "/home/agent"};
  std::ofstream(dir_ + "/p.bundle") << text_ << "\n";
  const auto load = [&](const std::string& file, const std::string& required) -> std::string {
    const auto trust = policy_trust(dir_, required);
    if (!trust) return trust.error().what;
    const auto loaded = load_trusted(dir_ + "/" + file, context, *trust);
    return loaded ? "" : loaded.error().what;
  };
  const SigningKey other = *SigningKey::generate();
  const auto line = [](const SigningKey& key) { return kernel::holder_of(key.public_key()); };
  EXPECT_EQ(load("p.toml", ""), "");
  EXPECT_NE(load("p.bundle", ""), "") << "nobody said whose key";
  EXPECT_EQ(load("p.bundle", line(*key_)), "");
  EXPECT_NE(load("p.toml", line(*key_)).find("only signed"), std::string::npos);
  EXPECT_NE(load("p.bundle", line(other)), "");
  const std::string file = dir_ + "/trusted-policy-keys";
  std::ofstream(file) << "# ours\n" << line(other) << "\n" << key_->verifier().text() << "\n";
  ::chmod(file.c_str(), 0600);
  EXPECT_EQ(load("p.bundle", ""), "");
  EXPECT_EQ(load("p.bundle", line(*key_)), "");
  EXPECT_NE(load("p.bundle", line(other)), "") << "both are demanded";
  EXPECT_NE(load("p.toml", "").find("only signed"), std::string::npos);
  ::chmod(file.c_str(), 0622);
  EXPECT_NE(load("p.bundle", "").find("chmod"), std::string::npos);
  ::chmod(file.c_str(), 0600);
  std::ofstream(file) << "";
  EXPECT_NE(load("p.bundle", ""), "") << "an empty list trusts nobody";
  std::ofstream(file) << "not a key\n";
  EXPECT_NE(load("p.bundle", ""), "");
  fs::remove(file);
  std::ofstream(dir_ + "/key.pub") << key_->verifier().text() << "\n";
  EXPECT_EQ(load("p.bundle", ""), "") << "the state directory's own key";
}

}  // namespace
}  // namespace certgate::agentd
