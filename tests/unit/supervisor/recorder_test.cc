#include "supervisor/recorder.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <latch>
#include <thread>
#include <vector>

#include "supervisor/frame.h"

namespace {

// What this test binary calls instead of libc's, for all its tests; only while one of those below
// says so it does more.
struct SlowDisk {
  std::atomic<int> fd{-1};
  std::atomic<int> calls{0}, delay_ms{0}, error{0};
  std::atomic<uint64_t> durable{0};  // bytes
  std::atomic<bool> busy{false};
};
SlowDisk disk;

// Where the frames of a file end: room may follow them.
uint64_t end_of_frames(int fd) {
  std::vector<uint8_t> bytes(1 << 20);
  bytes.resize(static_cast<size_t>(std::max(::pread(fd, bytes.data(), bytes.size(), 0), ssize_t{0})));
  certgate::supervisor::FrameReader reader(bytes.data(), bytes.size());
  while (reader.next().state == certgate::supervisor::Frame::kOk) {
  }
  return reader.offset();
}

}  // namespace

extern "C" int fdatasync(int fd) {
  struct stat mine {
  }, given{};
  const int own = disk.fd.load();
  const bool ours = own >= 0 && ::fstat(own, &mine) == 0 && ::fstat(fd, &given) == 0 &&
                    mine.st_ino == given.st_ino && mine.st_dev == given.st_dev;
  if (!ours) return static_cast<int>(::syscall(SYS_fdatasync, fd));
  ++disk.calls;
  disk.busy = true;
  const uint64_t covered = end_of_frames(own);
  std::this_thread::sleep_for(std::chrono::milliseconds(disk.delay_ms.load()));
  disk.busy = false;
  if (disk.error != 0) return errno = disk.error, -1;
  uint64_t before = disk.durable;
  while (before < covered && !disk.durable.compare_exchange_weak(before, covered)) {
  }
  return 0;
}

namespace certgate::supervisor {
namespace {

using kernel::Durability;

// A file on a real file system: of one in memory alone LogRoom would say that it is full.
sandbox::UniqueFd unnamed_file() {
  char name[] = "/tmp/certgate-segment-XXXXXX";
  sandbox::UniqueFd fd(::mkostemp(name, O_CLOEXEC | O_APPEND));
  ::unlink(name);
  return fd;
}

class RecorderTest : public testing::Test {
 protected:
  RecorderTest() : segment_(unnamed_file()) {
    disk.calls = disk.error = 0;
    disk.durable = 0;
    disk.delay_ms = 20;
    disk.fd = segment_.get();
    recorder_.emplace("abcdefgh", "0123456789abcdef",
                      sandbox::UniqueFd(::fcntl(segment_.get(), F_DUPFD_CLOEXEC, 0)), 1);
  }
  ~RecorderTest() override { disk.fd = -1; }
  static kernel::Record record() {
    kernel::Record r;
    r.kind = kernel::RecordKind::kCertificate;
    r.call = "openat";
    return r;
  }
  // Where the record of this seq ends in the segment.
  uint64_t end_of(uint64_t seq) const {
    std::vector<uint8_t> bytes(1 << 20);
    bytes.resize(static_cast<size_t>(::pread(segment_.get(), bytes.data(), bytes.size(), 0)));
    FrameReader reader(bytes.data(), bytes.size());
    for (Frame f = reader.next(); f.state == Frame::kOk; f = reader.next()) {
      if (kernel::decode_record(f.data, f.size)->seq == seq) return reader.offset();
    }
    return UINT64_MAX;
  }

  sandbox::UniqueFd segment_;
  std::optional<Recorder> recorder_;
};

TEST_F(RecorderTest, OneSyncIsForAllWhoWaitAndNobodyGoesOnBeforeIt) {
  constexpr int kCallers = 64, kEach = 3;
  std::atomic<int> early{0}, failed{0};
  std::latch all_there(kCallers);  // a slow build starts its threads slowly
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      all_there.arrive_and_wait();
      for (int n = 0; n < kEach; ++n) {
        const auto seq = recorder_->append(record(), Durability::kStrict);
        const uint64_t durable = disk.durable;
        if (!seq) ++failed;
        if (seq && end_of(*seq) > durable) ++early;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(early, 0);
  EXPECT_LE(disk.calls, kCallers * kEach / 8);
}

TEST_F(RecorderTest, WhoAsksForOrderAloneDoesNotWaitForTheDisk) {
  disk.delay_ms = 300;
  std::thread waits([&] { EXPECT_TRUE(recorder_->append(record(), Durability::kStrict)); });
  while (!disk.busy) std::this_thread::yield();
  const auto seq = recorder_->append(record(), Durability::kOrdered);
  EXPECT_TRUE(disk.busy) << "the append came back only after the sync";
  EXPECT_TRUE(seq);
  waits.join();
  EXPECT_EQ(disk.calls, 1);
}

TEST_F(RecorderTest, ASyncThatFailsFailsAllWhoWaitAndAllWhoCome) {
  disk.error = EIO;
  std::atomic<int> failed{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 16; ++i)
    callers.emplace_back([&] { failed += !recorder_->append(record(), Durability::kStrict); });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failed, 16);
  disk.error = 0;  // what a later fsync says is no answer about what the failed one lost
  EXPECT_FALSE(recorder_->append(record(), Durability::kStrict));
  EXPECT_FALSE(recorder_->append(record(), Durability::kOrdered));
  EXPECT_FALSE(recorder_->make_durable());
}

TEST_F(RecorderTest, WhatIsDurableAlreadyIsNotSyncedAgain) {
  ASSERT_TRUE(recorder_->append(record(), Durability::kStrict));
  ASSERT_TRUE(recorder_->make_durable());
  EXPECT_EQ(disk.calls, 1);
  ASSERT_TRUE(recorder_->append(record(), Durability::kOrdered));
  EXPECT_EQ(disk.calls, 1);
  ASSERT_TRUE(recorder_->make_durable());
  EXPECT_EQ(disk.calls, 2);
}

}  // namespace
}  // namespace certgate::supervisor
