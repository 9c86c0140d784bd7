// Blocking work: calls that may wait (a FIFO, a connect) leave the notify thread for one of these.
//
//   pool.try_run(call, [=] { ... error = wait_for_it(); if (error == EINTR) error =
//                            BlockingPool::interruption(call.tid); ... });
//
// At most kMaxBlocked run at once; beyond that the caller gets EAGAIN from try_run(). A watcher
// looks every kWatchMs at each caller, and interrupts the worker's system call (EINTR) when the
// caller has died or a signal waits for it: while a notification is pending the caller runs no
// handler (WAIT_KILLABLE), so its call must be given back first.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "sandbox/notify.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxBlocked = 128;
inline constexpr int kWatchMs = 50;

class BlockingPool {
 public:
  // `before`, if any, is called by a worker before each job, and may wait.
  explicit BlockingPool(const sandbox::Listener& listener, std::function<void()> before = {});
  ~BlockingPool();
  // Runs `work` on a worker thread on behalf of `call`. False: too many already.
  bool try_run(const sandbox::TrappedCall& call, std::function<void()> work);
  // What a call that was interrupted answers: the kernel's restart code while a signal waits (it
  // becomes EINTR or another attempt, as the handler was installed), else EINTR.
  static int interruption(int tid);

 private:
  struct Job {
    uint64_t id = 0;
    int tid = 0;
    std::function<void()> work;
  };
  void worker();
  void watch();

  const sandbox::Listener& listener_;
  const std::function<void()> before_;
  std::mutex mutex_;                      // guards all below
  std::condition_variable wake_, watch_, ending_;  // of the workers, of the watcher (a job, the end)
  std::deque<Job> queue_;
  struct Served {
    pthread_t worker;
    int tid = 0;
  };
  std::map<uint64_t, Served> running_;  // by notification id
  size_t threads_ = 0, idle_ = 0;
  bool stop_ = false;
  std::vector<std::thread> workers_;
  std::thread watcher_;
};

}  // namespace certgate::supervisor
