// Making tokens: what the authority, an operator and a holder have in common.
//
//   kernel::Token token = …;
//   narrow_to(last, token);                                    // parent, epoch, limits, scopes
//   CG_TRY(std::string line, seal_token(token, issuer, key));  // its DSSE envelope
#pragma once

#include <string>

#include "kernel/result.h"
#include "kernel/token.h"

namespace certgate::agentd {

Result<std::string> random_hex(size_t bytes);

// A file of envelopes, one a line; not yet verified.
Result<std::string> read_chain_file(const std::string& path);

// `token` comes after `before` in a chain: the times it claims beyond it, and the
// scopes when it has none, it has from it.
void narrow_to(const kernel::Token& before, kernel::Token& token);

template <typename Key>
Result<std::string> seal_token(kernel::Token& token, const std::string& issuer, const Key& key) {
  token.issuer = issuer;
  const std::string payload = token.payload();
  CG_TRY(const auto signature, key.sign(kernel::dsse_pae(kernel::kTokenPayloadType, payload)));
  return kernel::dsse_envelope(kernel::kTokenPayloadType, payload, issuer,
                               {signature.begin(), signature.end()});
}

}  // namespace certgate::agentd
