#include "kernel/token.h"

#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "kernel/merkle.h"
#include "kernel/policy.h"

namespace certgate::kernel {
namespace {

constexpr size_t kMaxEnvelope = 16384;
constexpr size_t kMaxText = 1024;
constexpr std::string_view kHolderPrefix = "ed25519:";

std::string hex(const Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t b : digest) {
    out += kDigits[b >> 4];
    out += kDigits[b & 15];
  }
  return out;
}

bool plain(std::string_view text) {
  return !text.empty() && text.size() <= kMaxText &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; });
}

std::string base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  // NOLINTNEXTLINE: OpenSSL speaks unsigned char
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(bytes.data()),
                                static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(n));
  return out;
}

// Canonical base64 only: what decodes must encode to the same text again.
Result<std::string> unbase64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return fail("base64 of a wrong length");
  std::string out(text.size() / 4 * 3, '\0');
  // NOLINTNEXTLINE: OpenSSL speaks unsigned char
  const int n = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                                reinterpret_cast<const unsigned char*>(text.data()),
                                static_cast<int>(text.size()));
  if (n < 0) return fail("not base64");
  const size_t pad = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  out.resize(static_cast<size_t>(n) - pad);
  if (base64(out) != text) return fail("base64 that is not canonical");
  return out;
}

// Reads exactly the bytes that payload() and dsse_envelope() write: no white space, no other order.
class Scan {
 public:
  explicit Scan(std::string_view text) : left_(text) {}
  Status expect(std::string_view literal) {
    if (!left_.starts_with(literal)) return fail("token: expected " + std::string(literal));
    left_.remove_prefix(literal.size());
    return ok();
  }
  Result<std::string> text() {
    const size_t end = left_.find('"');
    if (end == std::string_view::npos || !plain(left_.substr(0, end)))
      return fail("token: a string that is not plain");
    const std::string out(left_.substr(0, end));
    left_.remove_prefix(end);
    return out;
  }
  Result<std::string> long_text() {
    const size_t end = left_.find('"');
    if (end == std::string_view::npos) return fail("token: a string that does not end");
    const std::string out(left_.substr(0, end));
    left_.remove_prefix(end);
    return out;
  }
  template <typename T>
  Result<T> number() {
    T value = 0;
    const auto [end, error] = std::from_chars(left_.data(), left_.data() + left_.size(), value);
    const auto size = static_cast<size_t>(end - left_.data());
    if (error != std::errc() || std::to_string(value) != left_.substr(0, size))
      return fail("token: a number that is not canonical");
    left_.remove_prefix(size);
    return value;
  }
  bool done() const { return left_.empty(); }
  bool take(char c) {
    if (left_.empty() || left_[0] != c) return false;
    left_.remove_prefix(1);
    return true;
  }

 private:
  std::string_view left_;
};

std::string rate_text(const Rate& rate) {
  return "[" + std::to_string(rate.calls) + "," + std::to_string(rate.per_ns) + "]";
}

template <typename List, typename Text>
std::string list_text(const List& list, Text text) {
  std::string out = "[";
  for (size_t i = 0; i < list.size(); ++i) {
    out += i ? ",\"" : "\"";
    out += text(list[i]);
    out += "\"";
  }
  return out + "]";
}

std::string scope_text(const Scope& scope) {
  std::vector<Verb> verbs = scope.verbs;
  std::sort(verbs.begin(), verbs.end());
  verbs.erase(std::unique(verbs.begin(), verbs.end()), verbs.end());
  return "{\"budget\":" + std::to_string(scope.budget) +
         ",\"paths\":" + list_text(scope.paths, [](const PathPattern& p) { return p.text(); }) +
         ",\"rate\":" + rate_text(scope.rate) + ",\"to\":" +
         list_text(scope.endpoints, [](const EndpointPattern& e) { return e.text(); }) +
         ",\"verbs\":" + list_text(verbs, verb_text) + "}";
}

std::string token_id(std::string_view payload) {
  return hex(sha256(payload.data(), payload.size())).substr(0, 32);
}

Result<Digest> unhex(std::string_view text) {
  Digest out{};
  if (text.size() != 2 * out.size()) return fail("token: a digest of a wrong length");
  for (size_t i = 0; i < out.size(); ++i) {
    const auto [end, error] =
        std::from_chars(text.data() + 2 * i, text.data() + 2 * i + 2, out[i], 16);
    if (error != std::errc() || end != text.data() + 2 * i + 2)
      return fail("token: a digest that is not hex");
  }
  if (hex(out) != text) return fail("token: a digest that is not lower-case hex");
  return out;
}

Result<Rate> parse_rate(Scan& scan) {
  Rate out;
  CG_CHECK(scan.expect("["));
  CG_TRY(out.calls, scan.number<uint64_t>());
  CG_CHECK(scan.expect(","));
  CG_TRY(out.per_ns, scan.number<int64_t>());
  CG_CHECK(scan.expect("]"));
  if ((out.calls == 0) != (out.per_ns == 0) || out.per_ns < 0)
    return fail("token: a rate is calls and a period, or neither");
  return out;
}

// Strings up to ']', each handed to `add`.
template <typename Add>
Status parse_list(Scan& scan, Add add) {
  for (size_t n = 0; !scan.take(']'); ++n) {
    if (n == kMaxScopePatterns) return fail("token: a scope of more than 128 patterns");
    if (n > 0) CG_CHECK(scan.expect(","));
    CG_CHECK(scan.expect("\""));
    CG_TRY(const std::string text, scan.text());
    CG_CHECK(scan.expect("\""));
    CG_CHECK(add(text));
  }
  return ok();
}

Result<Scope> parse_scope(Scan& scan) {
  Scope out;
  CG_CHECK(scan.expect("{\"budget\":"));
  CG_TRY(out.budget, scan.number<uint64_t>());
  CG_CHECK(scan.expect(",\"paths\":["));
  CG_CHECK(parse_list(scan, [&](const std::string& text) -> Status {
    CG_TRY(PathPattern one, PathPattern::parse(text));
    out.paths.push_back(std::move(one));
    return ok();
  }));
  CG_CHECK(scan.expect(",\"rate\":"));
  CG_TRY(out.rate, parse_rate(scan));
  CG_CHECK(scan.expect(",\"to\":["));
  CG_CHECK(parse_list(scan, [&](const std::string& text) -> Status {
    CG_TRY(EndpointPattern one, EndpointPattern::parse(text));
    out.endpoints.push_back(std::move(one));
    return ok();
  }));
  CG_CHECK(scan.expect(",\"verbs\":["));
  CG_CHECK(parse_list(scan, [&](const std::string& text) -> Status {
    CG_TRY(const Verb verb, parse_verb(text));
    out.verbs.push_back(verb);
    return out.verbs.size() > kVerbs ? Status(fail("token: too many verbs")) : ok();
  }));
  CG_CHECK(scan.expect("}"));
  return out;
}

Result<Token> parse_payload(std::string_view payload) {
  Scan scan(payload);
  Token t;
  CG_CHECK(scan.expect("{\"budget\":"));
  CG_TRY(t.budget, scan.number<uint64_t>());
  CG_CHECK(scan.expect(",\"epoch\":"));
  CG_TRY(t.epoch, scan.number<uint64_t>());
  CG_CHECK(scan.expect(",\"exp\":"));
  CG_TRY(t.expires_ns, scan.number<int64_t>());
  CG_CHECK(scan.expect(",\"holder\":\""));
  CG_TRY(t.holder, scan.text());
  CG_CHECK(scan.expect("\",\"iss\":\""));
  CG_TRY(t.issuer, scan.text());
  CG_CHECK(scan.expect("\",\"nbf\":"));
  CG_TRY(t.not_before_ns, scan.number<int64_t>());
  CG_CHECK(scan.expect(",\"nonce\":\""));
  CG_TRY(t.nonce, scan.text());
  CG_CHECK(scan.expect("\",\"parent\":\""));
  CG_TRY(t.parent, scan.long_text());
  CG_CHECK(scan.expect("\",\"policy\":\""));
  CG_TRY(const std::string policy, scan.long_text());
  if (!t.parent.empty()) CG_CHECK(unhex(t.parent));
  if (!policy.empty()) {
    CG_TRY(t.policy, unhex(policy));
  }
  CG_CHECK(scan.expect("\",\"rate\":"));
  CG_TRY(t.rate, parse_rate(scan));
  CG_CHECK(scan.expect(",\"scopes\":["));
  while (!scan.take(']')) {
    if (t.scopes.size() == kMaxScopes) return fail("token: more than 31 scopes");
    if (!t.scopes.empty()) CG_CHECK(scan.expect(","));
    CG_TRY(Scope scope, parse_scope(scan));
    t.scopes.push_back(std::move(scope));
  }
  CG_CHECK(scan.expect(",\"ttl\":"));
  CG_TRY(t.ttl_ns, scan.number<int64_t>());
  CG_CHECK(scan.expect("}"));
  if (t.ttl_ns < 0) return fail("token: a ttl below zero");
  if (!scan.done() || t.payload() != payload) return fail("token: payload is not canonical");
  t.id = token_id(payload);
  return t;
}

bool signature_holds(std::string_view message, std::string_view signature,
                     const RawPublicKey& key) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> pkey(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()),
      EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!pkey || !ctx || EVP_DigestVerifyInit(ctx.get(), nullptr, nullptr, nullptr, pkey.get()) != 1)
    return false;
  // NOLINTNEXTLINE: OpenSSL speaks unsigned char
  return EVP_DigestVerify(ctx.get(), reinterpret_cast<const unsigned char*>(signature.data()),
                          signature.size(), reinterpret_cast<const unsigned char*>(message.data()),
                          message.size()) == 1;
}

}  // namespace

std::string Token::payload() const {
  std::string out =
      "{\"budget\":" + std::to_string(budget) + ",\"epoch\":" + std::to_string(epoch) +
      ",\"exp\":" + std::to_string(expires_ns) + ",\"holder\":\"" + holder + "\",\"iss\":\"" +
      issuer + "\",\"nbf\":" + std::to_string(not_before_ns) + ",\"nonce\":\"" + nonce +
      "\",\"parent\":\"" + parent + "\",\"policy\":\"" + (policy == Digest{} ? "" : hex(policy)) +
      "\",\"rate\":" + rate_text(rate) + ",\"scopes\":[";
  for (size_t i = 0; i < scopes.size(); ++i) out += (i ? "," : "") + scope_text(scopes[i]);
  return out + "],\"ttl\":" + std::to_string(ttl_ns) + "}";
}

std::vector<Scope> every_scope() {
  return {{{Verb::kExec, Verb::kRead, Verb::kWrite, Verb::kConnect}, {}, {}, 0, {}}};
}

std::string holder_of(const RawPublicKey& key) {
  Digest same_size{};
  std::copy(key.begin(), key.end(), same_size.begin());
  return std::string(kHolderPrefix) + hex(same_size);
}

std::string dsse_pae(std::string_view payload_type, std::string_view payload) {
  std::string out = "DSSEv1 " + std::to_string(payload_type.size()) + " ";
  out += payload_type;
  out += " " + std::to_string(payload.size()) + " ";
  out += payload;
  return out;
}

std::string dsse_envelope(std::string_view payload_type, std::string_view payload,
                          std::string_view key_name, const std::vector<uint8_t>& signature) {
  const std::string raw(signature.begin(), signature.end());
  std::string out = "{\"payload\":\"" + base64(payload) + "\",\"payloadType\":\"";
  out += payload_type;
  out += "\",\"signatures\":[{\"keyid\":\"";
  out += key_name;
  return out + "\",\"sig\":\"" + base64(raw) + "\"}]}";
}

namespace {

// Without a key the signature is not looked at.
Result<Token> parse_envelope(std::string_view envelope, const RawPublicKey* key) {
  if (envelope.size() > kMaxEnvelope) return fail("token: longer than 16 KiB");
  Scan scan(envelope);
  CG_CHECK(scan.expect("{\"payload\":\""));
  CG_TRY(const std::string encoded, scan.long_text());
  CG_CHECK(scan.expect("\",\"payloadType\":\""));
  CG_CHECK(scan.expect(kTokenPayloadType));
  CG_CHECK(scan.expect("\",\"signatures\":[{\"keyid\":\""));
  CG_TRY(const std::string key_name, scan.text());
  CG_CHECK(scan.expect("\",\"sig\":\""));
  CG_TRY(const std::string encoded_signature, scan.long_text());
  CG_CHECK(scan.expect("\"}]}"));
  if (!scan.done()) return fail("token: bytes after the envelope");
  CG_TRY(const std::string payload, unbase64(encoded));
  CG_TRY(const std::string signature, unbase64(encoded_signature));
  if (key != nullptr && !signature_holds(dsse_pae(kTokenPayloadType, payload), signature, *key)) {
    return fail("token: the signature is not by the key that must have signed it");
  }
  CG_TRY(Token token, parse_payload(payload));
  if (token.issuer != key_name) return fail("token: its issuer is not the key that signed it");
  return token;
}

Result<TokenChain> parse_chain(std::string_view lines, const RawPublicKey* root) {
  if (lines.size() > kMaxChainBytes) return fail("token: a chain longer than 24 KiB");
  TokenChain chain;
  RawPublicKey holder_key{};
  const RawPublicKey* key = root;
  std::string before;  // the digest of the payload before
  while (!lines.empty()) {
    if (chain.size() == kMaxChain) return fail("token: a chain of more than 8 tokens");
    const size_t end = lines.find('\n');
    CG_TRY(Token token, parse_envelope(lines.substr(0, end), key));
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 1);
    if (token.parent != before) return fail("token " + token.id + ": not made from the one before");
    if (!chain.empty() && token.issuer != chain.back().holder)
      return fail("token " + token.id + ": not signed by the holder of the one before");
    if (!chain.empty()) CG_CHECK(narrows(chain.back(), token));
    const std::string payload = token.payload();
    before = hex(sha256(payload.data(), payload.size()));
    const std::string holder = token.holder;
    chain.push_back(std::move(token));
    if (lines.empty()) break;
    if (!holder.starts_with(kHolderPrefix))
      return fail("token " + chain.back().id + ": a run cannot hand its token on");
    CG_TRY(const Digest raw, unhex(std::string_view(holder).substr(kHolderPrefix.size())));
    holder_key = raw;
    key = &holder_key;
  }
  if (chain.empty()) return fail("token: an empty chain");
  return chain;
}

}  // namespace

Result<Token> verify_token(std::string_view envelope, const RawPublicKey& key) {
  return parse_envelope(envelope, &key);
}

Result<TokenChain> verify_chain(std::string_view lines, const RawPublicKey& root) {
  return parse_chain(lines, &root);
}

Result<TokenChain> read_chain(std::string_view lines) { return parse_chain(lines, nullptr); }

}  // namespace certgate::kernel
