// SigningKey: the Ed25519 key of one state directory. It signs checkpoints and tokens.
//
//   CG_TRY(SigningKey key, SigningKey::load(state_dir_fd));
//   CG_TRY(Signature s, key.sign(bytes));
//   key.name();         // "certgate.local/k3u7x2qa": issuer of tokens, origin of the log
//   key.public_key();   // 32 raw bytes
//
// Files in the state directory:
//   key      PKCS#8 PEM, mode 0600. Made once (O_EXCL); refused with another owner or a wider mode
//   key.pub  "name+<id>+base64(0x01||public key)\n", C2SP signed-note verifier key
// LogStore::open makes the key; a process that reads agent memory must never call load().
#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "agentd/note.h"
#include "kernel/result.h"

namespace certgate::agentd {

class SigningKey {
 public:
  // A fresh key under a fresh random name; nothing is written.
  static Result<SigningKey> generate();
  // Reads `key` and `key.pub` in the directory; refuses what others could have read or replaced.
  static Result<SigningKey> load(int dir_fd);
  // Writes key.pub, then key (which must not exist), both durable. No `key`, no state directory.
  Status save_public(int dir_fd) const;
  Status save_private(int dir_fd) const;

  SigningKey(SigningKey&&) noexcept = default;
  SigningKey& operator=(SigningKey&&) noexcept = default;

  Result<Signature> sign(std::string_view message) const;
  const std::string& name() const { return verifier_.name; }
  const PublicKey& public_key() const { return verifier_.key; }
  const VerifierKey& verifier() const { return verifier_; }

 private:
  struct Free {
    void operator()(EVP_PKEY* key) const;
  };
  using Handle = std::unique_ptr<EVP_PKEY, Free>;
  SigningKey(Handle key, VerifierKey verifier)
      : key_(std::move(key)), verifier_(std::move(verifier)) {}

  Handle key_;
  VerifierKey verifier_;
};

// `length` random characters of [a-z2-7] (5 bits each): key names, run ids.
Result<std::string> random_base32(size_t length);

}  // namespace certgate::agentd
