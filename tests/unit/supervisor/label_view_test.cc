#include "supervisor/label_view.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <set>
#include <string>

#include "supervisor/label_format.h"

namespace certgate::supervisor {
namespace {

using kernel::FileIdentity;
using sandbox::UniqueFd;

// A table and its names, written by hand as the authority would.
class Tables {
 public:
  Tables()
      : table_(::memfd_create("table", MFD_CLOEXEC)), names_(::memfd_create("names", MFD_CLOEXEC)) {
    EXPECT_EQ(::ftruncate(table_.get(), static_cast<off_t>(kLabelFileBytes)), 0);
    put(0, kLabelMagic);
    put(offsetof(LabelHeader, capacity), kLabelSlots);
  }
  template <typename T>
  void put(uint64_t offset, T value) {
    ASSERT_EQ(::pwrite(table_.get(), &value, sizeof value, static_cast<off_t>(offset)),
              static_cast<ssize_t>(sizeof value));
  }
  static uint64_t slot_of(const FileIdentity& file, uint64_t probes = 0) {
    return (label_hash(file) + probes) & (kLabelSlots - 1);
  }
  void put_slot(uint64_t slot, const FileIdentity& file, uint32_t label) {
    put_slot(slot, file, label, label_check(file));
  }
  void put_slot(uint64_t slot, const FileIdentity& file, uint32_t label, uint32_t check) {
    const uint64_t at = sizeof(LabelHeader) + slot * sizeof(LabelSlot);
    put(at + offsetof(LabelSlot, fsid), file.fsid);
    put(at + offsetof(LabelSlot, ino), file.ino);
    put(at + offsetof(LabelSlot, btime_ns), file.btime_ns);
    put(at + offsetof(LabelSlot, check), check);
    put(at + offsetof(LabelSlot, label), label);
  }
  void put_name(const std::string& text) {
    ASSERT_EQ(::write(names_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  void resize(uint64_t size) { ASSERT_EQ(::ftruncate(table_.get(), static_cast<off_t>(size)), 0); }
  Result<LabelView> open() const {
    return LabelView::open(UniqueFd(::dup(table_.get())), UniqueFd(::dup(names_.get())));
  }

 private:
  UniqueFd table_, names_;
};

constexpr FileIdentity kFile{7, 42, 1000};

std::string text_of(const Result<std::optional<kernel::Label>>& found) {
  return !found ? "error" : *found ? (*found)->text() : "none";
}

TEST(LabelView, AFileWithoutASlotHasNoLabel) {
  const Tables tables;
  EXPECT_EQ(text_of(tables.open()->find(kFile)), "none");
}

TEST(LabelView, AFileIsFoundByItsWholeIdentity) {
  Tables tables;
  tables.put_name("operator\nweb:a.test\n");
  tables.put_slot(Tables::slot_of(kFile), kFile, 2);
  const auto view = tables.open();
  EXPECT_EQ(text_of(view->find(kFile)), "web:a.test");
  EXPECT_EQ(text_of(view->find({8, 42, 1000})), "none");
  EXPECT_EQ(text_of(view->find({7, 43, 1000})), "none");
  EXPECT_EQ(text_of(view->find({7, 42, 1001})), "none");
}

TEST(LabelView, OthersInTheWayAreProbedPastUntilAnEmptySlot) {
  Tables tables;
  tables.put_name("operator\nuser\n");
  for (uint64_t i = 0; i < 3; ++i) tables.put_slot(Tables::slot_of(kFile, i), {1, i + 1, 0}, 1);
  tables.put_slot(Tables::slot_of(kFile, 3), kFile, 2);
  EXPECT_EQ(text_of(tables.open()->find(kFile)), "user");
  tables.put_slot(Tables::slot_of(kFile, 2), {}, 0);
  EXPECT_EQ(text_of(tables.open()->find(kFile)), "none");
}

TEST(LabelView, ADamagedSlotIsAnErrorNeverAFileWithoutALabel) {
  Tables tables;
  tables.put_name("operator\n");
  const uint32_t check = label_check(kFile);
  for (unsigned bit = 0; bit < 32; ++bit) {
    tables.put_slot(Tables::slot_of(kFile), kFile, 1, check ^ 1u << bit);
    EXPECT_EQ(text_of(tables.open()->find(kFile)), "error") << bit;
  }
  // Damage of the key of a slot that only lies in the way is noticed too.
  tables.put_slot(Tables::slot_of(kFile), {7, 42, 1000 ^ 4}, 1, check);
  EXPECT_EQ(text_of(tables.open()->find(kFile)), "error");
}

TEST(LabelView, ALabelIdThatWasNeverWrittenIsAnError) {
  Tables tables;
  tables.put_name("operator\n");
  tables.put_slot(Tables::slot_of(kFile), kFile, 2);
  EXPECT_EQ(text_of(tables.open()->find(kFile)), "error");
}

TEST(LabelView, APartOfALineIsNoLabelAndALineWrittenLaterIsSeen) {
  Tables tables;
  tables.put_name("operator\nweb:a");
  tables.put_slot(Tables::slot_of(kFile), kFile, 2);
  const auto view = tables.open();
  EXPECT_EQ(text_of(view->find(kFile)), "error");  // not web:a: the line has no end yet
  tables.put_name(".test\n");
  EXPECT_EQ(text_of(view->find(kFile)), "web:a.test");
}

TEST(LabelView, ALineThatIsNoLabelIsAnError) {
  Tables tables;
  tables.put_name("nonsense\n");
  tables.put_slot(Tables::slot_of(kFile), kFile, 1);
  EXPECT_EQ(text_of(tables.open()->find(kFile)), "error");
}

TEST(LabelView, ATableWithoutAnEmptySlotEndsTheSearchWithAnError) {
  Tables tables;
  tables.put_name("operator\n");
  for (uint64_t i = 0; i < 4096; ++i) tables.put_slot(Tables::slot_of(kFile, i), {1, i + 1, 0}, 1);
  EXPECT_EQ(text_of(tables.open()->find(kFile)), "error");
}

TEST(LabelView, ATableOfAnotherSizeOrFormIsRefused) {
  Tables tables;
  tables.resize(kLabelFileBytes - 1);
  EXPECT_FALSE(tables.open());
  tables.resize(kLabelFileBytes);
  EXPECT_TRUE(tables.open());
  tables.put(offsetof(LabelHeader, capacity), kLabelSlots / 2);
  EXPECT_FALSE(tables.open());
  tables.put(offsetof(LabelHeader, capacity), kLabelSlots);
  tables.put(0, kLabelMagic + 1);
  EXPECT_FALSE(tables.open());
}

TEST(LabelFormat, IsTheSameOnEveryMachineAndInEveryRelease) {
  EXPECT_EQ(offsetof(LabelHeader, capacity), 8u);
  EXPECT_EQ(offsetof(LabelHeader, used), 16u);
  EXPECT_EQ(offsetof(LabelSlot, ino), 8u);
  EXPECT_EQ(offsetof(LabelSlot, btime_ns), 16u);
  EXPECT_EQ(offsetof(LabelSlot, label), 24u);
  EXPECT_EQ(offsetof(LabelSlot, check), 28u);
  EXPECT_EQ(kLabelSlots & (kLabelSlots - 1), 0u);
  // Labels are kept across releases: another hash would lose every one of them.
  EXPECT_EQ(label_hash(kFile), 0x7d6edd5d6ea56a8fu);
  EXPECT_EQ(label_check(kFile), 0xb64ade35u);
}

TEST(LabelFormat, EveryBitOfAKeyChangesItsHashAndItsCheck) {
  for (uint64_t n = 1; n <= 50; ++n) {
    const FileIdentity file{n * 0x9e37, n * n, static_cast<int64_t>(n) * 1'000'000'007};
    for (unsigned bit = 0; bit < 64; ++bit) {
      for (const FileIdentity& other :
           {FileIdentity{file.fsid ^ 1ull << bit, file.ino, file.btime_ns},
            FileIdentity{file.fsid, file.ino ^ 1ull << bit, file.btime_ns},
            FileIdentity{file.fsid, file.ino, file.btime_ns ^ static_cast<int64_t>(1ull << bit)}}) {
        EXPECT_NE(label_hash(other), label_hash(file));
        EXPECT_NE(label_check(other), label_check(file)) << n << " bit " << bit;
      }
    }
  }
}

// Inode numbers come in runs; their slots must not.
TEST(LabelFormat, NeighbouringFilesSpreadOverTheTable) {
  std::set<uint64_t> slots;
  for (uint64_t ino = 1; ino <= 4096; ++ino) slots.insert(Tables::slot_of({7, ino, 0}) / 512);
  EXPECT_GT(slots.size(), 2000u);
}

}  // namespace
}  // namespace certgate::supervisor
