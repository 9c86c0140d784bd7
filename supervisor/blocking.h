// Blocking work: calls that may wait (a FIFO, a connect) leave the notify thread for one of these.
//
// At most kMaxBlocked run at once; beyond that the caller gets EAGAIN from try_run(). A watcher
// asks every kWatchMs whether each caller is still there, and interrupts the worker's system call
// (EINTR) when it is not, so that a dead caller frees its worker.
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
  explicit BlockingPool(const sandbox::Listener& listener);
  ~BlockingPool();
  // Runs `work` on a worker thread on behalf of notification `id`. False: too many already.
  bool try_run(uint64_t id, std::function<void()> work);

 private:
  struct Job {
    uint64_t id = 0;
    std::function<void()> work;
  };
  void worker();
  void watch();

  const sandbox::Listener& listener_;
  std::mutex mutex_;                      // guards all below
  std::condition_variable wake_, watch_;  // of the workers, of the watcher
  std::deque<Job> queue_;
  std::map<uint64_t, pthread_t> running_;  // notification id → the thread that serves it
  size_t threads_ = 0, idle_ = 0;
  bool stop_ = false;
  std::vector<std::thread> workers_;
  std::thread watcher_;
};

}  // namespace certgate::supervisor
