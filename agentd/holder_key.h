// Holder key: the Ed25519 key of who holds a token and may hand it on.
//
//   CG_TRY(HolderKey key, HolderKey::read("alice.key"));    // PEM (PKCS#8), 0600, the caller's own
//   key.holder();                                           // "ed25519:3b6a…"
//   CG_TRY(std::string holder, read_holder("alice.pub"));   // PEM (SPKI), or such a line
//
// `openssl genpkey -algorithm ed25519` makes one as well as `certgate token key` does.
#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>
#include <string_view>

#include "agentd/note.h"
#include "kernel/result.h"

namespace certgate::agentd {

class HolderKey {
 public:
  static Result<HolderKey> read(const std::string& path);
  // Makes a key: PATH (0600) and PATH.pub; neither may exist.
  static Result<HolderKey> make(const std::string& path);
  Result<Signature> sign(std::string_view message) const;
  const std::string& holder() const { return holder_; }

 private:
  explicit HolderKey(std::shared_ptr<EVP_PKEY> key) : key_(std::move(key)) {}
  static Result<HolderKey> from(std::shared_ptr<EVP_PKEY> key);
  std::shared_ptr<EVP_PKEY> key_;  // never changed
  std::string holder_;
};

// The holder that a public key file, or "ed25519:…" itself, names.
Result<std::string> read_holder(const std::string& text);

}  // namespace certgate::agentd
