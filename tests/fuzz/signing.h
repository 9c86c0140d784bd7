// A fixed Ed25519 key, so that targets can reach what lies behind a signature check.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace certgate::fuzz {

class TestKey {
 public:
  TestKey() {
    std::array<uint8_t, 32> seed{};
    for (size_t i = 0; i < seed.size(); ++i) seed[i] = static_cast<uint8_t>(i + 1);
    key_.reset(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()));
    size_t size = public_key_.size();
    if (!key_ || EVP_PKEY_get_raw_public_key(key_.get(), public_key_.data(), &size) != 1)
      std::abort();
  }
  std::array<uint8_t, 64> sign(std::string_view message) const {
    const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(),
                                                                     EVP_MD_CTX_free);
    std::array<uint8_t, 64> out{};
    size_t size = out.size();
    if (EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) != 1 ||
        EVP_DigestSign(context.get(), out.data(), &size, bytes_of(message), message.size()) != 1)
      std::abort();
    return out;
  }
  const std::array<uint8_t, 32>& public_key() const { return public_key_; }

  static const TestKey& get() {
    static const TestKey key;
    return key;
  }

 private:
  std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_{nullptr, EVP_PKEY_free};
  std::array<uint8_t, 32> public_key_{};
};

}  // namespace certgate::fuzz
