// Screen state: where in its output the agent is, so that a line of ours can stand between.
//
//   screen.feed(bytes);                          // everything the operator's terminal was sent
//   if (screen.settled()) write(screen.line("certgate: refused …"));
//
// States: ground → escape → control sequence | string (OSC, DCS, …) → ground, and within ground a
// character of several bytes. line() may be called in any state: it cancels what is unfinished,
// since an agent that never finishes must not keep our lines from being seen.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace certgate::supervisor {

class ScreenState {
 public:
  void feed(std::string_view bytes);
  // No sequence and no character is half sent.
  bool settled() const { return state_ == State::kGround && missing_ == 0; }
  // The bytes that show `text` on a line of its own, in plain letters, on a raw terminal.
  std::string line(std::string_view text);

 private:
  enum class State : uint8_t { kGround, kEscape, kIntermediate, kControl, kString };
  void ground(unsigned char c);
  void escape(unsigned char c);

  State state_ = State::kGround;
  int missing_ = 0;           // bytes of the current UTF-8 character still to come
  bool line_start_ = true;    // as far as plain output tells
  bool understands_ = false;  // it has been sent sequences: it knows them, and may be in odd modes
};

}  // namespace certgate::supervisor
