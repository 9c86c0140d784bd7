// Tokens in DSSE envelopes: one spelling each, and nothing but a signed token comes out.
//
// Input: mode byte, then  0 an envelope   1 a payload that is signed here   2 fields of a token
#include "kernel/token.h"
#include "tests/fuzz/signing.h"

using namespace certgate;
using kernel::Token;

namespace {

const auto& public_key() { return fuzz::TestKey::get().public_key(); }

std::string envelope_of(std::string_view payload, std::string_view key_name) {
  const auto s = fuzz::TestKey::get().sign(kernel::dsse_pae(kernel::kTokenPayloadType, payload));
  return kernel::dsse_envelope(kernel::kTokenPayloadType, payload, key_name,
                               std::vector<uint8_t>(s.begin(), s.end()));
}

void canonical(const Token& token, const std::string& envelope) {
  CG_LAW(envelope_of(token.payload(), token.issuer) == envelope);
  CG_LAW(token.scopes.size() <= kernel::kMaxScopes && token.id.size() == 32);
  for (const kernel::Scope& scope : token.scopes) {
    CG_LAW(scope.verbs.size() <= kernel::kVerbs);
    CG_LAW(std::is_sorted(scope.verbs.begin(), scope.verbs.end()));
  }
  // What a token says of itself it can hand on.
  CG_LAW(kernel::narrows(token, token));
}

Token any_token(fuzz::Bytes in) {
  Token t;
  t.budget = in.number();
  t.epoch = in.number();
  t.expires_ns = static_cast<int64_t>(in.number());
  t.not_before_ns = static_cast<int64_t>(in.number());
  for (uint8_t& b : t.policy) b = in.byte();
  const uint8_t verbs = in.byte();
  t.scopes.resize(1);
  for (size_t i = 0; i < kernel::kVerbs; ++i) {
    if (verbs >> i & 1) t.scopes[0].verbs.push_back(static_cast<kernel::Verb>(i));
  }
  t.scopes[0].budget = in.number();
  t.holder = in.text();
  t.nonce = in.text();
  t.issuer = in.text();
  return t;
}

bool plain(const std::string& text) {
  return !text.empty() && text.size() <= 1024 && std::all_of(text.begin(), text.end(), [](char c) {
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
  });
}

void fields_come_back(const Token& token) {
  const std::string envelope = envelope_of(token.payload(), token.issuer);
  const auto back = kernel::verify_token(envelope, public_key());
  const bool writable = plain(token.holder) && plain(token.nonce) && plain(token.issuer);
  if (!back) {
    CG_LAW(!writable);
    return;
  }
  // Also where a field holds quotes: what is read is what would be signed again, byte for byte.
  canonical(*back, envelope);
  if (!writable) return;
  CG_LAW(back->holder == token.holder && back->nonce == token.nonce &&
         back->issuer == token.issuer);
  CG_LAW(back->budget == token.budget && back->epoch == token.epoch &&
         back->scopes[0].verbs == token.scopes[0].verbs);
  CG_LAW(back->expires_ns == token.expires_ns && back->not_before_ns == token.not_before_ns);
  CG_LAW(back->policy == token.policy);
  std::string damaged = envelope;
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 1);
  CG_LAW(!kernel::verify_token(damaged, public_key()));
}

}  // namespace

FUZZ_TARGET(dsse) {
  fuzz::Bytes in(data, size);
  const uint8_t mode = in.byte();
  if (mode % 3 == 2) {
    fields_come_back(any_token(in));
    return 0;
  }
  const std::string text = in.rest();
  if (mode % 3 == 0) {
    if (const auto token = kernel::verify_token(text, public_key())) canonical(*token, text);
    return 0;
  }
  // The issuer is part of the payload; the key name must be the same.
  const size_t at = text.find("\"iss\":\"");
  const size_t from = at == std::string::npos ? 0 : at + 7;
  const std::string issuer = text.substr(from, text.find('"', from) - from);
  const std::string envelope = envelope_of(text, issuer);
  const auto token = kernel::verify_token(envelope, public_key());
  if (token) {
    CG_LAW(token->payload() == text);
    canonical(*token, envelope);
  }
  return 0;
}
