// Signed notes, checkpoints, keys and base64: every byte has one form.
//
// Input: mode byte, then  0 a note   1 a text that is signed here   2 a key   3 base64   4 octets
#include "agentd/note.h"

#include "tests/fuzz/signing.h"

using namespace certgate::agentd;
namespace fuzz = certgate::fuzz;

namespace {

VerifierKey key() { return {"fuzz.test/log", fuzz::TestKey::get().public_key()}; }

void opened(const std::string& note) {
  size_t signatures = 0;
  const auto text = open_note(note, key(), &signatures);
  const auto checkpoint = open_checkpoint(note, key());
  if (!text) {
    CG_LAW(!checkpoint);
    return;
  }
  CG_LAW(note.starts_with(*text + "\n") && note.size() <= kMaxNoteBytes);
  CG_LAW(signatures >= 1 && signatures <= kMaxNoteSignatures);
  if (!checkpoint) return;
  CG_LAW(checkpoint->text() == *text && checkpoint->origin == key().name && signatures == 1);
  CG_LAW(note_of(*text, key(), fuzz::TestKey::get().sign(*text)) == note);
}

void checkpoint_text(const std::string& text) {
  const auto checkpoint = Checkpoint::parse(text);
  if (!checkpoint) return;
  CG_LAW(checkpoint->text() == text);
}

void key_text(const std::string& text) {
  const auto parsed = VerifierKey::parse(text);
  if (!parsed) return;
  CG_LAW(parsed->text() == text && parsed->name.size() <= kMaxKeyNameBytes);
}

void base64(const std::string& text) {
  const auto octets = base64_decode(text);
  if (!octets) return;
  CG_LAW(base64_encode(octets->data(), octets->size()) == text);
}

}  // namespace

FUZZ_TARGET(note) {
  fuzz::Bytes in(data, size);
  const uint8_t mode = in.byte();
  const std::string text = in.rest();
  switch (mode % 5) {
    case 0:
      opened(text);
      break;
    case 1:
      opened(note_of(text, key(), fuzz::TestKey::get().sign(text)));
      checkpoint_text(text);
      break;
    case 2:
      key_text(text);
      break;
    case 3:
      base64(text);
      break;
    default:
      const auto back = base64_decode(base64_encode(text.data(), text.size()));
      CG_LAW(back && std::equal(back->begin(), back->end(), text.begin(), text.end(),
                                [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }));
  }
  return 0;
}
