#include "agentd/signing_key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "log_fixture.h"

namespace certgate::agentd {
namespace {

class SigningKeyTest : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    std::filesystem::create_directories(root_ + "/tmp");
    dir_ = sandbox::UniqueFd(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto key = SigningKey::generate();
    ASSERT_TRUE(key);
    ASSERT_TRUE(key->save_public(dir_.get()));
    ASSERT_TRUE(key->save_private(dir_.get()));
    name_ = key->name();
    public_ = key->public_key();
  }
  sandbox::UniqueFd dir_;
  std::string name_;
  PublicKey public_{};
};

TEST_F(SigningKeyTest, IsLoadedAsItWasMade) {
  const auto key = SigningKey::load(dir_.get());
  ASSERT_TRUE(key) << key.error().what;
  EXPECT_EQ(key->name(), name_);
  EXPECT_EQ(key->public_key(), public_);
  EXPECT_EQ(name_.size(), std::string("certgate.local/").size() + 8);
  EXPECT_EQ(read(root_ + "/key.pub"), key->verifier().text() + '\n');
  const auto signature = key->sign("message");
  ASSERT_TRUE(signature);
  EXPECT_TRUE(verify_ed25519(public_, "message", *signature));
  EXPECT_FALSE(verify_ed25519(public_, "messagE", *signature));
}

TEST_F(SigningKeyTest, IsPkcs8AndReadableByTheOwnerOnly) {
  struct stat st;
  ASSERT_EQ(::stat((root_ + "/key").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  EXPECT_TRUE(read(root_ + "/key").starts_with("-----BEGIN PRIVATE KEY-----\n"));
  EXPECT_FALSE(std::filesystem::exists(root_ + "/key.new"));
}

TEST_F(SigningKeyTest, IsNeverOverwritten) {
  const auto other = SigningKey::generate();
  ASSERT_TRUE(other);
  const Status saved = other->save_private(dir_.get());
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().code, EEXIST);
  EXPECT_TRUE(SigningKey::load(dir_.get()));
}

TEST_F(SigningKeyTest, AWiderModeIsRefused) {
  for (const mode_t mode : {0640u, 0604u, 0660u, 0700u, 04600u, 0400u}) {
    ASSERT_EQ(::chmod((root_ + "/key").c_str(), mode), 0);
    const auto key = SigningKey::load(dir_.get());
    ASSERT_FALSE(key) << mode;
    EXPECT_NE(key.error().what.find("0600"), std::string::npos);
  }
}

TEST_F(SigningKeyTest, AnotherOwnerIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "giving a file away needs root";
  ASSERT_EQ(::chown((root_ + "/key").c_str(), 65534, 65534), 0);
  EXPECT_FALSE(SigningKey::load(dir_.get()));
}

TEST_F(SigningKeyTest, ASymlinkAFifoAndADirectoryAreRefused) {
  std::filesystem::rename(root_ + "/key", root_ + "/real");
  std::filesystem::create_symlink("real", root_ + "/key");
  EXPECT_FALSE(SigningKey::load(dir_.get()));
  std::filesystem::remove(root_ + "/key");
  ASSERT_EQ(::mkfifo((root_ + "/key").c_str(), 0600), 0);
  EXPECT_FALSE(SigningKey::load(dir_.get()));
  std::filesystem::remove(root_ + "/key");
  std::filesystem::create_directory(root_ + "/key");
  EXPECT_FALSE(SigningKey::load(dir_.get()));
}

TEST_F(SigningKeyTest, ADamagedFileOrAForeignPublicHalfIsRefused) {
  const std::string pem = read(root_ + "/key");
  write(root_ + "/key", pem.substr(0, pem.size() / 2));
  EXPECT_FALSE(SigningKey::load(dir_.get()));
  write(root_ + "/key", "");
  EXPECT_FALSE(SigningKey::load(dir_.get()));
  write(root_ + "/key", pem);
  EXPECT_TRUE(SigningKey::load(dir_.get()));
  const auto other = SigningKey::generate();
  write(root_ + "/key.pub", VerifierKey{name_, other->public_key()}.text() + '\n');
  EXPECT_FALSE(SigningKey::load(dir_.get()));
  std::filesystem::remove(root_ + "/key.pub");
  EXPECT_FALSE(SigningKey::load(dir_.get()));
}

TEST(RandomBase32, IsOfTheAlphabetAndNotTwiceTheSame) {
  const auto a = random_base32(8), b = random_base32(8);
  ASSERT_TRUE(a && b);
  EXPECT_EQ(a->size(), 8u);
  EXPECT_EQ(a->find_first_not_of("abcdefghijklmnopqrstuvwxyz234567"), std::string::npos);
  EXPECT_NE(*a, *b);
}

}  // namespace
}  // namespace certgate::agentd
