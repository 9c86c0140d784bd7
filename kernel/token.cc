#include "kernel/token.h"

#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "kernel/policy.h"

namespace certgate::kernel {
namespace {

constexpr size_t kMaxEnvelope = 16384;

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
  return !text.empty() && text.size() <= 256 && std::all_of(text.begin(), text.end(), [](char c) {
    return c > 0x20 && c < 0x7f && c != '"' && c != '\\';
  });
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
  CG_CHECK(scan.expect("\",\"id\":\""));
  CG_TRY(t.id, scan.text());
  CG_CHECK(scan.expect("\",\"iss\":\""));
  CG_TRY(t.issuer, scan.text());
  CG_CHECK(scan.expect("\",\"nbf\":"));
  CG_TRY(t.not_before_ns, scan.number<int64_t>());
  CG_CHECK(scan.expect(",\"policy\":\""));
  CG_TRY(const std::string policy, scan.text());
  CG_TRY(t.policy, unhex(policy));
  CG_CHECK(scan.expect("\",\"verbs\":["));
  while (!scan.take(']')) {
    if (!t.verbs.empty()) CG_CHECK(scan.expect(","));
    CG_CHECK(scan.expect("\""));
    CG_TRY(const std::string verb, scan.text());
    CG_CHECK(scan.expect("\""));
    CG_TRY(const Verb known, parse_verb(verb));
    t.verbs.push_back(known);
    if (t.verbs.size() > kVerbs) return fail("token: too many verbs");
  }
  CG_CHECK(scan.expect("}"));
  if (!scan.done() || t.payload() != payload) return fail("token: payload is not canonical");
  return t;
}

bool signature_holds(std::string_view message, std::string_view signature,
                     const std::array<uint8_t, 32>& key) {
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
      ",\"exp\":" + std::to_string(expires_ns) + ",\"holder\":\"" + holder + "\",\"id\":\"" + id +
      "\",\"iss\":\"" + issuer + "\",\"nbf\":" + std::to_string(not_before_ns) + ",\"policy\":\"" +
      hex(policy) + "\",\"verbs\":[";
  std::vector<Verb> sorted = verbs;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (size_t i = 0; i < sorted.size(); ++i) {
    out += std::string(i ? "," : "") + "\"" + verb_text(sorted[i]) + "\"";
  }
  return out + "]}";
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

Result<Token> verify_token(std::string_view envelope, const std::array<uint8_t, 32>& public_key) {
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
  if (!signature_holds(dsse_pae(kTokenPayloadType, payload), signature, public_key)) {
    return fail("token: the signature is not by this authority's key");
  }
  CG_TRY(Token token, parse_payload(payload));
  if (token.issuer != key_name) return fail("token: its issuer is not the key that signed it");
  return token;
}

}  // namespace certgate::kernel
