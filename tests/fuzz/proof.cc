// Proofs, packs and cosignatures that somebody else wrote: strict, and what is accepted has one text.
#include "agentd/proof.h"

#include "agentd/cosignature.h"
#include "agentd/pack.h"
#include "tests/fuzz/signing.h"

using namespace certgate::agentd;
namespace fuzz = certgate::fuzz;

namespace {

VerifierKey key() { return {"fuzz.test/log", fuzz::TestKey::get().public_key()}; }

// The last part of a proof or pack is a checkpoint: signed here, so that what lies behind is reached.
std::string with_signature(const std::string& text) {
  const size_t blank = text.find("\n\n");
  if (blank == std::string::npos) return text;
  const std::string checkpoint = text.substr(blank + 2);
  return text.substr(0, blank + 2) + note_of(checkpoint, key(), fuzz::TestKey::get().sign(checkpoint));
}

void read(const std::string& text) {
  if (const auto proof = TlogProof::parse(text)) {
    CG_LAW(proof->text() == text && proof->path.size() <= kMaxProofHashes);
    (void)proof->check(key(), proof->extra);
  }
  if (const auto proof = ConsistencyProof::parse(text)) {
    CG_LAW(proof->text() == text && proof->path.size() <= kMaxProofHashes);
    (void)proof->check(key(), proof->checkpoint);
  }
  if (const auto pack = check_pack(text, key())) {
    CG_LAW(pack->records > 0 && pack->records <= kMaxPackRecords && !pack->subjects.empty());
  }
  if (const auto witness = WitnessKey::parse(text)) CG_LAW(witness->text() == text);
  (void)cosignatures(text, {WitnessKey{"fuzz.test/witness", key().key}});
}

}  // namespace

FUZZ_TARGET(proof) {
  fuzz::Bytes in(data, size);
  const bool sign = (in.byte() & 1) != 0;
  const std::string text = in.rest();
  read(sign ? with_signature(text) : text);
  return 0;
}
