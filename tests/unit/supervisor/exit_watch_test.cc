#include "supervisor/exit_watch.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <vector>

#include "supervisor/frame.h"
#include "supervisor/process_stat.h"
#include "supervisor/recorder.h"

namespace certgate::supervisor {
namespace {

// A child that ends when it is told to: by exit(status), or by a signal sent to it.
class Child {
 public:
  explicit Child(int status) {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    pid = ::fork();
    if (pid == 0) {
      char byte = 0;
      const ssize_t n = ::read(ends[0], &byte, 1);
      ::_exit(n == 1 ? status : 99);
    }
    ::close(ends[0]);
    go_ = ends[1];
    pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    started = process_stat(pid)->field[kStatStarted];
  }
  ~Child() {
    ::close(go_);
    if (waited_) return;
    ::kill(pid, SIGKILL);
    wait();
  }
  void let_go() const { EXPECT_EQ(::write(go_, "x", 1), 1); }
  void ended() const {
    pollfd one{pidfd.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&one, 1, 5000), 1);
  }
  void wait() {
    waited_ = true;
    ::waitpid(pid, nullptr, 0);
  }

  pid_t pid = -1;
  uint64_t started = 0;
  sandbox::UniqueFd pidfd;

 private:
  int go_ = -1;
  bool waited_ = false;
};

// A file on a real file system: of one in memory alone LogRoom would say that it is full.
sandbox::UniqueFd unnamed_file() {
  char name[] = "/tmp/certgate-segment-XXXXXX";
  sandbox::UniqueFd fd(::mkostemp(name, O_CLOEXEC | O_APPEND));
  ::unlink(name);
  return fd;
}

bool tells_after_wait() {  // Linux 6.15
  Child child(5);
  child.let_go();
  child.ended();
  child.wait();
  return wait_status_of(child.pidfd.get(), child.pid, child.started).has_value();
}

TEST(WaitStatus, IsToldOfWhoIsNotWaitedForYetOnEveryKernel) {
  Child child(3);
  EXPECT_FALSE(wait_status_of(child.pidfd.get(), child.pid, child.started));
  child.let_go();
  child.ended();
  const auto status = wait_status_of(child.pidfd.get(), child.pid, child.started);
  ASSERT_TRUE(status);
  EXPECT_TRUE(WIFEXITED(*status) && WEXITSTATUS(*status) == 3) << *status;
  EXPECT_FALSE(wait_status_of(child.pidfd.get(), child.pid, child.started + 1))
      << "a process of the same pid";
}

TEST(WaitStatus, IsToldByThePidfdWhenSomebodyHasWaited) {
  if (!tells_after_wait()) GTEST_SKIP() << "Linux before 6.15";
  Child child(0);
  ::kill(child.pid, SIGKILL);
  child.ended();
  child.wait();
  const auto status = wait_status_of(child.pidfd.get(), child.pid, child.started);
  ASSERT_TRUE(status);
  EXPECT_TRUE(WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL) << *status;
}

class ExitWatchTest : public testing::Test {
 protected:
  ExitWatchTest() : segment_(unnamed_file()) {
    recorder_.emplace("abcdefgh", "0123456789abcdef",
                      sandbox::UniqueFd(::fcntl(segment_.get(), F_DUPFD_CLOEXEC, 0)), 1);
    watch_.emplace(io_, *recorder_, [this](const std::string& what) { failed_ = what; });
  }
  void run() {
    io_.restart();
    io_.run_for(std::chrono::milliseconds(300));
  }
  std::vector<kernel::Record> records(size_t* largest = nullptr) const {
    std::vector<uint8_t> bytes(1 << 20);
    bytes.resize(static_cast<size_t>(::pread(segment_.get(), bytes.data(), bytes.size(), 0)));
    FrameReader reader(bytes.data(), bytes.size());
    std::vector<kernel::Record> out;
    for (Frame f = reader.next(); f.state == Frame::kOk; f = reader.next()) {
      if (largest != nullptr) *largest = std::max(*largest, f.size);
      out.push_back(*kernel::decode_record(f.data, f.size));
    }
    return out;
  }

  sandbox::UniqueFd segment_;
  boost::asio::io_context io_{1};
  std::optional<Recorder> recorder_;
  std::optional<ExitWatch> watch_;
  std::string failed_;
};

TEST_F(ExitWatchTest, EachProcessHasOneExitThatNamesItsLastExec) {
  Child exits(3), dies(0), lives(0);
  watch_->watch(exits.pid, exits.started, 7);
  watch_->watch(dies.pid, dies.started, 8);
  watch_->watch(exits.pid, exits.started, 9);  // made another exec
  watch_->watch(lives.pid, lives.started, 10);
  run();
  EXPECT_TRUE(records().empty());
  exits.let_go();
  exits.ended();
  run();
  ::kill(dies.pid, SIGKILL);
  dies.ended();
  run();
  size_t largest = 0;
  const auto seen = records(&largest);
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0].kind, kernel::RecordKind::kExit);
  EXPECT_EQ(seen[0].pid, static_cast<uint32_t>(exits.pid));
  EXPECT_EQ(seen[0].started, exits.started);
  EXPECT_EQ(seen[0].exec, 9u);
  EXPECT_EQ(seen[0].count, 1u + (3 << 8));
  EXPECT_EQ(seen[1].exec, 8u);
  EXPECT_EQ(seen[1].count, 1u + SIGKILL);
  EXPECT_LE(largest, 60u);
  EXPECT_EQ(failed_, "");
}

TEST_F(ExitWatchTest, WhoEndsWithTheSandboxIsRecordedAtTheEnd) {
  Child dies(0), lives(0);
  watch_->watch(dies.pid, dies.started, 7);
  watch_->watch(lives.pid, lives.started, 8);
  ::kill(dies.pid, SIGKILL);
  dies.ended();
  watch_->finish();  // the io thread has never come to it
  ASSERT_EQ(records().size(), 1u);
  EXPECT_EQ(records()[0].exec, 7u);
  watch_->finish();
  run();
  EXPECT_EQ(records().size(), 1u);
}

TEST_F(ExitWatchTest, TheNumberIsBoundedAndPlacesAreGivenBack) {
  Child child(0);
  for (size_t i = 0; i < kMaxWatched + 10; ++i) watch_->watch(child.pid, child.started, i + 1);
  watch_->finish();  // one process: all but one descriptor are closed
  Child other(0);
  watch_->watch(other.pid, other.started, 5000);
  other.let_go();
  other.ended();
  watch_->finish();
  ASSERT_EQ(records().size(), 1u);
  EXPECT_EQ(records()[0].exec, 5000u);
}

TEST_F(ExitWatchTest, ALogThatFailsEndsTheAgent) {
  Recorder broken("abcdefgh", "t", sandbox::UniqueFd(::open("/dev/full", O_WRONLY | O_CLOEXEC)), 1);
  ExitWatch watch(io_, broken, [this](const std::string& what) { failed_ = what; });
  Child child(0);
  watch.watch(child.pid, child.started, 7);
  child.let_go();
  child.ended();
  watch.finish();
  EXPECT_NE(failed_, "");
}

}  // namespace
}  // namespace certgate::supervisor
