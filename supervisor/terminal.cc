#include "supervisor/terminal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "supervisor/path_walk.h"
#include "supervisor/report.h"
#include "supervisor/screen_state.h"

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using sandbox::UniqueFd;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kChunk = 4096;             // what a pty holds for its reader
constexpr size_t kMaxLines = 256;           // of ours, waiting to be shown; the log has every one
constexpr int kLookAgainMs = 100;           // at what nobody announces: foreground, the pty's modes
constexpr int kReopenedMs = 20;             // every slave is closed; one may be opened again
constexpr milliseconds kLinePatience{200};  // for the end of a sequence of the agent
constexpr milliseconds kStall{5000};        // of the screen, after the agent has ended
constexpr milliseconds kGrace{2000};        // for the agent to end after its SIGHUP
constexpr int kWatchedSignals[] = {SIGWINCH, SIGTSTP, SIGCONT};

// Waits for one of two descriptors; the second one means "stop". Revents of the first, 0 when there
// is nothing, -1 to stop.
int wait_for(int fd, short events, int stop, int timeout_ms) {
  pollfd watched[] = {{fd, events, 0}, {stop, POLLIN, 0}};
  if (::poll(watched, 2, timeout_ms) < 0) return 0;
  return watched[1].revents != 0 ? -1 : watched[0].revents;
}

}  // namespace

bool AgentTerminal::is(const ObjectFacts& facts) const {
  return ino != 0 && facts.dev == dev && facts.identity.ino == ino;
}

// What the two threads and the io thread share.
struct TerminalPump::Shared {
  enum class Keys : uint8_t { kNone, kLines, kRaw };

  explicit Shared(const OperatorTerminal& terminal) : tty(terminal) {}

  std::shared_ptr<UniqueFd> pty() {
    const std::lock_guard lock(mutex);
    return master;
  }
  Keys settle();
  void copy_size();
  void hang_up();
  bool add_line(const std::string& line);
  bool write_pty(int pty, std::string_view bytes);
  bool write_screen(std::string_view bytes);
  void show_lines(ScreenState& screen);
  int line_wait_ms();
  bool agent_draws();
  bool show_some(int pty, ScreenState& screen);
  void carry_keys();
  void carry_output();

  const OperatorTerminal tty;
  UniqueFd stop;  // an eventfd that becomes readable for good
  UniqueFd wake;  // the output thread: a line, or draining
  std::atomic<bool> draining{false};
  std::atomic<uint64_t> written{0};  // to the screen

  std::mutex mutex;  // guards all below
  std::shared_ptr<UniqueFd> master;
  bool keys_wanted = false, suspended = false, drained = false;
  std::condition_variable moved;  // `written` or `drained` has changed
  std::deque<std::string> lines;
  size_t lines_left_out = 0;
  Clock::time_point first_line;
  std::function<void()> on_hang_up;
};

// Puts the operator's terminal into the mode that fits now, and says how keys may be read.
TerminalPump::Shared::Keys TerminalPump::Shared::settle() {
  const std::lock_guard lock(mutex);
  if (!master || suspended || drained || !keys_wanted || !tty.foreground()) return Keys::kNone;
  termios inner{};
  const bool agent_raw = ::tcgetattr(master->get(), &inner) == 0 && (inner.c_lflag & ICANON) == 0;
  if (tty.in_pipeline() && !agent_raw) {
    tty.restore(OperatorTerminal::Pending::kKeep);
    return tty.at_rest() ? Keys::kLines : Keys::kNone;
  }
  if (tty.raw()) return Keys::kRaw;
  if (tty.in_pipeline() && !tty.at_rest()) return Keys::kNone;
  tty.enter_raw();
  return tty.raw() ? Keys::kRaw : Keys::kNone;
}

void TerminalPump::Shared::copy_size() {
  winsize size{};
  const auto pty_now = pty();
  if (pty_now && ::ioctl(tty.keys(), TIOCGWINSZ, &size) == 0)
    ::ioctl(pty_now->get(), TIOCSWINSZ, &size);
}

void TerminalPump::Shared::hang_up() {
  std::function<void()> tell;
  {
    const std::lock_guard lock(mutex);
    if (!master) return;
    master.reset();  // the threads hold it until they have seen `stop`
    tell = std::move(on_hang_up);
  }
  ::eventfd_write(stop.get(), 1);
  if (tell) tell();
}

bool TerminalPump::Shared::add_line(const std::string& line) {
  {
    const std::lock_guard lock(mutex);
    if (drained || !master) return false;
    if (lines.empty()) first_line = Clock::now();
    if (lines.size() < kMaxLines)
      lines.push_back(line);
    else
      ++lines_left_out;
  }
  ::eventfd_write(wake.get(), 1);
  return true;
}

bool TerminalPump::Shared::write_pty(int pty, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(pty, bytes.data(), bytes.size());
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      return false;
    } else if (wait_for(pty, POLLOUT, stop.get(), kLookAgainMs) < 0) {
      return false;
    }
  }
  return true;
}

// False when the terminal takes nothing any more.
bool TerminalPump::Shared::write_screen(std::string_view bytes) {
  if (tty.screen() < 0) return true;  // a terminal that was opened for reading only
  while (!bytes.empty()) {
    const ssize_t n = ::write(tty.screen(), bytes.data(), bytes.size());
    if (n > 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
      written += static_cast<uint64_t>(n);
      moved.notify_all();
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
      return false;
    } else if (wait_for(tty.screen(), POLLOUT, stop.get(), kLookAgainMs) < 0) {
      return false;
    }
  }
  return true;
}

void TerminalPump::Shared::show_lines(ScreenState& screen) {
  std::string text;
  const bool busy = !draining && agent_draws();
  {
    const std::lock_guard lock(mutex);
    const bool patient = Clock::now() - first_line < kLinePatience && !draining;
    if (lines.empty() || busy || (patient && !screen.settled())) return;
    for (const std::string& line : lines) text += screen.line(line);
    if (lines_left_out > 0) {
      text += screen.line("certgate: " + std::to_string(lines_left_out) +
                          " further lines are not shown; see: certgate audit list");
    }
    lines.clear();
    lines_left_out = 0;
  }
  write_screen(text);
}

// A full-screen program, or one that edits a line, redraws only what it thinks has changed.
bool TerminalPump::Shared::agent_draws() {
  const auto pty_now = pty();
  termios inner{};
  return pty_now && ::tcgetattr(pty_now->get(), &inner) == 0 &&
         (inner.c_lflag & (ICANON | ECHO)) == 0;
}

int TerminalPump::Shared::line_wait_ms() {
  const std::lock_guard lock(mutex);
  return lines.empty() ? -1 : kLookAgainMs;
}

// Carries one piece of the agent's output. False at the end.
bool TerminalPump::Shared::show_some(int pty, ScreenState& screen) {
  std::array<char, kChunk> buffer;
  const ssize_t n = ::read(pty, buffer.data(), buffer.size());
  if (n > 0) {
    const std::string_view bytes(buffer.data(), static_cast<size_t>(n));
    screen.feed(bytes);
    if (write_screen(bytes)) return true;
    hang_up();
    return false;
  }
  if (n < 0 && errno == EINTR) return true;
  // Nothing there (EAGAIN), or every slave closed (EIO): with the agent dead, that is all.
  if (draining) return false;
  if (n < 0 && errno == EAGAIN) return true;
  return wait_for(-1, 0, stop.get(), kReopenedMs) >= 0;
}

void TerminalPump::Shared::carry_output() {
  const auto held = pty();
  ScreenState screen;
  while (held) {
    if (!draining) show_lines(screen);
    pollfd watched[] = {{held->get(), POLLIN, 0}, {wake.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
    if (::poll(watched, 3, draining ? 0 : line_wait_ms()) < 0) continue;
    if (watched[2].revents != 0) break;
    eventfd_t ignored = 0;
    if (watched[1].revents != 0) ::eventfd_read(wake.get(), &ignored);
    if (watched[0].revents == 0 && !draining) continue;
    if (!show_some(held->get(), screen)) break;
  }
  show_lines(screen);
  const std::lock_guard lock(mutex);
  drained = true;
  moved.notify_all();
}

void TerminalPump::Shared::carry_keys() {
  const auto held = pty();
  std::array<char, kChunk> buffer;
  while (held) {
    const Keys keys = settle();
    const int fd = keys == Keys::kNone ? -1 : tty.keys();
    const int seen = wait_for(fd, POLLIN, stop.get(), kLookAgainMs);
    if (seen < 0) return;
    if ((seen & (POLLHUP | POLLERR)) != 0) return hang_up();
    // Someone may have come to use the terminal while we waited.
    if (seen == 0 || settle() != keys) continue;
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0) continue;  // EIO: in the background by now
    std::string bytes(buffer.data(), static_cast<size_t>(n));
    termios inner{};
    // An end of input, or of a line without a newline, was a key too.
    if (keys == Keys::kLines && (n == 0 || bytes.back() != '\n') &&
        ::tcgetattr(held->get(), &inner) == 0) {
      bytes += static_cast<char>(inner.c_cc[VEOF]);
    }
    if (!write_pty(held->get(), bytes)) return;
  }
}

struct TerminalPump::Watch {
  Watch(asio::io_context& context, std::shared_ptr<Shared> shared_state, UniqueFd signal_fd)
      : io(context), shared(std::move(shared_state)), signals(context), grace(context) {
    signals.assign(signal_fd.release());
  }

  void next() {
    signals.async_wait(asio::posix::stream_descriptor::wait_read, [this](error_code error) {
      if (error) return;
      signalfd_siginfo info{};
      while (::read(signals.native_handle(), &info, sizeof info) == sizeof info)
        on_signal(static_cast<int>(info.ssi_signo));
      next();
    });
  }

  void on_signal(int signal) {
    if (signal == SIGTSTP) suspend();
    if (signal == SIGCONT) {
      {
        const std::lock_guard lock(shared->mutex);
        shared->suspended = false;
      }
      shared->settle();
    }
    shared->copy_size();
  }

  // Somebody stops us as a job: the terminal is given back first.
  void suspend() {
    {
      const std::lock_guard lock(shared->mutex);
      shared->suspended = true;
      shared->tty.restore(OperatorTerminal::Pending::kKeep);
    }
    ::kill(::getpid(), SIGSTOP);
  }

  asio::io_context& io;
  const std::shared_ptr<Shared> shared;
  asio::posix::stream_descriptor signals;
  asio::steady_timer grace;
};

TerminalPump::TerminalPump(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

Result<std::unique_ptr<TerminalPump>> TerminalPump::make(asio::io_context& io,
                                                         const OperatorTerminal& terminal,
                                                         UniqueFd master,
                                                         std::function<void()> end_agent) {
  auto shared = std::make_shared<Shared>(terminal);
  shared->keys_wanted = (terminal.streams() & (1u << STDIN_FILENO)) != 0;
  shared->stop.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  shared->wake.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!shared->stop || !shared->wake) return fail_errno("private terminal: eventfd", errno);
  termios modes = terminal.found();
  // Lines that are read as such have been echoed by the operator's own terminal.
  if (terminal.in_pipeline()) modes.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  if (::tcsetattr(master.get(), TCSANOW, &modes) != 0 ||
      ::fcntl(master.get(), F_SETFL, O_RDWR | O_NONBLOCK) != 0) {
    return fail_errno("private terminal: set its modes", errno);
  }
  shared->master = std::make_shared<UniqueFd>(std::move(master));
  shared->copy_size();

  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kWatchedSignals) sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGTTIN, SIG_IGN);  // reading in the background fails instead of stopping every call
  ::signal(SIGTTOU, SIG_IGN);
  UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return fail_errno("private terminal: signalfd", errno);
  std::unique_ptr<TerminalPump> out(new TerminalPump(shared));
  out->watch_ = std::make_unique<Watch>(io, shared, std::move(signals));
  shared->on_hang_up = [watch = out->watch_.get(), end_agent = std::move(end_agent)] {
    asio::post(watch->io, [watch, end_agent] {
      watch->grace.expires_after(kGrace);
      watch->grace.async_wait([end_agent](error_code error) {
        if (!error) end_agent();
      });
    });
  };
  return out;
}

TerminalPump::~TerminalPump() {
  set_line_sink({});
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->on_hang_up = {};
    shared_->drained = true;
    shared_->tty.restore(OperatorTerminal::Pending::kDrop);
  }
  ::eventfd_write(shared_->stop.get(), 1);
}

Result<AgentTerminal> TerminalPump::inside(int root) const {
  int number = -1;
  struct stat s {};
  if (::ioctl(shared_->master->get(), TIOCGPTN, &number) != 0 ||
      ::fstatat(root, ("dev/pts/" + std::to_string(number)).c_str(), &s, AT_SYMLINK_NOFOLLOW) !=
          0) {
    return fail_errno("find the private terminal", errno);
  }
  return AgentTerminal{s.st_dev, s.st_ino, [shared = shared_] {
                         const std::lock_guard lock(shared->mutex);
                         shared->keys_wanted = true;
                       }};
}

void TerminalPump::start() {
  if ((shared_->tty.streams() & (1u << STDERR_FILENO)) != 0) {
    set_line_sink([shared = shared_](const std::string& line) { return shared->add_line(line); });
  }
  watch_->next();
  shared_->settle();
  // They end with the process: a write to the operator's terminal cannot be called off.
  std::thread([shared = shared_] { shared->carry_output(); }).detach();
  std::thread([shared = shared_] { shared->carry_keys(); }).detach();
}

void TerminalPump::hang_up() { shared_->hang_up(); }

void TerminalPump::finish() {
  shared_->draining = true;
  ::eventfd_write(shared_->wake.get(), 1);
  {
    std::unique_lock lock(shared_->mutex);
    for (uint64_t before = 0;;) {
      before = shared_->written;
      const bool moves = shared_->moved.wait_for(
          lock, kStall, [&] { return shared_->drained || shared_->written != before; });
      if (shared_->drained || !moves) break;
    }
    shared_->drained = true;
    shared_->tty.restore(OperatorTerminal::Pending::kDrop);
  }
  set_line_sink({});
  ::eventfd_write(shared_->stop.get(), 1);
}

}  // namespace certgate::supervisor
