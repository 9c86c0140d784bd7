#include "supervisor/operator_terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace certgate::supervisor {
namespace {

// A change of modes must not stop us when the foreground has just changed.
class SigttouBlocked {
 public:
  SigttouBlocked() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTTOU);
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~SigttouBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SigttouBlocked(const SigttouBlocked&) = delete;
  SigttouBlocked& operator=(const SigttouBlocked&) = delete;

 private:
  sigset_t before_;
};

bool is_pipe(int fd) {
  struct stat s {};
  return ::fstat(fd, &s) == 0 && (S_ISFIFO(s.st_mode) || S_ISSOCK(s.st_mode));
}

}  // namespace

std::optional<OperatorTerminal> OperatorTerminal::find() {
  OperatorTerminal out;
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (!::isatty(fd)) continue;
    const int access = ::fcntl(fd, F_GETFL) & O_ACCMODE;
    out.streams_ |= 1u << fd;
    if (out.keys_ < 0 && access != O_WRONLY) out.keys_ = fd;
    if ((out.screen_ < 0 || out.screen_ == STDIN_FILENO) && access != O_RDONLY) out.screen_ = fd;
  }
  if (out.streams_ == 0) return std::nullopt;
  // Its own modes are those of any of its descriptors.
  if (out.keys_ < 0) out.keys_ = out.screen_;
  if (::tcgetattr(out.keys_, &out.found_) != 0) return std::nullopt;
  out.in_pipeline_ = is_pipe(STDIN_FILENO) || is_pipe(STDOUT_FILENO);
  return out;
}

bool OperatorTerminal::foreground() const {
  const pid_t group = ::tcgetpgrp(keys_);
  return group < 0 ? errno == ENOTTY : group == ::getpgrp();
}

termios OperatorTerminal::raw_modes() const {
  termios raw = found_;
  ::cfmakeraw(&raw);
  raw.c_cflag = found_.c_cflag;  // a serial line keeps its own
  raw.c_cc[VMIN] = 1;
  raw.c_cc[VTIME] = 0;
  return raw;
}

bool OperatorTerminal::raw() const {
  termios now{};
  const termios raw = raw_modes();
  return ::tcgetattr(keys_, &now) == 0 && now.c_iflag == raw.c_iflag &&
         now.c_oflag == raw.c_oflag && now.c_lflag == raw.c_lflag && now.c_cc[VMIN] == 1 &&
         now.c_cc[VTIME] == 0;
}

bool OperatorTerminal::at_rest() const {
  termios now{};
  constexpr tcflag_t kRest = ICANON | ECHO;
  return ::tcgetattr(keys_, &now) == 0 && (now.c_lflag & kRest) == kRest;
}

void OperatorTerminal::enter_raw() const {
  const SigttouBlocked blocked;
  const termios modes = raw_modes();
  ::tcsetattr(keys_, TCSANOW, &modes);
}

void OperatorTerminal::restore(Pending pending) const {
  const SigttouBlocked blocked;
  if (!foreground() || !raw()) return;
  // Answers to questions that the agent asked the terminal are not for the operator's shell.
  if (pending == Pending::kDrop) ::tcflush(keys_, TCIFLUSH);
  ::tcsetattr(keys_, TCSANOW, &found_);
}

}  // namespace certgate::supervisor
