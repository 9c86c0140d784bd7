#include "agentd/running.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <thread>

#include "agentd/label_store.h"
#include "supervisor/label_view.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using supervisor::LabelView;
using supervisor::ReaderTable;

// Stores of several runs on one directory; each run that reads has a thread that answers for it.
class RunningTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-running-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { fs::remove_all(dir_); }

  static kernel::FileIdentity file(uint64_t n) { return {7, n, 1}; }
  static kernel::Label label(const std::string& text) { return *kernel::Label::parse(text); }
  static std::string stored(const LabelStore& store, uint64_t n) {
    const LabelView view =
        std::move(LabelView::open(*store.table_for_reading(), *store.names_for_reading())).value();
    const auto found = view.find(file(n));
    return found && *found ? (*found)->text() : "";
  }

  struct Reader {
    Reader(const std::string& dir, const std::string& id, std::vector<uint64_t> reads,
           ReaderTable::Answer will)
        : store(std::move(LabelStore::open(dir)).value()),
          table(std::move(ReaderTable::open(*store.begin_run(id))).value()),
          answer(std::move(will)) {
      for (const uint64_t n : reads) table.note(file(n));
      thread = std::thread([this] {
        const auto request = table.wait(0);
        if (request.label == 0) return;
        asked = true;
        table.answer(request, answer);
        decision = table.decision(request, std::chrono::milliseconds(5000));
        table.finish(request);
      });
    }
    ~Reader() {
      if (!asked) table.ask(0, {}, "", std::chrono::milliseconds(0));  // ends the thread
      thread.join();
    }
    LabelStore store;
    ReaderTable table;
    const ReaderTable::Answer answer;
    std::optional<ReaderTable::Decision> decision;
    std::atomic<bool> asked = false;
    std::thread thread;
  };

  std::string dir_;
};

TEST_F(RunningTest, OnlyWhoMayBeReadingIsAsked) {
  LabelStore store = std::move(LabelStore::open(dir_)).value();
  ASSERT_TRUE(store.begin_run("writer"));
  Reader reads(dir_, "reads", {1}, {true, {}}), other(dir_, "other", {2}, {true, {}});
  ASSERT_TRUE(store.join(file(1), label("web:a.test")));
  EXPECT_EQ(reads.decision, ReaderTable::Decision::kTake) << "done before join() returns";
  EXPECT_FALSE(other.asked);
  EXPECT_EQ(stored(store, 1), "web:a.test");
}

TEST_F(RunningTest, TheLabelGoesThroughWhatReadersWrite) {
  LabelStore store = std::move(LabelStore::open(dir_)).value();
  ASSERT_TRUE(store.begin_run("writer"));
  Reader first(dir_, "first", {1}, {true, {file(2)}}),
      second(dir_, "second", {2}, {true, {file(1)}});
  ASSERT_TRUE(store.join(file(1), label("web:a.test")));
  EXPECT_EQ(first.decision, ReaderTable::Decision::kTake);
  EXPECT_EQ(second.decision, ReaderTable::Decision::kTake);
  EXPECT_EQ(stored(store, 2), "web:a.test");
}

TEST_F(RunningTest, WhenOneCannotNothingHasChanged) {
  LabelStore store = std::move(LabelStore::open(dir_)).value();
  ASSERT_TRUE(store.begin_run("writer"));
  ASSERT_TRUE(store.join(file(2), label("user")));
  {
    Reader first(dir_, "first", {1}, {true, {file(2)}}), second(dir_, "second", {2}, {false, {}});
    const Status joined = store.join(file(1), label("web:a.test"));
    ASSERT_FALSE(joined);
    EXPECT_EQ(joined.error().code, EBUSY);
    EXPECT_NE(joined.error().what.find("second"), std::string::npos) << joined.error().what;
    first.thread.join();
    EXPECT_EQ(first.decision, ReaderTable::Decision::kLeave);
    first.thread = std::thread([] {});
    EXPECT_EQ(stored(store, 1), "");
    EXPECT_EQ(stored(store, 2), "user");
  }
  ASSERT_TRUE(store.join(file(1), label("web:b.test"))) << "both have ended";
  EXPECT_EQ(stored(store, 1), "web:b.test") << "the slot that was taken back is used again";
}

TEST_F(RunningTest, WhatDeadRunsLeftIsRemovedAndAsksNobody) {
  { LabelStore(std::move(LabelStore::open(dir_)).value()).begin_run("dead").value(); }
  EXPECT_TRUE(fs::exists(dir_ + "/run-dead"));
  LabelStore store = std::move(LabelStore::open(dir_)).value();
  ASSERT_TRUE(store.begin_run("writer"));
  EXPECT_FALSE(fs::exists(dir_ + "/run-dead"));
  ASSERT_TRUE(store.join(file(1), label("web:a.test")));
  store.end_run();
  EXPECT_FALSE(fs::exists(dir_ + "/run-writer"));
}

}  // namespace
}  // namespace certgate::agentd
