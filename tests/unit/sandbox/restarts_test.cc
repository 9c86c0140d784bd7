#include "sandbox/restarts.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <thread>

namespace certgate::sandbox {
namespace {

// This thread stands for the agent's: its memory can be read, and it has a handler.
class RestartsTest : public testing::Test {
 protected:
  RestartsTest() {
    ::signal(SIGUSR2, [](int) {});
  }
  ~RestartsTest() override { ::signal(SIGUSR2, SIG_DFL); }

  TrappedCall mkdir_call() {
    TrappedCall call;
    call.id = next_id_++;
    call.tid = ::gettid();
    call.nr = SYS_mkdir;
    call.args[0] = reinterpret_cast<uint64_t>(path_);  // NOLINT: what a register holds
    call.args[1] = 0755;
    return call;
  }

  char path_[64] = "some/directory";
  uint64_t next_id_ = 1;
  Restarts restarts_;
};

TEST_F(RestartsTest, AnAnswerIsKeptForTheSameCallOnce) {
  EXPECT_FALSE(restarts_.take(mkdir_call()));
  ASSERT_TRUE(restarts_.keep(mkdir_call(), {Arrival::kLost, 7, {}, 0}));
  const auto kept = restarts_.take(mkdir_call());
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->value, 7);
  EXPECT_FALSE(restarts_.take(mkdir_call()));
}

TEST_F(RestartsTest, AnotherContentBehindTheSameRegistersIsAnotherCall) {
  ASSERT_TRUE(restarts_.keep(mkdir_call(), {Arrival::kLost, 0, {}, 0}));
  std::strcpy(path_, "other/directory");
  EXPECT_FALSE(restarts_.take(mkdir_call()));
}

TEST_F(RestartsTest, OtherRegistersAreAnotherCall) {
  ASSERT_TRUE(restarts_.keep(mkdir_call(), {Arrival::kLost, 0, {}, 0}));
  TrappedCall other = mkdir_call();
  other.args[1] = 0700;
  EXPECT_FALSE(restarts_.take(other));
  other = mkdir_call();
  other.nr = SYS_rmdir;
  EXPECT_FALSE(restarts_.take(other));
  EXPECT_TRUE(restarts_.take(mkdir_call()));  // a handler may have made those in between
}

TEST_F(RestartsTest, AnAnswerThatPerhapsArrivedIsForTheVeryNextCall) {
  ASSERT_TRUE(restarts_.keep(mkdir_call(), {Arrival::kPerhaps, 0, {}, 0}));
  TrappedCall other = mkdir_call();
  other.nr = SYS_rmdir;
  EXPECT_FALSE(restarts_.take(other));
  EXPECT_FALSE(restarts_.take(mkdir_call()));
}

TEST_F(RestartsTest, CallsThatCanBeRepeatedAreNotKept) {
  TrappedCall call = mkdir_call();
  call.nr = SYS_chmod;
  EXPECT_FALSE(restarts_.keep(call, {Arrival::kLost, 0, {}, 0}));
  call.nr = SYS_open;
  call.args[1] = O_CREAT | O_WRONLY;
  EXPECT_FALSE(restarts_.keep(call, {Arrival::kLost, 0, {}, 0}));
  call.args[1] |= O_EXCL;
  EXPECT_TRUE(restarts_.keep(call, {Arrival::kLost, 0, {}, 0}));
}

TEST_F(RestartsTest, NothingIsKeptForAThreadThatHasGone) {
  TrappedCall call = mkdir_call();
  std::thread([&] { call.tid = ::gettid(); }).join();
  EXPECT_FALSE(restarts_.keep(call, {Arrival::kLost, 0, {}, 0}));
}

TEST_F(RestartsTest, TheNumberOfKeptAnswersHasALimit) {
  const TrappedCall first = mkdir_call();
  ASSERT_TRUE(restarts_.keep(first, {Arrival::kLost, 0, {}, 0}));
  for (size_t i = 0; i < kMaxKept; ++i) {
    TrappedCall call = mkdir_call();
    call.args[1] = i;
    ASSERT_TRUE(restarts_.keep(call, {Arrival::kLost, 0, {}, 0}));
  }
  EXPECT_FALSE(restarts_.take(first));
}

}  // namespace
}  // namespace certgate::sandbox
