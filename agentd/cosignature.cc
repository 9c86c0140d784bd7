#include "agentd/cosignature.h"

#include <algorithm>

#include "kernel/merkle.h"

namespace certgate::agentd {
namespace {

constexpr uint8_t kCosignatureType = 0x04;
constexpr size_t kTimeBytes = 8;

}  // namespace

uint32_t WitnessKey::id() const {
  std::string bytes = name + '\n' + static_cast<char>(kCosignatureType);
  bytes.append(key.begin(), key.end());
  const kernel::Digest digest = kernel::sha256(bytes.data(), bytes.size());
  return uint32_t{digest[0]} << 24 | uint32_t{digest[1]} << 16 | uint32_t{digest[2]} << 8 |
         digest[3];
}

std::string WitnessKey::text() const {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = name + '+';
  const uint32_t number = id();
  for (int shift = 28; shift >= 0; shift -= 4) out += kHex[number >> shift & 15];
  uint8_t bytes[33] = {kCosignatureType};
  std::copy(key.begin(), key.end(), bytes + 1);
  return out + '+' + base64_encode(bytes, sizeof bytes);
}

Result<WitnessKey> WitnessKey::parse(std::string_view text) {
  const size_t first = text.find('+');
  const size_t second = first == std::string_view::npos ? first : text.find('+', first + 1);
  if (second == std::string_view::npos || text.size() > kMaxNoteBytes)
    return fail("witness key: not of the form name+id+key");
  WitnessKey key;
  key.name = text.substr(0, first);
  if (key.name.empty() || key.name.size() > kMaxKeyNameBytes)
    return fail("witness key: its name is empty or too long");
  CG_TRY(const std::vector<uint8_t> bytes, base64_decode(text.substr(second + 1)));
  if (bytes.size() != 33 || bytes[0] != kCosignatureType)
    return fail("witness key: not an Ed25519 cosignature key (type 4, 32 bytes)");
  std::copy(bytes.begin() + 1, bytes.end(), key.key.begin());
  if (key.text() != text) return fail("witness key: the id is not that of this name and key");
  return key;
}

std::string cosigned_message(std::string_view text, uint64_t time) {
  return "cosignature/v1\ntime " + std::to_string(time) + '\n' + std::string(text);
}

Result<std::vector<Cosignature>> cosignatures(std::string_view note,
                                              const std::vector<WitnessKey>& keys) {
  CG_TRY(const std::vector<SignatureLine> lines, signature_lines(note));
  const std::string_view text = note.substr(0, note.rfind("\n\n") + 1);
  std::vector<Cosignature> found;
  for (const SignatureLine& line : lines) {
    const auto key = std::find_if(keys.begin(), keys.end(), [&](const WitnessKey& one) {
      return one.name == line.name && one.id() == line.id;
    });
    if (key == keys.end()) continue;
    Signature signature;
    if (line.signature.size() != kTimeBytes + signature.size())
      return fail("cosignature of " + key->name + ": not 72 bytes");
    uint64_t time = 0;
    for (size_t i = 0; i < kTimeBytes; ++i) time = time << 8 | line.signature[i];
    std::copy(line.signature.begin() + kTimeBytes, line.signature.end(), signature.begin());
    if (Status valid = verify_ed25519(key->key, cosigned_message(text, time), signature); !valid)
      return fail("cosignature of " + key->name + ": " + valid.error().what);
    found.push_back({key->name, time});
  }
  return found;
}

}  // namespace certgate::agentd
