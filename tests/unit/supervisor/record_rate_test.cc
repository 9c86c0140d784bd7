#include "supervisor/record_rate.h"

#include <gtest/gtest.h>
#include <time.h>

namespace certgate::supervisor {
namespace {

int64_t boot_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

constexpr int64_t kMs = 1'000'000;

TEST(RecordRateTest, TenSecondsWorthPassWithoutAWait) {
  RecordRate rate(100, nullptr);
  for (int i = 0; i < 1000; ++i) rate.count(5000 * kMs);
  EXPECT_EQ(rate.resume_at(), 0);
  rate.count(5000 * kMs);
  EXPECT_EQ(rate.resume_at(), 5010 * kMs);  // one record is 10 ms
}

TEST(RecordRateTest, TimeThatPassesMakesRoom) {
  RecordRate rate(100, nullptr);
  for (int i = 0; i < 1100; ++i) rate.count(0);
  EXPECT_EQ(rate.resume_at(), 1000 * kMs);
  rate.count(1500 * kMs);
  EXPECT_EQ(rate.resume_at(), 0);
}

TEST(RecordRateTest, TheWaitIsAsLongAsTheExcessAndIsSaidOnce) {
  int said = 0;
  RecordRate rate(1000, [&] { ++said; });
  const int64_t start = boot_ns();
  for (int i = 0; i < 10050; ++i) rate.count(start);
  EXPECT_TRUE(rate.full());
  rate.wait_for_room();
  EXPECT_GE(boot_ns() - start, 50 * kMs);
  EXPECT_LT(boot_ns() - start, 5000 * kMs);
  for (int i = 0; i < 30; ++i) rate.count(boot_ns());
  rate.wait_for_room();
  EXPECT_EQ(said, 1);
  EXPECT_FALSE(rate.full());
}

TEST(RecordRateTest, WaitsThatFollowEachOtherAreOneEpisodeGivenOnce) {
  RecordRate rate(1000, nullptr);
  EXPECT_FALSE(rate.take_episode(RecordRate::Episode::kAny));
  const int64_t start = boot_ns();
  for (int i = 0; i < 10020; ++i) rate.count(start);
  rate.wait_for_room();
  for (int i = 0; i < 20; ++i) rate.count(boot_ns());
  rate.wait_for_room();
  EXPECT_FALSE(rate.take_episode(RecordRate::Episode::kOver));  // it may go on
  const auto episode = rate.take_episode(RecordRate::Episode::kAny);
  ASSERT_TRUE(episode);
  EXPECT_GE(episode->since_ns, start);
  EXPECT_GE(episode->waited_ns, 30 * kMs);
  EXPECT_LE(episode->waited_ns, episode->until_ns - episode->since_ns);
  EXPECT_FALSE(rate.take_episode(RecordRate::Episode::kAny));
}

}  // namespace
}  // namespace certgate::supervisor
