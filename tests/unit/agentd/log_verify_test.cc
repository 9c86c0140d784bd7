// The verifier says no to every change, and where.
#include "agentd/log_verify.h"

#include <fcntl.h>

#include <algorithm>

#include "agentd/log_edge.h"
#include "agentd/sealed_log.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;

class LogVerifyTest : public LogTest {
 protected:
  void make(uint64_t records) {
    LogStore store = opened();
    whole_run(store, "run", records);
  }
  // Flips a bit of every `step`th byte of every file in turn.
  void flip_all(size_t step) {
    for (const std::string& path : log_files()) {
      const std::string good = read(path);
      ASSERT_FALSE(good.empty());
      for (size_t at = 0; at < good.size(); at += step) {
        std::string changed = good;
        changed[at] = static_cast<char>(changed[at] ^ 1 << at % 8);
        write(path, changed);
        const std::string said = verdict();
        ASSERT_TRUE(said.starts_with("no: ") && said.find(": ", 4) != std::string::npos)
            << path << " byte " << at << ": " << said;
      }
      write(path, good);
    }
    EXPECT_EQ(verdict(), "yes");
  }
};

TEST_F(LogVerifyTest, AFlipOfAnyByteIsANo) {
  make(5);
  flip_all(1);
}

TEST_F(LogVerifyTest, AFlipInAFullTileOrABundleIsANo) {
  make(260);
  flip_all(101);
}

TEST_F(LogVerifyTest, ACutAnywhereIsANo) {
  make(4);
  for (const std::string& path : log_files()) {
    const std::string good = read(path);
    for (size_t size = 0; size < good.size(); ++size) {
      write(path, good.substr(0, size));
      ASSERT_TRUE(verdict().starts_with("no: ")) << path << " cut to " << size << ": " << verdict();
    }
    write(path, good + '\0');
    EXPECT_TRUE(verdict().starts_with("no: ")) << path;
    fs::remove(path);
    EXPECT_TRUE(verdict().starts_with("no: ")) << path << ": " << verdict();
    write(path, good);
  }
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogVerifyTest, SwappedRecordsAreANoEvenWithTheirHashes) {
  make(6);
  const std::string entries_path = state_ + "/log/tile/entries/000.p/6",
                    tile_path = state_ + "/log/tile/0/000.p/6";
  const std::string bundle = read(entries_path), tile = read(tile_path);
  const auto entries = split_bundle(bundle, 6);
  ASSERT_TRUE(entries);
  for (size_t a = 0; a < 6; ++a) {
    for (size_t b = a + 1; b < 6; ++b) {
      auto order = *entries;
      std::swap(order[a], order[b]);
      std::string swapped;
      for (const std::string_view entry : order) {
        swapped += static_cast<char>(entry.size() >> 8);
        swapped += static_cast<char>(entry.size() & 0xFF);
        swapped += entry;
      }
      write(entries_path, swapped);
      const std::string where = "no: log/tile/entries/000.p/6, record " + std::to_string(a) + ":";
      EXPECT_TRUE(verdict().starts_with(where)) << verdict();
      std::string hashes = tile;
      std::swap_ranges(hashes.begin() + static_cast<ptrdiff_t>(a * 32),
                       hashes.begin() + static_cast<ptrdiff_t>(a * 32 + 32),
                       hashes.begin() + static_cast<ptrdiff_t>(b * 32));
      write(tile_path, hashes);
      EXPECT_TRUE(verdict().starts_with("no: log/tile/entries: ")) << verdict();
      write(tile_path, tile);
    }
  }
}

TEST_F(LogVerifyTest, ItTellsADamagedTileFromADamagedRecord) {
  make(6);
  const std::string tile = state_ + "/log/tile/0/000.p/6",
                    entries = state_ + "/log/tile/entries/000.p/6";
  std::string bytes = read(tile);
  bytes[3 * 32] = static_cast<char>(bytes[3 * 32] ^ 1);
  write(tile, bytes);
  EXPECT_TRUE(verdict().starts_with("no: log/tile/0/000.p/6, hash 3 (byte 96): ")) << verdict();
}

TEST_F(LogVerifyTest, AnythingExtraIsANo) {
  make(300);
  for (const char* name :
       {"/log/x", "/log/tile/0/002", "/log/tile/0/001.p/43", "/log/tile/3", "/log/checkpoint~",
        "/log/tile/entries/001.p/45", "/log/tile/1/000.p/.hidden"}) {
    write(state_ + name, "x");
    EXPECT_TRUE(verdict().starts_with("no: " + std::string(name + 1))) << verdict();
    fs::remove(state_ + name);
    fs::create_directory(state_ + name);
    EXPECT_TRUE(verdict().starts_with("no: ")) << verdict();
    fs::remove(state_ + name);
    fs::create_symlink("checkpoint", state_ + name);
    EXPECT_TRUE(verdict().starts_with("no: ")) << verdict();
    fs::remove(state_ + name);
  }
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogVerifyTest, ATileReplacedByALinkToItselfIsANo) {
  make(3);
  const std::string path = state_ + "/log/tile/0/000.p/3";
  fs::rename(path, root_ + "/moved");
  fs::create_symlink(root_ + "/moved", path);
  EXPECT_TRUE(verdict().starts_with("no: ")) << verdict();
}

TEST_F(LogVerifyTest, AnOlderOrAForeignCheckpointIsANo) {
  make(3);
  const std::string old = read(state_ + "/checkpoint.last");
  {
    LogStore store = opened();
    whole_run(store, "again", 2);
  }
  const std::string now = read(state_ + "/checkpoint.last");
  for (const char* name : {"/checkpoint.last", "/log/checkpoint"}) {
    write(state_ + name, old);
    EXPECT_TRUE(verdict().starts_with("no: log/checkpoint: the log has ")) << verdict();
    write(state_ + name, now);
  }
  auto other = LogStore::open(root_ + "/other");
  ASSERT_TRUE(other);
  whole_run(*other, "run", 3);
  write(state_ + "/log/checkpoint", read(root_ + "/other/log/checkpoint"));
  EXPECT_TRUE(verdict().starts_with("no: log/checkpoint: ")) << verdict();
}

TEST_F(LogVerifyTest, ALogThatIsBeingMadeIsSaidToBeAndNoOtherOne) {
  opened();
  const std::string empty = read(state_ + "/checkpoint.last");
  fs::remove(state_ + "/log/checkpoint");
  EXPECT_EQ(verdict(), "no: log/checkpoint: missing");
  fs::remove(state_ + "/key");
  EXPECT_EQ(verdict(),
            "no: log/checkpoint: missing (what an interrupted append leaves goes away at the next "
            "start)");
  make(3);
  EXPECT_EQ(verdict(), "yes");
  fs::remove(state_ + "/log/checkpoint");
  fs::remove(state_ + "/key");
  EXPECT_EQ(verdict(), "no: log/checkpoint: missing");
  write(state_ + "/checkpoint.last", empty);  // there are records: somebody says there were none
  EXPECT_EQ(verdict(), "no: log/checkpoint: missing");
}

// LogStore would not seal these; the verifier does not rely on it.
TEST_F(LogVerifyTest, ARunWithAHoleATwinOrALateRecordIsANo) {
  const auto kStop = kernel::RecordKind::kStop;
  kernel::Record miscounted = record("run", 2, kStop);
  miscounted.count = 7;
  const std::vector<std::vector<kernel::Record>> bad = {
      {record("run", 1), record("run", 3, kStop)},
      {record("run", 2, kStop)},
      {record("run", 1), record("run", 1)},
      {record("run", 1, kStop), record("run", 2)},
      {record("run", 1), miscounted},
      {record("run", 1), record("run", 2)}};  // no stop, no segment
  for (const auto& records : bad) {
    fs::remove_all(state_);
    opened();
    auto log = SealedLog::open(sandbox::UniqueFd(::open(state_.c_str(), O_RDONLY | O_DIRECTORY)));
    ASSERT_TRUE(log);
    for (const kernel::Record& r : records) {
      std::vector<uint8_t> bytes;
      kernel::encode_record(r, bytes);
      ASSERT_TRUE(log->append(
          {std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())}));
    }
    EXPECT_TRUE(verdict().starts_with("no: ") && verdict().find("run run") != std::string::npos)
        << verdict();
  }
}

TEST_F(LogVerifyTest, ALiveRunIsANoteNotAFailure) {
  LogStore store = opened();
  auto segment = store.create_segment("live");
  ASSERT_TRUE(append_record(segment->append.get(), record("live", 1)));
  ASSERT_TRUE(store.seal(segment->tail));
  const auto report = verify_log(state_);
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->good);
  ASSERT_EQ(report->notes.size(), 1u);
  EXPECT_NE(report->notes[0].find("run live"), std::string::npos);
}

TEST_F(LogVerifyTest, ACopyWithoutLockAndSegmentsCanBeVerified) {
  make(5);
  fs::create_directory(root_ + "/copy");
  for (const char* name : {"log", "key.pub", "checkpoint.last"}) {
    fs::copy(state_ + '/' + name, root_ + "/copy/" + name, fs::copy_options::recursive);
  }
  const auto report = verify_log(root_ + "/copy");
  ASSERT_TRUE(report) << report.error().what;
  EXPECT_TRUE(report->good) << report->where << report->what;
}

TEST_F(LogVerifyTest, WhatCannotBeReadIsTroubleNotNo) {
  EXPECT_TRUE(verdict().starts_with("trouble: ")) << verdict();
  fs::create_directory(state_);
  EXPECT_TRUE(verdict().starts_with("trouble: ")) << verdict();
}

}  // namespace
}  // namespace certgate::agentd
