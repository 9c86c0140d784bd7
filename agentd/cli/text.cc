#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "agentd/cli/verbs.h"
#include "kernel/cbor.h"

namespace certgate::agentd::cli {
namespace {

uint32_t code_point(const uint8_t* at, size_t length) {
  static constexpr uint8_t kFirst[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  uint32_t value = at[0] & kFirst[length];
  for (size_t i = 1; i < length; ++i) value = value << 6 | (at[i] & 0x3Fu);
  return value;
}

// What would move the cursor, hide text or turn its direction: C0, C1, separators, format marks.
bool deceives(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x00AD || c == 0x061C || c == 0x180E ||
         (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) ||
         (c >= 0xE0000 && c <= 0xE0FFF) || (c & 0xFFFE) == 0xFFFE;
}

void append_hex(uint8_t byte, std::string& out) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  out += "\\x";
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

std::string environment(const char* name) {
  const char* value = ::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

std::string escape(const std::string& bytes) {
  std::string out;
  out.reserve(bytes.size());
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = kernel::utf8_length(data + i, bytes.size() - i);
    if (length != 0 && data[i] != '\\' && !deceives(code_point(data + i, length))) {
      out.append(bytes, i, length);
    } else if (data[i] == '\n' || data[i] == '\t') {
      out += data[i] == '\n' ? "\\n" : "\\t";
    } else {
      for (size_t k = 0; k < std::max<size_t>(length, 1); ++k) append_hex(data[i + k], out);
    }
    i += std::max<size_t>(length, 1);
  }
  return out;
}

std::string default_state_dir() {
  const std::string xdg = environment("XDG_STATE_HOME");
  if (xdg.starts_with('/')) return xdg + "/certgate";  // a relative one is to be ignored, says XDG
  if (::geteuid() == 0) return "/var/lib/certgate";
  std::string home = environment("HOME");
  if (!home.starts_with('/')) {
    const passwd* user = ::getpwuid(::geteuid());
    home = user != nullptr && user->pw_dir != nullptr ? user->pw_dir : "";
  }
  return home + "/.local/state/certgate";
}

}  // namespace certgate::agentd::cli
