#include "supervisor/home_archive.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

namespace fs = std::filesystem;
using kernel::Label;
using sandbox::UniqueFd;

class HomeArchive : public testing::Test {
 protected:
  HomeArchive() : archive_(::memfd_create("archive", MFD_CLOEXEC)) {
    char name[] = "/tmp/certgate-home-XXXXXX";
    base_ = ::mkdtemp(name);
    for (const char* part : {"from", "to", "elsewhere"}) fs::create_directory(base_ / part);
  }
  ~HomeArchive() override { fs::remove_all(base_); }

  UniqueFd open(const char* part) const {
    return UniqueFd(::open((base_ / part).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  void write(const fs::path& path, const std::string& text) const {
    std::ofstream(base_ / path) << text;
  }
  Status pack(const std::vector<std::string>& mounts = {}) const {
    return pack_home(open("from").get(), mounts, label_, archive_.get());
  }
  Status unpack() const { return unpack_home(archive_.get(), open("to").get()); }

  const UniqueFd archive_;
  const Label label_ = *Label::parse("operator,web:a.test");
  fs::path base_;
};

TEST_F(HomeArchive, GivesBackFilesDirectoriesAndLinkTextsWithTheLabel) {
  fs::create_directories(base_ / "from/a/b");
  write("from/a/b/file", "text");
  fs::create_symlink("/etc/passwd", base_ / "from/a/link");
  ASSERT_TRUE(pack());
  const auto label = archive_label(archive_.get());
  ASSERT_TRUE(label);
  EXPECT_EQ(*label, label_);
  ASSERT_TRUE(unpack());
  std::ifstream file(base_ / "to/a/b/file");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "text");
  EXPECT_EQ(fs::read_symlink(base_ / "to/a/link"), "/etc/passwd");
}

TEST_F(HomeArchive, LeavesOutWhatIsMountedAndWhatIsNoFile) {
  fs::create_directory(base_ / "from/a");
  write("from/a/key", "secret");
  ::mkfifo((base_ / "from/fifo").c_str(), 0600);
  ASSERT_TRUE(pack({"a/key"}));
  ASSERT_TRUE(unpack());
  EXPECT_TRUE(fs::is_directory(base_ / "to/a"));
  EXPECT_FALSE(fs::exists(base_ / "to/a/key"));
  EXPECT_FALSE(fs::exists(base_ / "to/fifo"));
}

TEST_F(HomeArchive, WritesThroughNoLinkAndOverNoFileThatIsThereAlready) {
  fs::create_directory(base_ / "from/d");
  write("from/d/file", "planted");
  write("from/f", "planted");
  ASSERT_TRUE(pack());
  fs::create_directory_symlink(base_ / "elsewhere", base_ / "to/d");
  write("to/f", "ours");
  ASSERT_TRUE(unpack());
  EXPECT_TRUE(fs::is_empty(base_ / "elsewhere"));
  std::ifstream file(base_ / "to/f");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "ours");
}

TEST_F(HomeArchive, AnArchiveCutAnywhereIsRefused) {
  write("from/file", "text");
  ASSERT_TRUE(pack());
  struct stat s {};
  ASSERT_EQ(::fstat(archive_.get(), &s), 0);
  for (off_t size = s.st_size - 1; size >= 0; --size) {
    ASSERT_EQ(::ftruncate(archive_.get(), size), 0);
    EXPECT_FALSE(archive_label(archive_.get())) << size;
  }
}

TEST_F(HomeArchive, ANameThatIsNotOneComponentIsRefused) {
  write("from/abcd", "text");
  for (const char* name : {"../x", "a/bc", ".", ".."}) {
    ASSERT_EQ(::ftruncate(archive_.get(), 0), 0);
    ASSERT_TRUE(pack());
    const auto size = static_cast<uint32_t>(std::strlen(name));
    if (size == 4) {  // the first name lies behind the header and its entry
      ASSERT_EQ(::pwrite(archive_.get(), name, size, 24 + 32), size);
    } else {
      ASSERT_EQ(::pwrite(archive_.get(), &size, sizeof size, 24 + 4), 4);
      ASSERT_EQ(::pwrite(archive_.get(), name, size, 24 + 32), size);
    }
    EXPECT_FALSE(unpack()) << name;
    EXPECT_TRUE(fs::is_empty(base_ / "to"));
    EXPECT_FALSE(fs::exists(base_ / "x"));
  }
}

}  // namespace
}  // namespace certgate::supervisor
