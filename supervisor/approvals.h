// Approvals: where calls wait for an operator's answer.
//
//   judged = session.judge(info, call, …);          // needs an approval: recorded, sent, `asks`
//   set if (!judged.certificate) trap.decline(trapped, judged);        // then: waits here; else:
//   refused approvals.serve(dispatch);                      // a thread of its own; never returns
//
// The caller waits in the kernel; no thread of ours waits with it. When the answer is there the
// trapped call is handed to `dispatch` as if it had just arrived: decoded from scratch and judged
// with the answer in the session's state. An argument that was changed meanwhile makes another
// digest, which nobody has approved.
//
//   asked → waiting ─ approved, denied, expired ─→ dispatched
//              │  ↑ comes again (within kComesAgain_ns, same thread, same digest)
//              ├→ given back: a signal waits for the caller (looked for every kWatchMs)
//              └→ withdrawn: the caller is dead, or has not come again
// At most kMaxWaiting requests of one agent; beyond it such a call is refused.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/notify.h"
#include "supervisor/operator_line.h"

namespace certgate::supervisor {

class Session;

inline constexpr size_t kMaxWaiting = 64;
inline constexpr int64_t kComesAgain_ns = 2'000'000'000;

// One request that is not answered.
struct Waiting {
  uint64_t seq = 0;
  int tid = 0;
  kernel::Digest digest{};
  kernel::Label label;
  std::string object;
  int64_t deadline_ns = 0;  // CLOCK_BOOTTIME
  int64_t lasts_ns = 0;     // of the whole deadline
  std::optional<sandbox::TrappedCall> call;
  bool answered = false;
  int64_t given_back_ns = 0;  // when, 0 = it was not
};

class Approvals {
 public:
  // `line` as in operator_line.h; `options` is what `certgate approve` needs beside the id.
  Approvals(const sandbox::Listener& listener, Session& session, sandbox::UniqueFd line,
            std::string options);

  // For the session, under its lock. again(): the request of a call that was given back, or 0.
  uint64_t again(int tid, const kernel::Digest& digest, const kernel::Label& label);
  bool full();
  Status add(Waiting waiting, const ApprovalRequest& request);
  const std::string& options() const { return options_; }

  // The call waits from here on. Any thread.
  void attach(const sandbox::TrappedCall& call, uint64_t seq);

  [[noreturn]] void serve(std::function<void(const sandbox::TrappedCall&)> dispatch);

 private:
  void wait_line();
  void wait_timer();
  void look();
  void answered(const ApprovalAnswer& answer);
  void load(const NewPolicy& given);
  void finish(uint64_t seq);
  std::vector<Waiting>::iterator find(uint64_t seq);  // under the lock

  const sandbox::Listener& listener_;
  Session& session_;
  const sandbox::UniqueFd line_;
  const std::string options_;
  std::function<void(const sandbox::TrappedCall&)> dispatch_;  // of the thread in serve()
  boost::asio::io_context io_{1};
  boost::asio::posix::stream_descriptor line_wait_{io_};
  boost::asio::steady_timer timer_{io_};
  bool watching_ = false;  // of the thread in serve()
  std::mutex mutex_;       // guards waiting_; taken after the session's
  std::vector<Waiting> waiting_;
};

}  // namespace certgate::supervisor
