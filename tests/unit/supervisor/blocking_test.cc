#include "supervisor/blocking.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <fstream>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

namespace certgate::supervisor {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using sandbox::UniqueFd;

// Threads whose getpgrp() stops at a listener of ours: real callers, without a sandbox.
class Callers {
 public:
  explicit Callers(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      std::promise<int> installed;
      std::future<int> result = installed.get_future();
      threads_.emplace_back([installed = std::move(installed)]() mutable {
        const int fd = install();
        installed.set_value(fd);
        if (fd >= 0) ::syscall(SYS_getpgrp);
      });
      const int listener = result.get();
      if (listener < 0) {
        ready_ = false;
        return;
      }
      listeners_.push_back(std::make_unique<sandbox::Listener>(UniqueFd(listener)));
      const auto call = listeners_.back()->receive();
      ready_ = ready_ && call;
      if (call) calls_.push_back(*call);
    }
  }
  ~Callers() {
    for (size_t i = 0; i < calls_.size(); ++i) end(i);
    for (std::thread& t : threads_) t.join();
  }
  bool ready() const { return ready_; }
  const sandbox::Listener& listener(size_t i = 0) const { return *listeners_[i]; }
  const sandbox::TrappedCall& call(size_t i = 0) const { return calls_[i]; }
  // From now on nobody waits for this notification, as when its caller has died.
  void end(size_t i = 0) const { listeners_[i]->answer(calls_[i], 0); }

 private:
  static int install() {
    sock_filter program[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
                             {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_getpgrp},
                             {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF},
                             {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
    const sock_fprog filter{std::size(program), program};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -2;
    // As in a sandbox, so that a signal waits until the call has been answered (Linux 5.19).
    constexpr unsigned long kWaitKillable = 1u << 5;
    const long fd = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                              SECCOMP_FILTER_FLAG_NEW_LISTENER | kWaitKillable, &filter);
    return fd >= 0 ? static_cast<int>(fd) : -2;
  }

  bool ready_ = true;
  std::vector<std::unique_ptr<sandbox::Listener>> listeners_;
  std::vector<sandbox::TrappedCall> calls_;
  std::vector<std::thread> threads_;
};

#define REQUIRE_CALLERS(callers) \
  if (!(callers).ready()) GTEST_SKIP() << "this kernel or its outer filter gives no listener"

class Gate {
 public:
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

bool run(BlockingPool& pool, uint64_t id, std::function<void()> work) {
  sandbox::TrappedCall call;
  call.id = id;
  return pool.try_run(call, std::move(work));
}

// Blocks in a read that never gets a byte. 0, or the errno that ended it.
int read_of_nothing() {
  int ends[2];
  if (::pipe(ends) != 0) return -1;
  const UniqueFd out(ends[0]), in(ends[1]);
  char byte = 0;
  return ::read(out.get(), &byte, 1) < 0 ? errno : 0;
}

bool within(std::chrono::milliseconds patience, const std::function<bool()>& condition) {
  const auto deadline = Clock::now() + patience;
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

TEST(BlockingPool, RunsEveryPieceOfWorkExactlyOnce) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  std::atomic<int> runs = 0;
  {
    BlockingPool pool(callers.listener());
    for (uint64_t id = 1; id <= 1000; ++id) {
      while (!run(pool, id, [&] { ++runs; })) std::this_thread::yield();
    }
    EXPECT_TRUE(within(10s, [&] { return runs == 1000; }));
  }
  EXPECT_EQ(runs, 1000);
}

TEST(BlockingPool, RefusesBeyondItsLimitAndTakesMoreOnceSomeHaveEnded) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  Gate gate;
  std::atomic<size_t> ended = 0;
  BlockingPool pool(callers.listener());
  for (uint64_t id = 1; id <= kMaxBlocked; ++id) {
    ASSERT_TRUE(run(pool, id, [&] {
      gate.wait();
      ++ended;
    })) << id;
  }
  EXPECT_FALSE(run(pool, 9999, [] { FAIL() << "was refused"; }));
  gate.open();
  ASSERT_TRUE(within(10s, [&] { return ended == kMaxBlocked; }));
  std::atomic<bool> ran = false;
  ASSERT_TRUE(within(1s, [&] { return run(pool, 10000, [&] { ran = true; }); }));
  EXPECT_TRUE(within(10s, [&] { return ran.load(); }));
}

TEST(BlockingPool, OneThatWaitsDelaysNoOther) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  Gate gate;
  BlockingPool pool(callers.listener());
  for (uint64_t id = 1; id < kMaxBlocked; ++id) ASSERT_TRUE(run(pool, id, [&] { gate.wait(); }));
  std::atomic<bool> ran = false;
  ASSERT_TRUE(run(pool, 5000, [&] { ran = true; }));
  EXPECT_TRUE(within(10s, [&] { return ran.load(); }));
  gate.open();
}

TEST(BlockingPool, ACallerThatHasGoneFreesItsWorker) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  BlockingPool pool(callers.listener());
  std::atomic<int> ended = -1;
  ASSERT_TRUE(run(pool, callers.call().id, [&] { ended = read_of_nothing(); }));
  std::this_thread::sleep_for(4ms * kWatchMs);
  EXPECT_EQ(ended, -1) << "interrupted although its caller waits";
  callers.end();
  EXPECT_TRUE(within(10s, [&] { return ended != -1; }));
  EXPECT_EQ(ended, EINTR);
}

TEST(BlockingPool, ACallerThatStillWaitsIsNeverInterruptedByTheEndOfAnother) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  BlockingPool pool(callers.listener());
  std::atomic<int> living = -1, dead = -1;
  ASSERT_TRUE(run(pool, callers.call().id, [&] { living = read_of_nothing(); }));
  ASSERT_TRUE(run(pool, 0xdead, [&] { dead = read_of_nothing(); }));  // no such notification
  EXPECT_TRUE(within(10s, [&] { return dead == EINTR; }));
  std::this_thread::sleep_for(2ms * kWatchMs);
  EXPECT_EQ(living, -1);
  callers.end();
  EXPECT_TRUE(within(10s, [&] { return living == EINTR; }));
}

// A signal that comes before the system call is not lost: the watcher asks again.
TEST(BlockingPool, AWorkerThatBlocksLateIsInterruptedToo) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  BlockingPool pool(callers.listener());
  std::atomic<int> ended = -1;
  ASSERT_TRUE(run(pool, 0xdead, [&] {
    const auto until = Clock::now() + 3ms * kWatchMs;
    while (Clock::now() < until) {
    }
    ended = read_of_nothing();
  }));
  EXPECT_TRUE(within(10s, [&] { return ended == EINTR; }));
}

TEST(BlockingPool, ASignalThatWaitsForTheCallerFreesItsWorkerAndIsToBeRestarted) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR2, &action, nullptr), 0);
  BlockingPool pool(callers.listener());
  const sandbox::TrappedCall call = callers.call();
  EXPECT_EQ(BlockingPool::interruption(call.tid), EINTR);
  std::atomic<int> ended = -1, answer = -1;
  ASSERT_TRUE(pool.try_run(call, [&] {
    const int error = read_of_nothing();
    answer = BlockingPool::interruption(call.tid);
    ended = error;
  }));
  std::this_thread::sleep_for(2ms * kWatchMs);
  EXPECT_EQ(ended, -1);
  ASSERT_EQ(::syscall(SYS_tgkill, ::getpid(), call.tid, SIGUSR2), 0);
  EXPECT_TRUE(within(10s, [&] { return ended == EINTR; }));
  EXPECT_EQ(answer, 512);  // ERESTARTSYS
}

// Whether this thread of ours sleeps in a system call.
bool sleeps(int tid) {
  std::ifstream in("/proc/self/task/" + std::to_string(tid) + "/stat");
  std::string text;
  std::getline(in, text);
  const size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.substr(name_end, 3) == ") S";
}

TEST(BlockingPool, ItsEndInterruptsWhatIsStillWaiting) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  std::atomic<int> ended = -1, worker = 0;
  {
    BlockingPool pool(callers.listener());
    ASSERT_TRUE(run(pool, callers.call().id, [&] {
      worker = static_cast<int>(::syscall(SYS_gettid));
      ended = read_of_nothing();
    }));
    ASSERT_TRUE(within(10s, [&] { return worker != 0 && sleeps(worker); }));
  }
  EXPECT_EQ(ended, EINTR);
}

TEST(BlockingPool, ItsEndDoesNotWaitForAWorkerThatBlocksOnlyThen) {
  const Callers callers(1);
  REQUIRE_CALLERS(callers);
  std::atomic<int> ended = -1;
  std::atomic<bool> running = false;
  Gate gate;
  std::thread opener;
  {
    BlockingPool pool(callers.listener());
    ASSERT_TRUE(run(pool, callers.call().id, [&] {
      running = true;
      gate.wait();
      ended = read_of_nothing();
    }));
    ASSERT_TRUE(within(10s, [&] { return running.load(); }));
    opener = std::thread([&] {
      std::this_thread::sleep_for(100ms);  // the pool is ending by now
      gate.open();
    });
  }
  opener.join();
  EXPECT_EQ(ended, EINTR);
}

}  // namespace
}  // namespace certgate::supervisor
