// Restarts: no effect twice when the kernel starts a call anew.
//
//   if (!answered) restarts.keep(call, value, {}, 0);      // its caller runs a signal handler now
//   if (auto kept = restarts.take(next)) …                 // the same call again: the same answer
//
// Where a signal handler may interrupt a call that is being served (a kernel without
// WAIT_KILLABLE_RECV), the effect can be there while its answer finds no caller, and the kernel, or
// the program after EINTR, makes the same call again. Worse, an answer can be accepted and still be
// lost, when the signal came just before it. Kept, for calls that cannot be repeated (mkdir can
// not, chmod can): thread (number and start time), call number, arguments and what they point to,
// the answer. Only for threads that live on; at most kMaxKept, each for kKeepMs, or, where the
// answer may have arrived, until the thread's next call: a program that has handlers and makes the
// very same call twice in a row is then told the first answer twice.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include "sandbox/fd.h"

namespace certgate::sandbox {

inline constexpr size_t kMaxKept = 256;
inline constexpr int kKeepMs = 5000;

struct TrappedCall {
  uint64_t id = 0;
  int tid = 0;  // thread id in our pid namespace
  int nr = 0;
  uint64_t args[6] = {};
};

// Of the answer that is kept: its caller did not get it, or perhaps did.
enum class Arrival : uint8_t { kLost, kPerhaps };

struct KeptAnswer {
  Arrival arrival = Arrival::kLost;
  int64_t value = 0;
  UniqueFd fd;  // when not empty: to be installed, and its number is the value
  uint32_t fd_flags = 0;
};

// Thread-safe.
class Restarts {
 public:
  // False: the caller has died, or the call can be repeated; nothing is kept.
  bool keep(const TrappedCall& call, KeptAnswer answer);
  // What the same thread's same call was to be answered; nullopt (one relaxed load) mostly. Every
  // call that arrives must be shown.
  std::optional<KeptAnswer> take(const TrappedCall& call);

 private:
  struct Kept {
    TrappedCall call;
    uint64_t started = 0;  // clock ticks since boot, of the thread
    std::string content;   // what the arguments point to
    std::chrono::steady_clock::time_point until;
    KeptAnswer answer;
  };
  void drop_old();

  std::atomic<size_t> count_ = 0;  // of kept_
  std::mutex mutex_;               // guards all below
  std::deque<Kept> kept_;          // oldest first
};

}  // namespace certgate::sandbox
