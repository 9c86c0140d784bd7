#include "agentd/log_prune.h"

#include "agentd/log_edge.h"
#include "agentd/log_snapshot.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;

class LogPruneTest : public LogTest {
 protected:
  // 1,500 records of five runs; those of the fixture are from the past.
  void SetUp() override {
    LogTest::SetUp();
    LogStore store = opened();
    for (int run = 0; run < 5; ++run) whole_run(store, "run" + std::to_string(run), 300);
    ASSERT_EQ(verdict(), "yes");
    ASSERT_TRUE(set_floor(store.dir_fd(), "0"));
  }
  Pruned pruned(const PruneWish& wish) {
    LogStore store = opened();
    auto done = prune_log(store, state_, wish, "test");
    if (!done) ADD_FAILURE() << done.error().what;
    return done ? *done : Pruned{};
  }
  std::string bundle(uint64_t i) const {
    return state_ + '/' + tile_path(kEntriesLevel, i, kTileWidth);
  }
  std::string tile(uint64_t i) const { return state_ + '/' + tile_path(0, i, kTileWidth); }
  uint64_t first_listed() const {
    uint64_t first = UINT64_MAX;
    const auto log = LogSnapshot::open(state_);
    EXPECT_TRUE(log);
    const Status read = log->each([&](const LogEntry& entry) {
      if (entry.index) first = std::min(first, *entry.index);
      return ok();
    });
    EXPECT_TRUE(read) << read.error().what;
    return first;
  }
};

TEST_F(LogPruneTest, WhatIsLeftStillVerifiesAndGrows) {
  const Pruned done = pruned({.before = 600});
  EXPECT_EQ(done.minimum, 512u);
  EXPECT_EQ(done.removed, 512u);
  EXPECT_FALSE(fs::exists(bundle(1)));
  EXPECT_TRUE(fs::exists(bundle(2)));
  EXPECT_TRUE(fs::exists(tile(0)));
  EXPECT_EQ(verdict(), "yes");
  EXPECT_EQ(first_listed(), 512u);
  LogStore store = opened();
  ASSERT_TRUE(store.recover());
  whole_run(store, "later", 700);
  EXPECT_EQ(verdict(), "yes");
  EXPECT_EQ(verify_log(state_)->notes, std::vector<std::string>{"records before 512 were pruned"});
}

TEST_F(LogPruneTest, EveryOldCheckpointIsStillAPrefix) {
  const auto roots = [&] {
    std::vector<kernel::Digest> out;
    kernel::CompactRange range;
    for (uint64_t i = 0; i < 5; ++i) {
      const std::string bytes = read(tile(i));
      const auto hashes = parse_tile(bytes, kTileWidth);
      if (!hashes) return out;
      for (const kernel::Digest& hash : *hashes) {
        range.append(hash);
        out.push_back(range.root());
      }
    }
    return out;
  };
  const auto before = roots();
  pruned({.keep_last = 300});
  EXPECT_EQ(before.size(), 1280u);
  EXPECT_TRUE(roots() == before);
}

TEST_F(LogPruneTest, WhatGoesWithoutARecordIsMissed) {
  fs::remove(bundle(0));
  EXPECT_EQ(verdict(),
            "no: log/tile/entries/000: missing, and no pruned record says that it may be");
}

TEST_F(LogPruneTest, MoreThanTheRecordSaysIsMissed) {
  pruned({.before = 256});
  EXPECT_EQ(verdict(), "yes");
  fs::remove(bundle(1));
  EXPECT_NE(verdict().find("log/tile/entries/001: missing"), std::string::npos) << verdict();
}

TEST_F(LogPruneTest, AHoleBehindTheMinimumIsMissed) {
  pruned({.before = 512});
  fs::remove(bundle(3));
  EXPECT_NE(verdict().find("log/tile/entries/003: missing"), std::string::npos) << verdict();
}

TEST_F(LogPruneTest, HashesOfWhatIsGoneCannotBeChanged) {
  pruned({.before = 512});
  std::string bytes = read(tile(0));
  for (const size_t at : {size_t{0}, size_t{4000}, bytes.size() - 1}) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    write(tile(0), changed);
    EXPECT_NE(verdict(), "yes") << at;
  }
  write(tile(0), bytes);
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogPruneTest, APruningThatDiedHalfWayIsNoDamage) {
  const std::string kept = read(bundle(1));
  pruned({.before = 512});
  write(bundle(1), kept);  // files go oldest first
  EXPECT_EQ(verdict(), "yes");
  EXPECT_EQ(first_listed(), 256u);
  EXPECT_EQ(pruned({.before = 512}).minimum, 512u);
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogPruneTest, TheFloorAndRunsThatLiveKeepTheirRecords) {
  LogStore store = opened();
  auto segment = store.create_segment("alive");
  ASSERT_TRUE(segment);
  for (uint64_t seq = 1; seq <= 10; ++seq)
    ASSERT_TRUE(append_record(segment->append.get(), record("alive", seq)));
  ASSERT_TRUE(store.seal(segment->tail));
  whole_run(store, "more", 900);
  Pruned done = pruned({.keep_last = 0});
  EXPECT_EQ(done.minimum, 1280u);  // `alive` began at 1500
  EXPECT_NE(done.held_by.find("still lives"), std::string::npos);
  ASSERT_TRUE(set_floor(store.dir_fd(), "36500d"));
  done = pruned({.keep_last = 0});
  EXPECT_EQ(done.removed, 0u);
  EXPECT_NE(done.held_by.find("floor"), std::string::npos);
  EXPECT_FALSE(set_floor(store.dir_fd(), "soon"));
}

TEST_F(LogPruneTest, TheLastFullBundleStays) {
  pruned({.keep_last = 0});
  EXPECT_TRUE(fs::exists(bundle(4)));
  EXPECT_EQ(verdict(), "yes");
}

}  // namespace
}  // namespace certgate::agentd
