// What the log does after a death at any moment.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agentd/log_snapshot.h"
#include "agentd/log_store.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Record;
using kernel::RecordKind;

class LogRecoverTest : public LogTest {
 protected:
  std::string segment_of(const std::string& run) const {
    return state_ + "/segments/" + run + ".seg";
  }

  // The bytes of a segment with `records` records, not sealed.
  static std::string frames(const std::string& run, uint64_t records) {
    std::vector<uint8_t> bytes;
    for (uint64_t seq = 1; seq <= records; ++seq) {
      std::vector<uint8_t> encoded;
      kernel::encode_record(record(run, seq), encoded);
      EXPECT_TRUE(supervisor::append_frame(encoded.data(), encoded.size(), bytes));
    }
    return {bytes.begin(), bytes.end()};
  }

  std::vector<Record> all() const {
    std::vector<Record> records;
    const auto snapshot = LogSnapshot::open(state_);
    EXPECT_TRUE(snapshot);
    EXPECT_TRUE(snapshot->each([&](const LogEntry& entry) {
      records.push_back(entry.record);
      return ok();
    }));
    return records;
  }
  void recover() {
    LogStore store = opened();
    const Status done = store.recover();
    EXPECT_TRUE(done) << done.error().what;
  }
};

TEST_F(LogRecoverTest, ATailTornAtAnyByteGivesItsWholeRecordsAndAGap) {
  const std::string whole = frames("run", 3);
  const size_t one = frames("run", 1).size();
  for (size_t size = 0; size <= whole.size(); ++size) {
    fs::remove_all(state_);
    opened();
    write(segment_of("run"), whole.substr(0, size));
    recover();
    const auto records = all();
    ASSERT_EQ(records.size(), size / one + 1) << size;
    EXPECT_EQ(records.back().kind, RecordKind::kGap);
    EXPECT_EQ(records.back().seq, records.size());
    EXPECT_EQ(records.back().count, size % one);
    EXPECT_FALSE(fs::exists(segment_of("run")));
    ASSERT_EQ(verdict(), "yes") << size;
  }
}

TEST_F(LogRecoverTest, ADamagedSegmentIsKeptAside) {
  const std::string whole = frames("run", 3);
  const size_t one = frames("run", 1).size();
  for (const size_t at : {one + 8, one + 20, 2 * one - 1}) {  // inside the second record
    fs::remove_all(state_);
    opened();
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ 4);
    write(segment_of("run"), changed);
    recover();
    EXPECT_EQ(all().size(), 2u);
    EXPECT_EQ(read(state_ + "/segments/run.damaged"), changed);
    EXPECT_EQ(verdict(), "yes");
  }
}

TEST_F(LogRecoverTest, ZerosBehindTheLastRecordAreRoom) {
  const std::string room(4096, '\0');
  opened();
  write(segment_of("run"), frames("run", 2) + room);
  recover();
  EXPECT_EQ(all().size(), 3u);
  EXPECT_EQ(all().back().kind, RecordKind::kGap);  // it has no end, but nothing of it is lost
  EXPECT_EQ(all().back().count, 0u);
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogRecoverTest, WhatAnUnfinishedAppendLeavesBehindTheEndIsCounted) {
  const std::string room(100000, '\0');
  const std::string third = frames("run", 3).substr(frames("run", 2).size());
  for (size_t stored = 5; stored <= third.size(); ++stored) {  // all but its length, so far
    fs::remove_all(state_);
    opened();
    write(segment_of("run"), frames("run", 2) + std::string(4, '\0') + third.substr(4, stored - 4) + room);
    recover();
    ASSERT_EQ(all().size(), 3u) << stored;
    size_t last = stored;
    while (third[last - 1] == '\0') --last;
    EXPECT_EQ(all().back().count, last > 4 ? last : 0) << stored;
    EXPECT_FALSE(fs::exists(state_ + "/segments/run.damaged"));
    ASSERT_EQ(verdict(), "yes") << stored;
  }
}

TEST_F(LogRecoverTest, RecordsBehindAPageThatWasLostAreKeptAside) {
  opened();
  const std::string bytes = frames("run", 2) + std::string(70000, '\0') + frames("run", 9) + std::string(5000, '\0');
  write(segment_of("run"), bytes);
  recover();
  EXPECT_EQ(all().size(), 3u);
  EXPECT_EQ(all().back().count, 70000 + frames("run", 9).size());
  EXPECT_EQ(read(state_ + "/segments/run.damaged"), bytes);
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogRecoverTest, WhatWasSealedBeforeTheDeathIsNotSealedAgain) {
  for (uint64_t sealed = 0; sealed <= 5; ++sealed) {
    fs::remove_all(state_);
    {
      LogStore store = opened();
      whole_run(store, "earlier", 4);
      auto segment = store.create_segment("run");
      ASSERT_TRUE(segment);
      for (uint64_t seq = 1; seq <= 5; ++seq) {
        if (seq == sealed + 1) {
          ASSERT_TRUE(store.seal(segment->tail));
        }
        ASSERT_TRUE(append_record(segment->append.get(), record("run", seq)));
      }
      if (sealed == 5) {
        ASSERT_TRUE(store.seal(segment->tail));
      }
    }
    recover();
    EXPECT_EQ(all().size(), 4u + 5 + 1) << sealed;
    EXPECT_EQ(verdict(), "yes") << sealed;
    recover();
    EXPECT_EQ(all().size(), 4u + 5 + 1);
  }
}

TEST_F(LogRecoverTest, ADeathBetweenTheGapAndTheRemovalAddsNothing) {
  opened();
  const std::string torn = frames("run", 2) + "torn";
  write(segment_of("run"), torn);
  recover();
  EXPECT_EQ(all().size(), 3u);
  write(segment_of("run"), torn);  // as if the unlink had not reached the disk
  recover();
  EXPECT_EQ(all().size(), 3u);
  EXPECT_FALSE(fs::exists(segment_of("run")));
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogRecoverTest, ADeathBetweenTheStopAndTheRemovalAddsNothing) {
  std::string bytes;
  {
    LogStore store = opened();
    auto segment = store.create_segment("run");
    ASSERT_TRUE(append_record(segment->append.get(), record("run", 1)));
    ASSERT_TRUE(append_record(segment->append.get(), record("run", 2, RecordKind::kStop)));
    bytes = read(segment_of("run"));
    ASSERT_TRUE(store.finish(segment->tail));
  }
  write(segment_of("run"), bytes);
  recover();
  EXPECT_EQ(all().size(), 2u);
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogRecoverTest, ALiveRunIsLeftAlone) {
  LogStore store = opened();
  auto segment = store.create_segment("run");
  ASSERT_TRUE(segment);
  ASSERT_TRUE(append_record(segment->append.get(), record("run", 1)));
  recover();
  EXPECT_TRUE(fs::exists(segment_of("run")));
  EXPECT_EQ(store.size(), 0u);
  // The authority is gone, its supervisor still writes: not dead yet.
  segment->tail = SegmentTail();
  recover();
  EXPECT_TRUE(fs::exists(segment_of("run")));
  segment->append.reset();
  recover();
  EXPECT_FALSE(fs::exists(segment_of("run")));
  EXPECT_EQ(all().size(), 2u);
}

TEST_F(LogRecoverTest, ARunThatLostItsEndIsNotWhole) {
  {
    LogStore store = opened();
    auto segment = store.create_segment("run");
    ASSERT_TRUE(append_record(segment->append.get(), record("run", 1)));
    ASSERT_TRUE(store.seal(segment->tail));
  }
  EXPECT_EQ(verdict(), "yes");
  fs::remove(segment_of("run"));
  EXPECT_TRUE(verdict().starts_with("no: run run: no stop record")) << verdict();
}

TEST_F(LogRecoverTest, ManyDeadRunsAreRecoveredWithFewOpenFiles) {
  opened();
  for (int run = 0; run < 300; ++run) {
    std::string id = "r";
    id += std::to_string(run);
    write(segment_of(id), frames(id, 1));
  }
  recover();
  EXPECT_EQ(all().size(), 600u);
  EXPECT_TRUE(fs::is_empty(state_ + "/segments"));
  EXPECT_EQ(verdict(), "yes");
}

// An append is: tiles, checkpoint.last, log/checkpoint, removal of partial tiles. Death after each.
class InterruptedAppend : public LogRecoverTest, public testing::WithParamInterface<uint64_t> {
 protected:
  // Two states of one log: `before_` with `records` records, state_ with 5 more.
  void make_states(uint64_t records) {
    {
      LogStore store = opened();
      whole_run(store, "first", records);
    }
    before_ = root_ + "/before";
    fs::copy(state_, before_, fs::copy_options::recursive);
    {
      LogStore store = opened();
      whole_run(store, "second", 5);
    }
  }
  // Files of the older state come back where the newer one has removed or replaced them.
  void put_back(const std::string& name) {
    fs::copy_file(before_ + name, state_ + name, fs::copy_options::overwrite_existing);
  }
  void put_back_partials() {
    fs::copy(before_ + "/log/tile", state_ + "/log/tile",
             fs::copy_options::recursive | fs::copy_options::skip_existing);
  }
  std::string before_;
};

TEST_P(InterruptedAppend, IsUndoneWhenItsCheckpointWasNotSigned) {
  make_states(GetParam());
  put_back_partials();
  put_back("/checkpoint.last");
  put_back("/log/checkpoint");
  EXPECT_TRUE(verdict().starts_with("no: ")) << verdict();
  write(state_ + "/tmp/next", "half a file");
  recover();
  EXPECT_EQ(verdict(), "yes");
  EXPECT_EQ(records(), GetParam());
  EXPECT_TRUE(fs::is_empty(state_ + "/tmp"));
}

TEST_P(InterruptedAppend, IsCompletedWhenItsCheckpointWasSigned) {
  make_states(GetParam());
  put_back_partials();
  put_back("/log/checkpoint");
  EXPECT_TRUE(verdict().starts_with("no: ")) << verdict();
  recover();
  EXPECT_EQ(verdict(), "yes");
  EXPECT_EQ(records(), GetParam() + 5);
}

TEST_P(InterruptedAppend, LeavesNoSupersededTiles) {
  make_states(GetParam());
  put_back_partials();
  recover();
  EXPECT_EQ(verdict(), "yes");
  EXPECT_EQ(records(), GetParam() + 5);
}

INSTANTIATE_TEST_SUITE_P(Sizes, InterruptedAppend,
                         testing::Values(2, 3, 251, 252, 255, 256, 257, 512));

}  // namespace
}  // namespace certgate::agentd
