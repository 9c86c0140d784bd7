#include "supervisor/log_room.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

class LogRoomTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/certgate-room-XXXXXX";
    file_.reset(::mkstemp(name));
    ASSERT_TRUE(file_);
    ::unlink(name);
  }
  struct stat facts() const {
    struct stat s {};
    ::fstat(file_.get(), &s);
    return s;
  }
  sandbox::UniqueFd file_;
};

TEST_F(LogRoomTest, WhatIsReservedIsNotSeenAsContent) {
  LogRoom room(file_.get(), 0);
  const auto change = room.keep(0);
  ASSERT_TRUE(change) << change.error().what;
  if (*change == LogRoom::Change::kFull) GTEST_SKIP() << "/tmp has no room";
  EXPECT_FALSE(room.full());
  EXPECT_EQ(facts().st_size, 0);
  if (facts().st_blocks == 0) GTEST_SKIP() << "the file system of /tmp cannot reserve";
  EXPECT_GE(static_cast<uint64_t>(facts().st_blocks) * 512, kReservedBytes);
}

TEST_F(LogRoomTest, TheReserveMovesOnWithTheSegment) {
  LogRoom room(file_.get(), 0);
  for (uint64_t size = 0; size < 5 * kReservedBytes; size += 300000) {
    ASSERT_EQ(::ftruncate(file_.get(), static_cast<off_t>(size)), 0);
    const auto change = room.keep(size);
    ASSERT_TRUE(change) << change.error().what;
    if (room.full()) GTEST_SKIP() << "/tmp has no room";
    EXPECT_EQ(*change, LogRoom::Change::kSame);
  }
}

TEST_F(LogRoomTest, ADescriptorThatIsNoFileIsAnErrorAndNotRoom) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const sandbox::UniqueFd read(ends[0]), write(ends[1]);
  LogRoom room(write.get(), 0);
  const auto change = room.keep(0);
  EXPECT_TRUE(!change || *change == LogRoom::Change::kFull);
}

}  // namespace
}  // namespace certgate::supervisor
