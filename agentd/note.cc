#include "agentd/note.h"

#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "kernel/cbor.h"
#include "kernel/merkle.h"

namespace certgate::agentd {
namespace {

constexpr uint8_t kEd25519Type = 0x01;
constexpr std::string_view kSignaturePrefix = "\xE2\x80\x94 ";  // em dash, space
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int sextet(char c) {
  const size_t at = kAlphabet.find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

uint32_t big_endian(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | uint32_t{at[3]};
}

bool is_text(std::string_view bytes) {
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = kernel::utf8_length(data + i, bytes.size() - i);
    if (length == 0) return false;
    if (length == 1 && (data[i] < 0x20 || data[i] == 0x7F) && data[i] != '\n') return false;
    i += length;
  }
  return true;
}

Status check_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxKeyNameBytes) return fail("key name: empty or too long");
  if (name.find_first_of(" +\t\r\n") != std::string_view::npos || !is_text(name)) {
    return fail("key name: it has a space, a plus or a control character");
  }
  return ok();
}

// Takes the line up to the next '\n' off the front of `rest`.
Result<std::string_view> take_line(std::string_view& rest) {
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) return fail("a line without its end");
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return line;
}

Result<SignatureLine> parse_signature_line(std::string_view line) {
  if (!line.starts_with(kSignaturePrefix))
    return fail("a signature line does not start with a dash");
  line.remove_prefix(kSignaturePrefix.size());
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return fail("a signature line has no signature");
  SignatureLine parsed;
  parsed.name = line.substr(0, space);
  CG_CHECK(check_name(parsed.name));
  CG_TRY(std::vector<uint8_t> bytes, base64_decode(line.substr(space + 1)));
  if (bytes.size() < 5) return fail("a signature is too short");
  parsed.id = big_endian(bytes.data());
  parsed.signature.assign(bytes.begin() + 4, bytes.end());
  return parsed;
}

}  // namespace

std::string base64_encode(const void* data, size_t size) {
  const auto* in = static_cast<const uint8_t*>(data);
  std::string out;
  out.reserve((size + 2) / 3 * 4);
  for (size_t i = 0; i < size; i += 3) {
    const size_t have = std::min<size_t>(3, size - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < have ? in[i + k] : 0u);
    for (size_t k = 0; k < 4; ++k) {
      out += k <= have ? kAlphabet[group >> (18 - 6 * k) & 63] : '=';
    }
  }
  return out;
}

Result<std::vector<uint8_t>> base64_decode(std::string_view text) {
  if (text.size() % 4 != 0) return fail("base64: the length is not a multiple of 4");
  std::vector<uint8_t> out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const bool last = i + 4 == text.size();
    const size_t padding = !last || text[i + 3] != '=' ? 0 : text[i + 2] != '=' ? 1 : 2;
    uint32_t group = 0;
    for (size_t k = 0; k < 4; ++k) {
      const int value = k < 4 - padding ? sextet(text[i + k]) : 0;
      if (value < 0) return fail("base64: a character that is not of the alphabet");
      group = group << 6 | static_cast<uint32_t>(value);
    }
    // The bits that the padding leaves over must be zero, or one value would have many texts.
    if (padding > 0 && (group & ((1u << (8 * padding)) - 1)) != 0) {
      return fail("base64: the unused bits at the end are not zero");
    }
    for (size_t k = 0; k < 3 - padding; ++k) {
      out.push_back(static_cast<uint8_t>(group >> (16 - 8 * k)));
    }
  }
  return out;
}

Status verify_ed25519(const PublicKey& key, std::string_view message, const Signature& signature) {
  using KeyHandle = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
  using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;
  const KeyHandle handle(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, key.data(), key.size()),
      EVP_PKEY_free);
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!handle || !context) return fail("ed25519: the key could not be loaded");
  if (EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, handle.get()) != 1) {
    return fail("ed25519: the verification could not start");
  }
  if (EVP_DigestVerify(context.get(), signature.data(), signature.size(),
                       reinterpret_cast<const uint8_t*>(message.data()), message.size()) != 1) {
    return fail("ed25519: the signature is not valid");
  }
  return ok();
}

uint32_t VerifierKey::id() const {
  std::string bytes = name + '\n' + static_cast<char>(kEd25519Type);
  bytes.append(key.begin(), key.end());
  return big_endian(kernel::sha256(bytes.data(), bytes.size()).data());
}

std::string VerifierKey::text() const {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = name + '+';
  const uint32_t number = id();
  for (int shift = 28; shift >= 0; shift -= 4) out += kHex[number >> shift & 15];
  uint8_t bytes[33] = {kEd25519Type};
  std::copy(key.begin(), key.end(), bytes + 1);
  return out + '+' + base64_encode(bytes, sizeof bytes);
}

Result<VerifierKey> VerifierKey::parse(std::string_view text) {
  const size_t first = text.find('+');
  if (first == std::string_view::npos || text.size() > kMaxNoteBytes) {
    return fail("verifier key: not of the form name+id+key");
  }
  const size_t second = text.find('+', first + 1);
  if (second == std::string_view::npos) return fail("verifier key: not of the form name+id+key");
  VerifierKey key;
  key.name = text.substr(0, first);
  CG_CHECK(check_name(key.name));
  CG_TRY(const std::vector<uint8_t> bytes, base64_decode(text.substr(second + 1)));
  if (bytes.size() != 33 || bytes[0] != kEd25519Type) {
    return fail("verifier key: not an Ed25519 key (type 1, 32 bytes)");
  }
  std::copy(bytes.begin() + 1, bytes.end(), key.key.begin());
  if (key.text() != text) return fail("verifier key: the id is not that of this name and key");
  return key;
}

std::string Checkpoint::text() const {
  return origin + '\n' + std::to_string(size) + '\n' + base64_encode(root.data(), root.size()) +
         '\n';
}

Result<Checkpoint> Checkpoint::parse(std::string_view text) {
  Checkpoint checkpoint;
  std::string_view rest = text;
  CG_TRY(const std::string_view origin, take_line(rest));
  CG_TRY(const std::string_view size, take_line(rest));
  CG_TRY(const std::string_view root, take_line(rest));
  if (origin.empty()) return fail("checkpoint: it has no origin");
  if (!rest.empty()) return fail("checkpoint: it has extension lines");
  const auto [end, error] =
      std::from_chars(size.data(), size.data() + size.size(), checkpoint.size);
  if (error != std::errc() || end != size.data() + size.size() ||
      size != std::to_string(checkpoint.size)) {
    return fail("checkpoint: the size is not a plain decimal number");
  }
  CG_TRY(const std::vector<uint8_t> bytes, base64_decode(root));
  if (bytes.size() != checkpoint.root.size()) return fail("checkpoint: the root is not 32 bytes");
  checkpoint.origin = origin;
  std::copy(bytes.begin(), bytes.end(), checkpoint.root.begin());
  return checkpoint;
}

std::string note_of(const std::string& text, const VerifierKey& key, const Signature& signature) {
  const uint32_t id = key.id();
  std::vector<uint8_t> bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<uint8_t>(id >> shift));
  bytes.insert(bytes.end(), signature.begin(), signature.end());
  return text + '\n' + std::string(kSignaturePrefix) + key.name + ' ' +
         base64_encode(bytes.data(), bytes.size()) + '\n';
}

Result<std::string> open_note(std::string_view note, const VerifierKey& key, size_t* signatures) {
  if (note.size() > kMaxNoteBytes) return fail("note: too long");
  if (!is_text(note)) return fail("note: not plain UTF-8 text");
  // The last blank line: the text itself may hold others.
  const size_t blank = note.rfind("\n\n");
  if (blank == std::string_view::npos) return fail("note: no blank line before the signatures");
  const std::string_view text = note.substr(0, blank + 1);
  std::string_view rest = note.substr(blank + 2);
  size_t count = 0;
  bool verified = false;
  while (!rest.empty()) {
    if (++count > kMaxNoteSignatures) return fail("note: too many signatures");
    CG_TRY(const std::string_view line, take_line(rest));
    CG_TRY(const SignatureLine parsed, parse_signature_line(line));
    if (parsed.name != key.name || parsed.id != key.id()) continue;
    if (verified) return fail("note: two signatures by the same key");
    Signature signature;
    if (parsed.signature.size() != signature.size())
      return fail("note: a signature is not 64 bytes");
    std::copy(parsed.signature.begin(), parsed.signature.end(), signature.begin());
    CG_CHECK(verify_ed25519(key.key, text, signature));
    verified = true;
  }
  if (!verified) return fail("note: no signature by " + key.name + " with the expected key id");
  if (signatures != nullptr) *signatures = count;
  return std::string(text);
}

Result<std::vector<SignatureLine>> signature_lines(std::string_view note) {
  const size_t blank = note.rfind("\n\n");
  if (note.size() > kMaxNoteBytes || blank == std::string_view::npos)
    return fail("note: too long, or no blank line before the signatures");
  std::vector<SignatureLine> lines;
  for (std::string_view rest = note.substr(blank + 2); !rest.empty();) {
    if (lines.size() == kMaxNoteSignatures) return fail("note: too many signatures");
    CG_TRY(const std::string_view line, take_line(rest));
    CG_TRY(SignatureLine parsed, parse_signature_line(line));
    lines.push_back(std::move(parsed));
  }
  return lines;
}

Result<Checkpoint> open_checkpoint(std::string_view note, const VerifierKey& key) {
  size_t signatures = 0;
  CG_TRY(const std::string text, open_note(note, key, &signatures));
  if (signatures != 1) return fail("checkpoint: signatures by keys that are not this log's");
  CG_TRY(Checkpoint checkpoint, Checkpoint::parse(text));
  if (checkpoint.origin != key.name) return fail("checkpoint: it is of another log");
  return checkpoint;
}

}  // namespace certgate::agentd
