#include "supervisor/blob_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "kernel/merkle.h"

namespace certgate::supervisor {
namespace {

class BlobFileTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/certgate-blobs-XXXXXX";
    ::close(::mkstemp(name));
    path_ = name;
  }
  void TearDown() override { ::unlink(path_.c_str()); }
  sandbox::UniqueFd opened() const {
    return sandbox::UniqueFd(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  }
  std::string bytes() const {
    std::ifstream file(path_, std::ios::binary);
    std::ostringstream out;
    out << file.rdbuf();
    return out.str();
  }
  std::string path_;
};

TEST_F(BlobFileTest, TheRecordsEntryProvesTheValueAndNothingElse) {
  BlobFile file(opened());
  const auto one = file.add("argv[1]", "secret"), two = file.add("argv[1]", "secret");
  ASSERT_TRUE(one && two);
  ASSERT_EQ(one->size(), 1u);
  EXPECT_NE((*one)[0], (*two)[0]);  // another salt: equal values cannot be told to be so
  kernel::Digest commitment;
  std::string name;
  ASSERT_TRUE(split_entry((*one)[0], commitment, name));
  EXPECT_EQ(name, "argv[1]");
  EXPECT_NE(commitment, kernel::sha256("secret", 6));
  const std::string all = bytes();
  const auto blobs = read_blobs(all);
  ASSERT_EQ(blobs.size(), 2u);
  EXPECT_EQ(blobs[0].commitment, commitment);
  EXPECT_EQ(blobs[0].value, "secret");
  EXPECT_FALSE(blobs[0].erased);
}

TEST_F(BlobFileTest, ALongValueIsSeveralBlobsInOrder) {
  BlobFile file(opened());
  std::string value(150000, 'a');
  value.back() = 'z';
  const auto entries = file.add("env", value);
  ASSERT_TRUE(entries);
  EXPECT_EQ(entries->size(), 3u);
  const std::string all = bytes();
  std::string joined;
  for (const Blob& blob : read_blobs(all)) joined += blob.value;
  EXPECT_EQ(joined, value);
}

TEST_F(BlobFileTest, AnEnvironmentThatStaysTheSameIsKeptOnce) {
  BlobFile file(opened());
  const auto first = file.add("env", "A=1"), again = file.add("env", "A=1");
  ASSERT_TRUE(first && again);
  EXPECT_EQ(*first, *again);
  const auto other = file.add("env", "A=2");
  ASSERT_TRUE(other);
  EXPECT_NE(*first, *other);
  const std::string all = bytes();
  EXPECT_EQ(read_blobs(all).size(), 2u);
}

TEST_F(BlobFileTest, EveryCutAndEveryFlippedBitIsNoBlob) {
  BlobFile file(opened());
  ASSERT_TRUE(file.add("argv[1]", "secret"));
  const std::string all = bytes();
  const kernel::Digest good = read_blobs(all)[0].commitment;
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_TRUE(read_blobs(std::string_view(all).substr(0, i)).empty());
    std::string changed = all;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    for (const Blob& blob : read_blobs(changed)) EXPECT_NE(blob.commitment, good) << i;
  }
}

TEST_F(BlobFileTest, AnErrorOfTheDiskIsOne) {
  BlobFile full(sandbox::UniqueFd(::open("/dev/full", O_WRONLY | O_CLOEXEC)));
  EXPECT_FALSE(full.add("argv[0]", "x"));
}

}  // namespace
}  // namespace certgate::supervisor
