#include "supervisor/segment_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/frame.h"

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

// Frame `n` has n in its first bytes and a length of its own.
std::vector<uint8_t> frame_of(uint64_t n) {
  std::vector<uint8_t> bytes(20 + n * 37 % 700, static_cast<uint8_t>(n)), frame;
  std::memcpy(bytes.data(), &n, sizeof n);
  EXPECT_TRUE(append_frame(bytes.data(), bytes.size(), frame));
  return frame;
}

class SegmentWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    name_ = "/var/tmp/certgate-segment-XXXXXX";
    file_.reset(::mkostemp(name_.data(), O_APPEND | O_CLOEXEC));
    ASSERT_TRUE(file_);
  }
  void TearDown() override { ::unlink(name_.c_str()); }
  bool maps() const { return keeps_reserved_blocks(file_.get()); }
  UniqueFd end(int mode = O_RDWR) const {
    return UniqueFd(::open(name_.c_str(), mode | O_APPEND | O_CLOEXEC));
  }
  // How many frames there are; they must be the first ones, and zeros must follow.
  uint64_t count() const {
    std::ifstream in(name_, std::ios::binary);
    const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(in), {}};
    FrameReader reader(bytes.data(), bytes.size());
    uint64_t n = 0;
    for (Frame f = reader.next(); f.state == Frame::kOk; f = reader.next()) {
      uint64_t named = 0;
      std::memcpy(&named, f.data, sizeof named);
      EXPECT_EQ(named, n++);
    }
    EXPECT_EQ(reader.next().state, Frame::kEnd);
    return n;
  }
  std::string name_;
  UniqueFd file_;
};

#define SKIP_UNLESS_MAPPED() \
  if (!maps()) GTEST_SKIP() << "the file system of /var/tmp is none that is mapped"

TEST_F(SegmentWriterTest, MappedOrWrittenTheFramesAreTheSame) {
  for (const int mode : {O_RDWR, O_WRONLY}) {
    ASSERT_EQ(::ftruncate(file_.get(), 0), 0);
    SegmentWriter writer(end(mode));
    uint64_t size = 0;
    for (uint64_t n = 0; n < 20'000; ++n) {  // 7 MB: the room moves on several times
      const std::vector<uint8_t> frame = frame_of(n);
      ASSERT_TRUE(writer.append(frame));
      size += frame.size();
      const auto change = writer.keep_room();
      ASSERT_TRUE(change) << change.error().what;
      if (writer.full()) GTEST_SKIP() << "/var/tmp has no room";
    }
    EXPECT_EQ(writer.mapped(), mode == O_RDWR && maps());
    EXPECT_EQ(writer.size(), size);
    EXPECT_TRUE(writer.sync());
    EXPECT_EQ(count(), 20'000u);
  }
}

TEST_F(SegmentWriterTest, WhatIsThereStaysAndIsFollowed) {
  for (uint64_t n = 0; n < 100; ++n) {
    const std::vector<uint8_t> frame = frame_of(n);
    ASSERT_EQ(::write(file_.get(), frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
  }
  SegmentWriter writer(end());
  for (uint64_t n = 100; n < 300; ++n) {
    if (n % 2 == 0) {
      ASSERT_TRUE(writer.keep_room());
    }
    ASSERT_TRUE(writer.append(frame_of(n)));
  }
  EXPECT_EQ(count(), 300u);
}

TEST_F(SegmentWriterTest, NothingIsAppendedBeyondWhatIsReserved) {
  SKIP_UNLESS_MAPPED();
  SegmentWriter writer(end());
  ASSERT_TRUE(writer.keep_room());
  struct stat before {};
  ASSERT_EQ(::fstat(file_.get(), &before), 0);
  EXPECT_GE(static_cast<uint64_t>(before.st_blocks) * 512, static_cast<uint64_t>(before.st_size))
      << "a page without its block could meet a full disk";
  uint64_t n = 0;
  while (n < 100'000 && writer.append(frame_of(n))) ++n;
  const Status refused = writer.append(frame_of(n));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ENOSPC);
  EXPECT_LE(writer.size(), static_cast<uint64_t>(before.st_size));
  EXPECT_GT(writer.size(), static_cast<uint64_t>(before.st_size) - 1000);
  EXPECT_EQ(count(), n);
}

TEST_F(SegmentWriterTest, WhoReadsMeanwhileSeesWholeFramesOrTheEnd) {
  SKIP_UNLESS_MAPPED();
  SegmentWriter writer(end());
  ASSERT_TRUE(writer.keep_room());
  constexpr uint64_t kFrames = 200'000;
  std::atomic<uint64_t> seen{0}, damaged{0};
  std::thread reads([&] {
    std::vector<uint8_t> bytes(1 << 17);
    for (uint64_t at = 0, retried = 0; seen < kFrames;) {
      const ssize_t n = ::pread(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at));
      FrameReader reader(bytes.data(), static_cast<size_t>(std::max(n, ssize_t{0})));
      Frame frame = reader.next();
      for (; frame.state == Frame::kOk; frame = reader.next()) ++seen;
      at += reader.offset();
      // As the log store does: what was just being stored is whole when it is looked at again.
      retried = frame.state == Frame::kDamaged && reader.offset() == 0 ? retried + 1 : 0;
      if (retried > 1) {
        ++damaged;
        return;
      }
    }
  });
  for (uint64_t n = 0; n < kFrames && damaged == 0; ++n) {
    if (!writer.append(frame_of(n)) || !writer.keep_room()) {
      ADD_FAILURE() << "frame " << n;
      seen = kFrames;
      break;
    }
  }
  reads.join();
  EXPECT_EQ(damaged, 0u);
  EXPECT_GE(seen, kFrames);
}

// Everything whose append returned is there, and nothing of what was cut short is taken for a frame.
TEST_F(SegmentWriterTest, AKillAtAnyInstantLosesNothing) {
  void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto* const done = new (page) std::atomic<uint64_t>(0);
  for (long turn = 0; turn < 200; ++turn) {
    ASSERT_EQ(::ftruncate(file_.get(), 0), 0);
    *done = 0;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      SegmentWriter writer(end());
      for (uint64_t n = 0; writer.append(frame_of(n)) && writer.keep_room(); ++n) *done = n + 1;
      ::_exit(1);
    }
    const timespec until{0, 1'000'000 + turn * 31'013};
    ::nanosleep(&until, nullptr);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "turn " << turn;
    const uint64_t there = count();
    EXPECT_GE(there, done->load()) << "turn " << turn;
    EXPECT_LE(there, done->load() + 1) << "turn " << turn;
  }
  ::munmap(page, 4096);
}

TEST_F(SegmentWriterTest, TheMappingIsNoChilds) {
  SKIP_UNLESS_MAPPED();
  SegmentWriter writer(end());
  ASSERT_TRUE(writer.keep_room());
  ASSERT_TRUE(writer.mapped());
  const auto is_mapped = [this] {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);)
      if (line.find(name_) != std::string::npos) return true;
    return false;
  };
  EXPECT_TRUE(is_mapped());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(is_mapped() ? 1 : 0);
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace certgate::supervisor
