#include "supervisor/reader_table.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <thread>

namespace certgate::supervisor {
namespace {

using kernel::FileIdentity;
using std::chrono::milliseconds;

sandbox::UniqueFd prepared() {
  sandbox::UniqueFd fd(::memfd_create("readers", MFD_CLOEXEC));
  EXPECT_TRUE(ReaderTable::prepare(fd.get()));
  return fd;
}

FileIdentity file(uint64_t number) { return {7, number, 3}; }

TEST(ReaderTable, WhatIsNotedIsFoundAndNothingElse) {
  ReaderTable table = *ReaderTable::open(prepared());
  for (uint64_t i = 0; i < 2000; i += 2) table.note(file(i));
  for (uint64_t i = 0; i < 2000; ++i) EXPECT_EQ(table.may_read(file(i)), i % 2 == 0) << i;
  table.close();
  EXPECT_FALSE(table.may_read(file(0))) << "nobody reads any more";
}

TEST(ReaderTable, AFullOneReadsEverything) {
  ReaderTable table = *ReaderTable::open(prepared());
  for (uint64_t i = 0; i < 200'000; ++i) table.note(file(i));
  for (uint64_t i = 0; i < 1000; ++i) EXPECT_TRUE(table.may_read(file(1'000'000 + i)));
}

TEST(ReaderTable, ThreadsThatNoteTheSameFilesLoseNone) {
  ReaderTable table = *ReaderTable::open(prepared());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < 5000; ++i) table.note(file(i));
    });
  for (std::thread& thread : threads) thread.join();
  for (uint64_t i = 0; i < 5000; ++i) EXPECT_TRUE(table.may_read(file(i)));
}

TEST(ReaderTable, ARequestIsAnsweredDecidedAndFinished) {
  sandbox::UniqueFd fd = prepared();
  sandbox::UniqueFd copy(::dup(fd.get()));
  ReaderTable asked = *ReaderTable::open(std::move(fd));
  ReaderTable asking = *ReaderTable::open(std::move(copy));
  std::thread run([&] {
    const auto request = asked.wait(0);
    EXPECT_EQ(request.label, 5u);
    EXPECT_EQ(request.file, file(9));
    EXPECT_EQ(request.run, "abcd2345");
    asked.answer(request, {true, {file(1), file(2)}});
    EXPECT_EQ(asked.decision(request, milliseconds(5000)), ReaderTable::Decision::kTake);
    asked.finish(request);
  });
  const auto answer = asking.ask(5, file(9), "abcd2345", milliseconds(5000));
  ASSERT_TRUE(answer);
  EXPECT_TRUE(answer->can);
  EXPECT_EQ(answer->held, (std::vector<FileIdentity>{file(1), file(2)}));
  asking.decide(ReaderTable::Decision::kTake);
  EXPECT_TRUE(asking.finished(milliseconds(5000)));
  run.join();
}

TEST(ReaderTable, WhoDoesNotAnswerIsAskedOnceAndToldToGoOn) {
  ReaderTable table = *ReaderTable::open(prepared());
  EXPECT_FALSE(table.ask(5, file(9), "abcd2345", milliseconds(10)));
  EXPECT_FALSE(table.ask(5, file(9), "abcd2345", milliseconds(60'000))) << "without waiting";
  const auto request = table.wait(0);
  table.answer(request, {true, {}});
  EXPECT_EQ(table.decision(request, milliseconds(10)), ReaderTable::Decision::kLeave);
  table.finish(request);
  EXPECT_FALSE(table.ask(5, file(9), "abcd2345", milliseconds(10))) << "asked again";
}

TEST(ReaderTable, ARunThatHasEndedHoldsNobodyUp) {
  ReaderTable table = *ReaderTable::open(prepared());
  table.close();
  const auto answer = table.ask(5, file(9), "abcd2345", milliseconds(60'000));
  EXPECT_TRUE(answer && answer->can && answer->held.empty());
  EXPECT_TRUE(table.finished(milliseconds(60'000)));
}

TEST(ReaderTable, WhatIsNoTableIsRefused) {
  sandbox::UniqueFd empty(::memfd_create("empty", MFD_CLOEXEC));
  EXPECT_FALSE(ReaderTable::open(std::move(empty)));
  sandbox::UniqueFd zeros = prepared();
  const uint64_t zero = 0;
  ASSERT_EQ(::pwrite(zeros.get(), &zero, sizeof zero, 0), ssize_t{sizeof zero});
  EXPECT_FALSE(ReaderTable::open(std::move(zeros)));
}

}  // namespace
}  // namespace certgate::supervisor
