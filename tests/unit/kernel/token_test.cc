#include "kernel/token.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

namespace certgate::kernel {
namespace {

class TokenTest : public testing::Test {
 protected:
  void SetUp() override {
    key_.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    ASSERT_TRUE(key_);
    size_t size = public_.size();
    ASSERT_EQ(EVP_PKEY_get_raw_public_key(key_.get(), public_.data(), &size), 1);
    token_.nonce = "00112233aabbccdd";
    token_.holder = "abcdefgh";
    token_.issuer = "certgate.local/test";
    token_.not_before_ns = 5;
    token_.expires_ns = 500;
    token_.budget = 7;
    token_.scopes.resize(1);
    token_.scopes[0].verbs = {Verb::kExec, Verb::kRead};
    token_.policy.fill(0xab);
  }
  std::vector<uint8_t> sign(const std::string& message) const {
    const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    std::vector<uint8_t> out(64);
    size_t size = out.size();
    EXPECT_EQ(EVP_DigestSignInit(ctx.get(), nullptr, nullptr, nullptr, key_.get()), 1);
    EXPECT_EQ(
        EVP_DigestSign(ctx.get(), out.data(), &size,
                       reinterpret_cast<const unsigned char*>(message.data()), message.size()),
        1);
    return out;
  }
  std::string envelope(const std::string& payload) const {
    return dsse_envelope(kTokenPayloadType, payload, token_.issuer,
                         sign(dsse_pae(kTokenPayloadType, payload)));
  }

  struct Free {
    void operator()(EVP_PKEY* k) const { EVP_PKEY_free(k); }
  };
  std::unique_ptr<EVP_PKEY, Free> key_;
  std::array<uint8_t, 32> public_{};
  Token token_;
};

TEST_F(TokenTest, WhatIsSignedComesBack) {
  const auto back = verify_token(envelope(token_.payload()), public_);
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(back->payload(), token_.payload());
  EXPECT_EQ(back->scopes[0].verbs, token_.scopes[0].verbs);
  EXPECT_EQ(back->policy, token_.policy);
  EXPECT_EQ(back->budget, 7u);
}

TEST_F(TokenTest, EveryFlippedBitIsRefused) {
  const std::string good = envelope(token_.payload());
  for (size_t i = 0; i < good.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      ASSERT_FALSE(verify_token(bad, public_)) << i << "." << bit;
    }
  }
}

TEST_F(TokenTest, EveryTruncationAndAnySuffixIsRefused) {
  const std::string good = envelope(token_.payload());
  for (size_t n = 0; n < good.size(); ++n)
    ASSERT_FALSE(verify_token(good.substr(0, n), public_)) << n;
  EXPECT_FALSE(verify_token(good + "\n", public_));
}

TEST_F(TokenTest, AnotherKeyIsRefused) {
  auto other = public_;
  other[0] ^= 1;
  EXPECT_FALSE(verify_token(envelope(token_.payload()), other));
}

// Signed by the right key, but not in the one canonical form: extra, missing, repeated or reordered
// keys.
TEST_F(TokenTest, OnlyTheCanonicalPayloadIsAccepted) {
  const std::string good = token_.payload();
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string out = good;
    out.replace(out.find(from), from.size(), to);
    return out;
  };
  for (const std::string& bad :
       {changed("{", "{ "), changed("\"budget\":7,", ""), changed("\"rate\":[0,0]", "\"rate\":[1,0]"),
        changed("\"ttl\":0", "\"ttl\":-1"), changed("\"parent\":\"\"", "\"parent\":\"00\""),
        changed("\"budget\":7,", "\"budget\":7,\"budget\":7,"),
        changed("\"budget\":7", "\"budget\":07"), changed("\"budget\":7", "\"budget\":-7"),
        changed("\"verbs\"", "\"x\":1,\"verbs\""),
        changed("\"exec\",\"read\"", "\"read\",\"exec\""), changed("\"exec\"", "\"fly\""),
        changed("\"exec\"", "\"exec\",\"exec\""), changed("abab", "ABAB"), good + " "}) {
    EXPECT_FALSE(verify_token(envelope(bad), public_)) << bad;
  }
}

TEST_F(TokenTest, TheIssuerIsTheKeyThatSigned) {
  const std::string payload = token_.payload();
  const std::string other = dsse_envelope(kTokenPayloadType, payload, "someone.else",
                                          sign(dsse_pae(kTokenPayloadType, payload)));
  EXPECT_FALSE(verify_token(other, public_));
}

TEST_F(TokenTest, OpensslAloneVerifiesIt) {
  namespace fs = std::filesystem;
  std::string pattern = (fs::temp_directory_path() / "certgate-token-XXXXXX").string();
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const fs::path dir = pattern;
  const std::string pae = dsse_pae(kTokenPayloadType, token_.payload());
  const auto signature = sign(pae);
  std::ofstream(dir / "pae", std::ios::binary) << pae;
  std::ofstream(dir / "sig", std::ios::binary)
      .write(reinterpret_cast<const char*>(signature.data()), 64);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pem(
      std::fopen((dir / "pub.pem").c_str(), "w"), std::fclose);
  ASSERT_EQ(PEM_write_PUBKEY(pem.get(), key_.get()), 1);
  std::fflush(pem.get());
  const std::string command =
      "cd " + dir.string() +
      " && openssl pkeyutl -verify -pubin -inkey pub.pem -rawin -in pae -sigfile sig >/dev/null";
  EXPECT_EQ(std::system(command.c_str()), 0);
  std::ofstream(dir / "pae", std::ios::binary | std::ios::app) << "x";
  EXPECT_NE(std::system((command + " 2>&1").c_str()), 0);
  fs::remove_all(dir);
}

}  // namespace
}  // namespace certgate::kernel
