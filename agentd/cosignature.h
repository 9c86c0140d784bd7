// Cosignature: a witness's word that it saw a checkpoint, and that it continues all it saw before.
//
//   CG_TRY(WitnessKey key, WitnessKey::parse("witness.test+5b9e…+BJ…"));   // type 0x04
//   CG_TRY(std::vector<Cosignature> seen, cosignatures(note, {key}));      // the valid ones
//
// C2SP tlog-cosignature with Ed25519: key id = first 4 bytes of SHA-256(name || \n || 0x04 || key);
// signature = time (8 bytes, big endian) || Ed25519 over "cosignature/v1\ntime <time>\n" || the
// note's text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agentd/note.h"

namespace certgate::agentd {

struct WitnessKey {
  std::string name;
  PublicKey key{};
  uint32_t id() const;
  std::string text() const;
  static Result<WitnessKey> parse(std::string_view text);
};

struct Cosignature {
  std::string witness;
  uint64_t time = 0;  // seconds since 1970, by the witness's clock
};

std::string cosigned_message(std::string_view text, uint64_t time);
// Those by `keys`; one that names such a key and is not valid is an error. Others are passed over.
Result<std::vector<Cosignature>> cosignatures(std::string_view note,
                                              const std::vector<WitnessKey>& keys);

}  // namespace certgate::agentd
