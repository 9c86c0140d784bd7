// Operator's terminal: which one it is, and its modes, as found ⇄ raw.
//
//   const auto terminal = OperatorTerminal::find();      // any of stdin, stdout, stderr
//   if (terminal && terminal->foreground()) terminal->enter_raw();
//   ...
//   terminal->restore(OperatorTerminal::Pending::kDrop);
//
// No state but what find() saw: several processes with the same descriptors each have one, and any
// of them can give the terminal back. A process that has the terminal in raw mode is told from one
// that has not by the modes themselves.
#pragma once

#include <termios.h>

#include <cstdint>
#include <optional>

namespace certgate::supervisor {

// The terminal behind stdin, stdout or stderr, and how it was found. Copies share nothing but the
// descriptors, which stay the process's own.
class OperatorTerminal {
 public:
  static std::optional<OperatorTerminal> find();

  unsigned streams() const { return streams_; }  // bit N: descriptor N is a terminal
  int keys() const { return keys_; }             // where keys come from
  int screen() const { return screen_; }         // where output goes
  bool in_pipeline() const { return in_pipeline_; }
  const termios& found() const { return found_; }

  bool foreground() const;  // true also where there is no job control
  bool raw() const;         // as enter_raw() leaves it
  bool at_rest() const;     // lines and echo: nobody is using it in a way of his own
  void enter_raw() const;
  // Back to how it was found; only if it still is as enter_raw() left it, and in the foreground.
  // May be called by any process that has the descriptors, also after the death of the one that
  // changed the modes.
  enum class Pending : uint8_t { kKeep, kDrop };  // keys typed and not read
  void restore(Pending pending) const;

 private:
  termios raw_modes() const;

  unsigned streams_ = 0;
  int keys_ = -1, screen_ = -1;
  bool in_pipeline_ = false;
  termios found_{};
};

}  // namespace certgate::supervisor
