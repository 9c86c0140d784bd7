// Signed bundles: a compiled policy in one file, that runs wherever its key is trusted.
//
//   CG_TRY(std::string payload, bundle_payload("mine.toml"));        // policy pack
//   CG_TRY(std::string text, seal_bundle(payload, name, key));
//   CG_TRY(Bundle bundle, open_bundle(text, keys));                   // signature, then form
//   CG_TRY(CompiledPolicy policy, place(bundle, context));            // for one workspace
//
// A DSSE envelope as dsse_envelope() writes it, of kBundleType; `openssl` alone can check it
// (scripts/verify-signatures --bundle). The payload is deterministic CBOR, keys ascending:
//   1 version   uint   1
//   2 policy    bytes  canonical form (supervisor/policy_load.h), compiled for the directories
//                      kBundleWorkspace and kBundleHome, which place() puts others in for
//   3 sandbox   [read_only, home, [[source, target, asked]], env, [[name, value]]]
//   4 limits    [uint] in the order of struct Limits, 0 = none
//   5 sources   [[file, text]] what it was compiled from, for people; decides nothing
#pragma once

#include <string>
#include <vector>

#include "agentd/note.h"
#include "agentd/policy_file.h"
#include "kernel/token.h"

namespace certgate::agentd {

inline constexpr const char* kBundleType = "application/vnd.certgate.policy.v1+cbor";
inline constexpr const char* kBundleWorkspace = "/@workspace";
inline constexpr const char* kBundleHome = "/@home";
inline constexpr size_t kMaxPolicyBundle = 32 << 20;

struct Bundle {
  CompiledPolicy policy;  // not placed yet
  kernel::Digest payload_digest{};
  PublicKey signer{};
};

bool is_bundle(std::string_view text);
Result<std::string> read_bundle_text(const std::string& path);
Result<std::string> bundle_payload(const std::string& policy_file);
Result<CompiledPolicy> read_bundle_payload(std::string_view payload);

template <typename Key>
Result<std::string> seal_bundle(const std::string& payload, const std::string& name,
                                const Key& key) {
  CG_TRY(const auto signature, key.sign(kernel::dsse_pae(kBundleType, payload)));
  return kernel::dsse_envelope(kBundleType, payload, name, {signature.begin(), signature.end()});
}

// Refused unless one of the keys has signed it.
Result<Bundle> open_bundle(std::string_view text, const std::vector<PublicKey>& keys);
Result<CompiledPolicy> place(const Bundle& bundle, const PolicyContext& context,
                             const std::string& name);

// A public key: "ed25519:HEX", or a file: PEM, such a line, or a key.pub of a state directory.
Result<PublicKey> read_public_key(const std::string& text);

// Which policies a run takes: the keys of `--require-signed PUB` and of the file
// `trusted-policy-keys` in the state directory (one key a line, "#" begins a comment), which always
// applies where it is. Each that is there must have signed it, the file by any of its keys.
struct PolicyTrust {
  std::vector<std::vector<PublicKey>> demanded;  // of each set one must have signed
  std::vector<PublicKey> own;                    // the state directory's key, for bundles otherwise
};
Result<PolicyTrust> policy_trust(const std::string& state_dir, const std::string& require_signed);
// A plain file where nothing is demanded, else a bundle.
Result<CompiledPolicy> load_trusted(const std::string& path, const PolicyContext& context,
                                    const PolicyTrust& trust);

}  // namespace certgate::agentd
