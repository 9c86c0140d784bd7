#include "supervisor/approvals.h"

#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "sandbox/remote.h"
#include "supervisor/blocking.h"
#include "supervisor/recorded_policy.h"
#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

int64_t boot_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

}  // namespace

Approvals::Approvals(const sandbox::Listener& listener, Session& session, sandbox::UniqueFd line,
                     std::string options)
    : listener_(listener),
      session_(session),
      line_(std::move(line)),
      options_(std::move(options)) {}

std::vector<Waiting>::iterator Approvals::find(uint64_t seq) {
  return std::find_if(waiting_.begin(), waiting_.end(),
                      [seq](const Waiting& one) { return one.seq == seq; });
}

uint64_t Approvals::again(int tid, const kernel::Digest& digest, const kernel::Label& label) {
  const std::lock_guard lock(mutex_);
  for (Waiting& one : waiting_) {
    if (one.given_back_ns == 0 || one.tid != tid || one.digest != digest ||
        !one.label.covers(label))
      continue;
    one.given_back_ns = 0;
    return one.seq;
  }
  return 0;
}

bool Approvals::full() {
  const std::lock_guard lock(mutex_);
  return waiting_.size() >= kMaxWaiting;
}

Status Approvals::add(Waiting waiting, const ApprovalRequest& request) {
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(waiting));
  }
  // Entered before it is sent: the answer may come at once.
  Status sent = send_request(line_.get(), request.encode());
  if (sent) return sent;
  const std::lock_guard lock(mutex_);
  if (const auto at = find(request.seq); at != waiting_.end()) waiting_.erase(at);
  return sent;
}

void Approvals::attach(const sandbox::TrappedCall& call, uint64_t seq) {
  {
    const std::lock_guard lock(mutex_);
    const auto at = find(seq);
    if (at != waiting_.end() && !at->answered) {
      at->call = call;
      asio::post(io_, [this] {
        if (!std::exchange(watching_, true)) wait_timer();
      });
      return;
    }
    if (at != waiting_.end()) waiting_.erase(at);
  }
  asio::post(io_, [this, call] { dispatch_(call); });  // answered before it could wait
}

void Approvals::serve(std::function<void(const sandbox::TrappedCall&)> dispatch) {
  dispatch_ = std::move(dispatch);
  line_wait_.assign(::fcntl(line_.get(), F_DUPFD_CLOEXEC, 0));
  const auto work = asio::make_work_guard(io_);
  wait_line();
  for (;;) io_.run();
}

// A policy that is none, or does not fit this run, leaves the old one in force.
void Approvals::load(const NewPolicy& given) {
  PolicyOutcome outcome;
  auto policy = read_recorded_policy(given.body);
  const Result<int64_t> waited =
      policy ? session_.reload(*std::move(policy)) : Result<int64_t>(policy.error());
  outcome.what = waited ? PolicyOutcome::What::kTaken : PolicyOutcome::What::kLeft;
  outcome.text = waited ? std::to_string(*waited / 1000) : waited.error().what;
  // An operator who is not told asks the log.
  (void)send_outcome(line_.get(), outcome);
}

void Approvals::wait_line() {
  line_wait_.async_wait(asio::posix::stream_descriptor::wait_read, [this](error_code e) {
    if (e) return;
    const auto answer = receive_answer(line_.get());
    if (answer && std::holds_alternative<NewPolicy>(*answer)) {
      load(std::get<NewPolicy>(*answer));
    } else if (answer) {
      answered(std::get<ApprovalAnswer>(*answer));
    } else if (answer.error().code == ECONNRESET) {
      return;  // the authority is gone, and so are we
    } else if (answer.error().code != EAGAIN) {
      return session_.fatal(answer.error().what);
    }
    wait_line();
  });
}

void Approvals::answered(const ApprovalAnswer& answer) {
  Waiting one;
  {
    const std::lock_guard lock(mutex_);
    const auto at = find(answer.seq);
    if (at == waiting_.end() || at->answered) return;  // over meanwhile
    one = *at;
  }
  session_.answered(one, answer);
  finish(answer.seq);
}

// The answer is in the session's state: the call goes on.
void Approvals::finish(uint64_t seq) {
  std::optional<sandbox::TrappedCall> call;
  {
    const std::lock_guard lock(mutex_);
    const auto at = find(seq);
    if (at == waiting_.end()) return;
    call = at->call;
    at->answered = true;
    // Neither here nor given back: its handler is about to attach it.
    if (call || at->given_back_ns != 0) waiting_.erase(at);
  }
  if (call) dispatch_(*call);
}

void Approvals::wait_timer() {
  timer_.expires_after(std::chrono::milliseconds(kWatchMs));
  timer_.async_wait([this](error_code e) {
    if (e) return;
    look();
    {
      const std::lock_guard lock(mutex_);
      watching_ = !waiting_.empty();
    }
    if (watching_) wait_timer();
  });
}

void Approvals::look() {
  std::vector<Waiting> all;
  {
    const std::lock_guard lock(mutex_);
    all = waiting_;
  }
  const int64_t now = boot_ns();
  for (const Waiting& one : all) {
    if (one.answered) continue;
    const bool dead = one.call && !listener_.valid(one.call->id);
    const bool gone = one.given_back_ns != 0 && now - one.given_back_ns > kComesAgain_ns;
    if (dead || gone) {
      {
        const std::lock_guard lock(mutex_);
        const auto at = find(one.seq);
        // It may have come again just now.
        if (at == waiting_.end() || at->given_back_ns != one.given_back_ns) continue;
        waiting_.erase(at);
      }
      session_.withdrawn(one);
      (void)send_over(line_.get(), one.seq);  // the authority also knows the deadline
    } else if (now >= one.deadline_ns) {
      session_.answered(one, {one.seq, kernel::Approval::Answer::kExpired, "", ""});
      (void)send_over(line_.get(), one.seq);
      finish(one.seq);
    } else if (one.call && sandbox::signal_waits(one.tid)) {
      {
        const std::lock_guard lock(mutex_);
        const auto at = find(one.seq);
        if (at == waiting_.end()) continue;
        at->call.reset();
        at->given_back_ns = now;
      }
      listener_.refuse(one.call->id, BlockingPool::interruption(one.tid));
    }
  }
}

}  // namespace certgate::supervisor
