#include "agentd/log_store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>

#include "agentd/log_edge.h"
#include "agentd/sealed_log.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Record;
using kernel::RecordKind;

class LogStoreTest : public LogTest {};

// Runs `work` in a child process; true when it returned true there.
bool in_child(const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work() ? 0 : 1);
  int status = -1;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(LogLayout, PathsAreThoseOfTlogTiles) {
  EXPECT_EQ(tile_path(0, 0, 256), "log/tile/0/000");
  EXPECT_EQ(tile_path(0, 0, 1), "log/tile/0/000.p/1");
  EXPECT_EQ(tile_path(3, 1234067, 256), "log/tile/3/x001/x234/067");
  EXPECT_EQ(tile_path(kEntriesLevel, 1000, 255), "log/tile/entries/x001/000.p/255");
  EXPECT_EQ(tile_path(1, 999999, 256), "log/tile/1/x999/999");
}

class TesseraLog : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    const char* vectors = std::getenv("CERTGATE_VECTORS");
    if (vectors == nullptr) GTEST_SKIP() << "CERTGATE_VECTORS is not set: no published log here";
    log_ = std::string(vectors) + "/tessera";
    fs::create_symlink(log_, root_ + "/log");
    dir_ = sandbox::UniqueFd(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  Checkpoint checkpoint(uint64_t size) const {
    const auto key = VerifierKey::parse(
        "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx");
    return *open_checkpoint(read(log_ + "/checkpoint." + std::to_string(size)), *key);
  }
  std::string log_;
  sandbox::UniqueFd dir_;
};

TEST_F(TesseraLog, ItsTilesLeadToItsCheckpoints) {
  for (uint64_t size = 0; size <= 15; ++size) {
    const auto edge = LogEdge::load(dir_.get(), size);
    ASSERT_TRUE(edge) << edge.error().what;
    EXPECT_EQ(edge->root(), checkpoint(size).root) << size;
  }
}

TEST_F(TesseraLog, TheSameEntriesMakeTheSameFilesByteForByte) {
  const std::string bundle = read(log_ + "/tile/entries/000.p/15");
  const auto entries = split_bundle(bundle, 15);
  ASSERT_TRUE(entries);
  LogEdge edge;
  for (const std::string_view entry : *entries) {
    edge.append(reinterpret_cast<const uint8_t*>(entry.data()), entry.size());
    EXPECT_EQ(edge.root(), checkpoint(edge.size()).root);
    const auto files = edge.take_files();
    EXPECT_EQ(files.size(), 2u);
    for (const TileFile& file : files)
      EXPECT_EQ(file.bytes, read(root_ + '/' + file.path)) << file.path;
  }
}

TEST_F(LogStoreTest, ANewDirectoryIsAnEmptyLogThatVerifies) {
  {
    LogStore store = opened();
    EXPECT_EQ(store.size(), 0u);
  }
  EXPECT_EQ(verdict(), "yes");
  struct stat st;
  ASSERT_EQ(::stat(state_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700u);
  const std::string key = read(state_ + "/key");
  opened();
  EXPECT_EQ(read(state_ + "/key"), key);
}

TEST_F(LogStoreTest, WhatIsNotOursIsRefusedWithTheCure) {
  fs::create_directory(root_ + "/real");
  fs::create_symlink("real", root_ + "/link");
  for (const char* name : {"/link", "/link/"}) {
    const auto store = LogStore::open(root_ + name);
    ASSERT_FALSE(store);
    EXPECT_NE(store.error().what.find("symlink"), std::string::npos) << store.error().what;
  }
  opened();
  ASSERT_EQ(::chmod(state_.c_str(), 0755), 0);
  const auto wide = LogStore::open(state_);
  ASSERT_FALSE(wide);
  EXPECT_NE(wide.error().what.find("chmod 700"), std::string::npos);
  ASSERT_EQ(::chmod(state_.c_str(), 0700), 0);
  write(root_ + "/file", "x");
  EXPECT_FALSE(LogStore::open(root_ + "/file"));
  if (::geteuid() == 0) {
    ASSERT_EQ(::chown(state_.c_str(), 65534, 65534), 0);
    const auto foreign = LogStore::open(state_);
    ASSERT_FALSE(foreign);
    EXPECT_NE(foreign.error().what.find("uid 65534"), std::string::npos);
  }
}

TEST_F(LogStoreTest, ARunIsSealedAndItsSegmentGoes) {
  LogStore store = opened();
  auto segment = store.create_segment("abcdefgh");
  ASSERT_TRUE(segment);
  EXPECT_FALSE(store.create_segment("abcdefgh"));
  EXPECT_FALSE(store.create_segment("../x"));
  for (uint64_t seq = 1; seq <= 3; ++seq) {
    ASSERT_TRUE(append_record(segment->append.get(), record("abcdefgh", seq)));
  }
  EXPECT_EQ(*store.seal(segment->tail), 3u);
  EXPECT_EQ(*store.seal(segment->tail), 0u);
  EXPECT_EQ(verdict(), "yes");
  ASSERT_TRUE(append_record(segment->append.get(), record("abcdefgh", 4, RecordKind::kStop)));
  ASSERT_TRUE(store.finish(segment->tail));
  EXPECT_TRUE(fs::is_empty(state_ + "/segments"));
  EXPECT_EQ(store.size(), 4u);
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogStoreTest, TheFilesOfEverySizeAreExactlyThoseOfTheLayout) {
  LogStore store = opened();
  auto segment = store.create_segment("run");
  ASSERT_TRUE(segment);
  for (uint64_t seq = 1; seq <= 600; ++seq) {
    ASSERT_TRUE(append_record(segment->append.get(), record("run", seq)));
    const bool interesting = seq < 6 || seq % 256 < 3 || seq % 256 > 253 || seq == 600;
    if (!interesting) continue;
    ASSERT_TRUE(store.seal(segment->tail));
    EXPECT_EQ(verdict(), "yes") << seq;  // it also counts the files
  }
  EXPECT_EQ(fs::file_size(state_ + "/log/tile/0/000"), 256u * 32);
  EXPECT_EQ(fs::file_size(state_ + "/log/tile/0/002.p/88"), 88u * 32);
  EXPECT_EQ(fs::file_size(state_ + "/log/tile/1/000.p/2"), 2u * 32);
  EXPECT_TRUE(fs::exists(state_ + "/log/tile/entries/002.p/88"));
  EXPECT_FALSE(fs::exists(state_ + "/log/tile/0/001.p"));
}

TEST_F(LogStoreTest, AThirdLevelIsMadeAt65536Records) {
  opened();
  auto log = SealedLog::open(sandbox::UniqueFd(::open(state_.c_str(), O_RDONLY | O_DIRECTORY)));
  ASSERT_TRUE(log);
  uint64_t seq = 0;
  while (seq < 65536 + 300) {
    std::vector<std::string> bytes;
    for (size_t i = 0; i < kMaxBatchRecords && seq < 65536 + 300; ++i) {
      std::vector<uint8_t> encoded;
      ++seq;
      kernel::encode_record(
          record("run", seq, seq == 65836 ? RecordKind::kStop : RecordKind::kOutcome), encoded);
      bytes.emplace_back(encoded.begin(), encoded.end());
    }
    ASSERT_TRUE(log->append(std::vector<std::string_view>(bytes.begin(), bytes.end())));
  }
  EXPECT_EQ(verdict(), "yes");
  EXPECT_TRUE(fs::exists(state_ + "/log/tile/1/000"));
  EXPECT_TRUE(fs::exists(state_ + "/log/tile/2/000.p/1"));
  EXPECT_EQ(opened().size(), 65836u);
}

TEST_F(LogStoreTest, RecordsOfAnotherRunOrOutOfSequenceAreNotSealed) {
  for (const Record& bad : {record("other", 2), record("run", 3), record("run", 1)}) {
    LogStore store = opened();
    auto segment = store.create_segment("run");
    ASSERT_TRUE(segment);
    ASSERT_TRUE(append_record(segment->append.get(), record("run", 1)));
    ASSERT_TRUE(append_record(segment->append.get(), bad));
    EXPECT_FALSE(store.seal(segment->tail));
    EXPECT_EQ(store.size(), 1u);
    fs::remove_all(state_);
  }
}

TEST_F(LogStoreTest, AFrameThatIsStillBeingWrittenWaits) {
  LogStore store = opened();
  auto segment = store.create_segment("run");
  ASSERT_TRUE(segment);
  std::vector<uint8_t> encoded, frame;
  kernel::encode_record(record("run", 1), encoded);
  ASSERT_TRUE(supervisor::append_frame(encoded.data(), encoded.size(), frame));
  for (const uint8_t byte : frame) {
    EXPECT_EQ(*store.seal(segment->tail), 0u);
    ASSERT_EQ(::write(segment->append.get(), &byte, 1), 1);
  }
  EXPECT_EQ(*store.seal(segment->tail), 1u);
}

TEST_F(LogStoreTest, ALogShorterThanItsLastCheckpointIsRefused) {
  {
    LogStore store = opened();
    whole_run(store, "first", 3);
  }
  const std::string old = root_ + "/old";
  fs::copy(state_ + "/log", old, fs::copy_options::recursive);
  {
    LogStore store = opened();
    whole_run(store, "second", 3);
  }
  EXPECT_EQ(verdict(), "yes");
  fs::remove_all(state_ + "/log");
  fs::copy(old, state_ + "/log", fs::copy_options::recursive);
  EXPECT_TRUE(verdict().starts_with("no: log/checkpoint")) << verdict();
  const auto store = LogStore::open(state_);
  ASSERT_FALSE(store);
  EXPECT_NE(store.error().what.find("shorter than its last signed checkpoint"), std::string::npos)
      << store.error().what;
}

TEST_F(LogStoreTest, MissingPiecesAreRefused) {
  {
    LogStore store = opened();
    whole_run(store, "first", 3);
  }
  for (const char* name : {"/checkpoint.last", "/log/checkpoint", "/key.pub", "/key",
                           "/log/tile/0/000.p/3", "/log/tile/entries/000.p/3"}) {
    fs::rename(state_ + name, root_ + "/kept");
    EXPECT_FALSE(LogStore::open(state_)) << name;
    fs::rename(root_ + "/kept", state_ + name);
  }
  EXPECT_TRUE(LogStore::open(state_));
}

TEST_F(LogStoreTest, AnOpenStoreNoticesThatTheLogWentBack) {
  LogStore store = opened();
  whole_run(store, "first", 2);
  fs::copy(state_, root_ + "/old", fs::copy_options::recursive);
  whole_run(store, "second", 2);
  for (const char* name : {"/log", "/checkpoint.last"}) {
    fs::remove_all(state_ + name);
    fs::copy(root_ + "/old" + name, state_ + name, fs::copy_options::recursive);
  }
  EXPECT_TRUE(LogStore::open(state_));  // nobody else can know: both were put back
  EXPECT_FALSE(store.check());
  EXPECT_FALSE(store.check());
}

TEST_F(LogStoreTest, AFailedWriteEndsTheStoreAndLeavesTheLogWhole) {
  {
    LogStore store = opened();
    whole_run(store, "first", 3);
  }
  EXPECT_TRUE(in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    LogStore store = opened();
    auto segment = store.create_segment("second");
    if (!append_record(segment->append.get(), record("second", 1))) return false;
    const rlimit limit{64, 64};  // a full disk, for every file larger than this
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const auto sealed = store.seal(segment->tail);
    return !sealed && !store.seal(segment->tail) && !store.check();
  }));
  LogStore store = opened();
  const Status recovered = store.recover();
  ASSERT_TRUE(recovered) << recovered.error().what;
  EXPECT_EQ(store.size(), 5u);  // first: 3, second: its record and a gap
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogStoreTest, AFullDiskTearsTheSegmentAndSaysSo) {
  opened();
  EXPECT_TRUE(in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    LogStore store = opened();
    auto segment = store.create_segment("run");
    if (!append_record(segment->append.get(), record("run", 1))) return false;
    const rlimit limit{fs::file_size(state_ + "/segments/run.seg") + 10, RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    return !append_record(segment->append.get(), record("run", 2));
  }));
  LogStore store = opened();
  ASSERT_TRUE(store.recover());
  EXPECT_EQ(store.size(), 2u);
  EXPECT_EQ(verdict(), "yes");
}

TEST_F(LogStoreTest, TwoProcessesSealIntoOneLog) {
  opened();
  auto run_many = [&](const std::string& prefix) {
    auto store = LogStore::open(state_);
    if (!store) return false;
    for (int run = 0; run < 3; ++run) {
      const std::string id = prefix + std::to_string(run);
      auto segment = store->create_segment(id);
      if (!segment) return false;
      for (uint64_t seq = 1; seq <= 40; ++seq) {
        const auto kind = seq == 40 ? RecordKind::kStop : RecordKind::kOutcome;
        if (!append_record(segment->append.get(), record(id, seq, kind))) return false;
        if (seq % 7 == 0 && !store->seal(segment->tail)) return false;
        if (seq % 20 == 0 && !store->recover()) return false;
      }
      if (!store->finish(segment->tail)) return false;
    }
    return true;
  };
  const pid_t child = ::fork();
  if (child == 0) ::_exit(run_many("a") ? 0 : 1);
  EXPECT_TRUE(run_many("b"));
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(verdict(), "yes");
  EXPECT_EQ(records(), 240u);
}

}  // namespace
}  // namespace certgate::agentd
