// Note: C2SP signed-note with Ed25519 (type 0x01) and the C2SP tlog-checkpoint inside it.
//
//   CG_TRY(VerifierKey key, VerifierKey::parse("name+33d7b496+AeHT…"));
//   CG_TRY(Checkpoint last, open_checkpoint(note_bytes, key));     // signature, origin, form: all
//   checked use(last.size, last.root);
//
// Bytes of a checkpoint note:
//   certgate.local/k3u7x2qa\n                  origin = name of the log's key
//   15\n                                       size, decimal, no leading zero
//   rKbDip…cs=\n                               root, base64
//   \n
//   — certgate.local/k3u7x2qa M9e0…\n          base64(key id (4 bytes) || Ed25519 over all before
//   the blank line)
// Strict: every byte has one form. No extension lines, canonical base64 only, known limits.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"

namespace certgate::agentd {

inline constexpr size_t kMaxNoteBytes = 8192;
inline constexpr size_t kMaxNoteSignatures = 16;
inline constexpr size_t kMaxKeyNameBytes = 255;

using PublicKey = std::array<uint8_t, 32>;  // raw Ed25519
using Signature = std::array<uint8_t, 64>;

std::string base64_encode(const void* data, size_t size);
// RFC 4648 §4 with padding; refuses white space, missing padding and trailing bits that are not 0.
Result<std::vector<uint8_t>> base64_decode(std::string_view text);

Status verify_ed25519(const PublicKey& key, std::string_view message, const Signature& signature);

// A public key under its name: what checks a note.
struct VerifierKey {
  std::string name;
  PublicKey key{};

  uint32_t id() const;       // first 4 bytes of SHA-256(name || \n || 0x01 || key)
  std::string text() const;  // "name+<id, 8 hex digits>+base64(0x01||key)"
  static Result<VerifierKey> parse(std::string_view text);
};

struct Checkpoint {
  std::string origin;
  uint64_t size = 0;
  kernel::Digest root{};

  std::string text() const;  // the signed part, with its final newline
  static Result<Checkpoint> parse(std::string_view text);
  bool operator==(const Checkpoint&) const = default;
};

// The note of a text and its signature.
std::string note_of(const std::string& text, const VerifierKey& key, const Signature& signature);

// Parses a note and verifies the signature made by `key`; returns the text. Signatures by other
// keys are parsed strictly and otherwise ignored, as signed-note asks; `signatures` (may be null)
// is their number, our own included.
Result<std::string> open_note(std::string_view note, const VerifierKey& key, size_t* signatures);

// The signature lines of a note, strictly parsed, unverified. The views are into `note`.
struct SignatureLine {
  std::string_view name;
  uint32_t id = 0;
  std::vector<uint8_t> signature;
};
Result<std::vector<SignatureLine>> signature_lines(std::string_view note);

// open_note, Checkpoint::parse, and origin == key.name. Refuses signatures by other keys.
Result<Checkpoint> open_checkpoint(std::string_view note, const VerifierKey& key);

}  // namespace certgate::agentd
