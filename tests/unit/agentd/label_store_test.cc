#include "agentd/label_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "supervisor/label_format.h"
#include "supervisor/label_view.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using supervisor::LabelView;

class LabelStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-labels-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern + "/a/labels";
  }
  void TearDown() override { fs::remove_all(fs::path(dir_).parent_path().parent_path()); }
  static kernel::FileIdentity file(uint64_t n) { return {7, n, static_cast<int64_t>(n) * 1000}; }
  static kernel::Label label(const std::string& text) { return *kernel::Label::parse(text); }
  LabelView view(const LabelStore& store) {
    return std::move(LabelView::open(*store.table_for_reading(), *store.names_for_reading()))
        .value();
  }

  std::string dir_;
};

TEST_F(LabelStoreTest, AJoinIsSeenAtOnceAndOnlyGrows) {
  LabelStore store = std::move(LabelStore::open(dir_)).value();
  const LabelView reader = view(store);
  EXPECT_FALSE(reader.find(file(1))->has_value());
  ASSERT_TRUE(store.join(file(1), label("user")));
  EXPECT_EQ(**reader.find(file(1)), label("user"));
  ASSERT_TRUE(store.join(file(1), label("web:a.test")));
  ASSERT_TRUE(store.join(file(1), label("user")));
  EXPECT_EQ(**reader.find(file(1)), label("user,web:a.test"));
  EXPECT_FALSE(reader.find(file(2))->has_value());
  // The same inode number, born at another time, is another file.
  EXPECT_FALSE(reader.find({7, 1, 5})->has_value());
}

TEST_F(LabelStoreTest, LabelsOutliveTheProcess) {
  { ASSERT_TRUE(LabelStore::open(dir_)->join(file(1), label("web:a.test"))); }
  LabelStore again = std::move(LabelStore::open(dir_)).value();
  EXPECT_EQ(**view(again).find(file(1)), label("web:a.test"));
}

TEST_F(LabelStoreTest, ManyProcessesLoseNothing) {
  { ASSERT_TRUE(LabelStore::open(dir_)); }
  std::vector<pid_t> children;
  for (int child = 0; child < 4; ++child) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    LabelStore store = std::move(LabelStore::open(dir_)).value();
    for (uint64_t n = 0; n < 200; ++n) {
      if (!store.join(file(n), label("web:h" + std::to_string(child)))) ::_exit(1);
    }
    ::_exit(0);
  }
  for (const pid_t child : children) {
    int status = 1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  LabelStore store = std::move(LabelStore::open(dir_)).value();
  const LabelView reader = view(store);
  for (uint64_t n = 0; n < 200; ++n) {
    EXPECT_EQ(**reader.find(file(n)), label("web:h0,web:h1,web:h2,web:h3")) << n;
  }
}

TEST_F(LabelStoreTest, AKillAtAnyMomentLeavesAReadableStore) {
  { ASSERT_TRUE(LabelStore::open(dir_)); }
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      LabelStore store = std::move(LabelStore::open(dir_)).value();
      for (uint64_t n = 0;; ++n) {
        (void)static_cast<bool>(store.join(
            file(n % 500), label("web:r" + std::to_string(round) + "-" + std::to_string(n))));
      }
    }
    ::usleep(static_cast<useconds_t>(2000 + round * 700));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    LabelStore store = std::move(LabelStore::open(dir_)).value();
    const LabelView reader = view(store);
    for (uint64_t n = 0; n < 500; ++n) ASSERT_TRUE(reader.find(file(n))) << round << " " << n;
    ASSERT_TRUE(store.join(file(1), label("user")));
  }
}

TEST_F(LabelStoreTest, ADamagedSlotIsAnErrorNotAnUnlabelledFile) {
  LabelStore store = std::move(LabelStore::open(dir_)).value();
  ASSERT_TRUE(store.join(file(1), label("web:a.test")));
  const auto slot = supervisor::label_hash(file(1)) & (supervisor::kLabelSlots - 1);
  const auto at =
      static_cast<off_t>(sizeof(supervisor::LabelHeader) + slot * sizeof(supervisor::LabelSlot));
  const sandbox::UniqueFd table(::open((dir_ + "/labels.tab").c_str(), O_RDWR));
  const uint64_t wrong = 99;
  ASSERT_EQ(::pwrite(table.get(), &wrong, sizeof wrong, at), 8);
  EXPECT_FALSE(view(store).find(file(1)));
}

TEST_F(LabelStoreTest, WhatOthersCouldWriteIsRefused) {
  { ASSERT_TRUE(LabelStore::open(dir_)); }
  fs::permissions(dir_, fs::perms::others_write, fs::perm_options::add);
  EXPECT_FALSE(LabelStore::open(dir_));
  fs::permissions(dir_, fs::perms::owner_all);
  const std::string link = dir_ + "-link";
  fs::create_directory_symlink(dir_, link);
  EXPECT_FALSE(LabelStore::open(link));
}

}  // namespace
}  // namespace certgate::agentd
