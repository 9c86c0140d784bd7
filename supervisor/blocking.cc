#include "supervisor/blocking.h"

#include <signal.h>

#include <cerrno>
#include <chrono>
#include <utility>

#include "kernel/mutant.h"
#include "sandbox/remote.h"

namespace certgate::supervisor {
namespace {

// Only there to make a blocked system call of a worker return EINTR.
void on_interrupt(int) {}

constexpr int kRestart = 512;  // ERESTARTSYS: right only while a signal waits for the caller

}  // namespace

BlockingPool::BlockingPool(const sandbox::Listener& listener, std::function<void()> before)
    : listener_(listener), before_(std::move(before)) {
  struct sigaction action {};
  action.sa_handler = on_interrupt;  // without SA_RESTART
  ::sigaction(SIGUSR1, &action, nullptr);
  watcher_ = std::thread([this] { watch(); });
}

BlockingPool::~BlockingPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    for (const auto& [id, served] : running_) ::pthread_kill(served.worker, SIGUSR1);
  }
  wake_.notify_all();
  watch_.notify_all();
  ending_.notify_all();
  for (std::thread& t : workers_) t.join();
  watcher_.join();
}

bool BlockingPool::try_run(const sandbox::TrappedCall& call, std::function<void()> work) {
  if (mutant(Mutant::kBlocking)) return work(), true;
  const std::lock_guard lock(mutex_);
  if (queue_.size() + running_.size() >= kMaxBlocked) return false;
  queue_.push_back({call.id, call.tid, std::move(work)});
  if (idle_ < queue_.size() && threads_ < kMaxBlocked) {
    ++threads_;
    workers_.emplace_back([this] { worker(); });
  }
  wake_.notify_one();
  return true;
}

int BlockingPool::interruption(int tid) { return sandbox::signal_waits(tid) ? kRestart : EINTR; }

void BlockingPool::worker() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    --idle_;
    if (stop_) return;
    Job job = std::move(queue_.front());
    queue_.pop_front();
    running_[job.id] = {::pthread_self(), job.tid};
    watch_.notify_one();
    lock.unlock();
    if (before_) before_();
    job.work();
    job.work = nullptr;
    lock.lock();
    running_.erase(job.id);
  }
}

void BlockingPool::watch() {
  std::unique_lock lock(mutex_);
  // Also at the end: a worker may be on its way into the system call that would block it.
  while (!stop_ || !running_.empty()) {
    if (running_.empty()) {
      watch_.wait(lock);
      continue;
    }
    // Not woken by each new job: only by the end, or when the time is up.
    if (stop_) {
      ending_.wait_for(lock, std::chrono::milliseconds(1));
    } else {
      ending_.wait_for(lock, std::chrono::milliseconds(kWatchMs), [this] { return stop_; });
    }
    for (const auto& [id, served] : running_) {
      if (stop_ || !listener_.valid(id) || sandbox::signal_waits(served.tid))
        ::pthread_kill(served.worker, SIGUSR1);
    }
  }
}

}  // namespace certgate::supervisor
