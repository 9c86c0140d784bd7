#include "supervisor/screen_state.h"

namespace certgate::supervisor {
namespace {

constexpr unsigned char kBell = 0x07, kShiftOut = 0x0e, kCancel = 0x18, kSubstitute = 0x1a,
                        kEscape = 0x1b;
constexpr const char* kCancelText = "\x18";
// ASCII in G0 and in use, no attributes (hidden text is one).
constexpr const char* kPlainLetters = "\x1b(B\x0f\x1b[m";

int continuation_bytes(unsigned char c) {
  return c >= 0xc2 && c <= 0xdf ? 1 : c >= 0xe0 && c <= 0xef ? 2 : c >= 0xf0 && c <= 0xf4 ? 3 : 0;
}

}  // namespace

void ScreenState::ground(unsigned char c) {
  const bool continues = (c & 0xc0) == 0x80;
  missing_ = continues && missing_ > 0 ? missing_ - 1 : continuation_bytes(c);
  if (c == kShiftOut) understands_ = true;
  if (c == '\n')
    line_start_ = true;
  else if (c >= 0x20)
    line_start_ = false;
}

void ScreenState::escape(unsigned char c) {
  if (c == '[')
    state_ = State::kControl;
  else if (c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_')
    state_ = State::kString;
  else
    state_ = c >= 0x20 && c < 0x30 ? State::kIntermediate : State::kGround;
}

void ScreenState::feed(std::string_view bytes) {
  for (const char byte : bytes) {
    const auto c = static_cast<unsigned char>(byte);
    if (c == kEscape) {  // also the start of the ST that ends a string: ESC \ falls to ground
      state_ = State::kEscape;
      missing_ = 0;
      understands_ = true;
      continue;
    }
    if (c == kCancel || c == kSubstitute) {
      state_ = State::kGround;
      continue;
    }
    switch (state_) {
      case State::kGround:
        ground(c);
        break;
      case State::kEscape:
        escape(c);
        break;
      case State::kIntermediate:
        if (c >= 0x30) state_ = State::kGround;
        break;
      case State::kControl:
        if (c >= 0x40) state_ = State::kGround;
        break;
      case State::kString:
        if (c == kBell) state_ = State::kGround;
        break;
    }
  }
}

std::string ScreenState::line(std::string_view text) {
  std::string out;
  if (state_ != State::kGround) out += kCancelText;
  if (understands_) out += kPlainLetters;
  if (!line_start_) out += "\r\n";
  out += text;
  out += "\r\n";
  state_ = State::kGround;
  missing_ = 0;
  line_start_ = true;
  return out;
}

}  // namespace certgate::supervisor
