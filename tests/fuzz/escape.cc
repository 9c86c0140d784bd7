// Untrusted bytes on the operator's terminal: nothing moves the cursor, hides text or turns its
// direction, and two different texts never look the same.
#include "agentd/cli/verbs.h"
#include "kernel/cbor.h"
#include "supervisor/report.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

namespace {

uint32_t code_point(std::string_view character) {
  const auto at = [&](size_t i) { return static_cast<uint8_t>(character[i]); };
  if (character.size() == 1) return at(0);
  uint32_t value = at(0) & (0x7fu >> character.size());
  for (size_t i = 1; i < character.size(); ++i) value = value << 6 | (at(i) & 0x3fu);
  return value;
}

void harmless(const std::string& shown) {
  for (size_t i = 0; i < shown.size();) {
    const size_t length = kernel::utf8_length(fuzz::bytes_of(shown) + i, shown.size() - i);
    CG_LAW(length > 0);
    const uint32_t c = code_point(std::string_view(shown).substr(i, length));
    CG_LAW(c >= 0x20 && !(c >= 0x7f && c < 0xa0));           // C0, DEL, C1
    CG_LAW(!(c >= 0x200b && c <= 0x200f) && c != 0x061c);    // invisible, marks of direction
    CG_LAW(!(c >= 0x2028 && c <= 0x202e));                   // separators, embeddings, overrides
    CG_LAW(!(c >= 0x2060 && c <= 0x206f) && c != 0xfeff);    // isolates, fillers
    CG_LAW(!(c >= 0xe0000 && c <= 0xe0fff) && c != 0x00ad);  // tags, soft hyphen
    i += length;
  }
}

int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  CG_LAW(c >= 'A' && c <= 'F');
  return c - 'A' + 10;
}

std::string undo(const std::string& shown) {
  std::string out;
  for (size_t i = 0; i < shown.size(); ++i) {
    if (shown[i] != '\\') {
      out += shown[i];
      continue;
    }
    CG_LAW(i + 1 < shown.size());
    const char kind = shown[++i];
    if (kind == 'n') {
      out += '\n';
    } else if (kind == 't') {
      out += '\t';
    } else if (kind == '\\') {
      out += '\\';
    } else {
      CG_LAW(kind == 'x' && i + 2 < shown.size());
      out += static_cast<char>(hex(shown[i + 1]) << 4 | hex(shown[i + 2]));
      i += 2;
    }
  }
  return out;
}

}  // namespace

FUZZ_TARGET(escape) {
  const std::string bytes = fuzz::Bytes(data, size).rest();
  for (const std::string& shown : {supervisor::escape(bytes), agentd::cli::escape(bytes)}) {
    harmless(shown);
    CG_LAW(undo(shown) == bytes);
    CG_LAW(shown.size() <= 4 * bytes.size());
  }
  kernel::Record record;
  record.verb = 2;
  record.object = bytes;
  record.reason = "FORBIDDEN";
  record.culprit = record.why = bytes;
  record.rule = "r";
  harmless(supervisor::refusal_line(record));
  harmless(supervisor::refusal_json(record));
  return 0;
}
