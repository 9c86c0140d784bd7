#include "supervisor/path_walk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace certgate::supervisor {
namespace {

namespace fs = std::filesystem;

// A tree of its own that plays the agent's root:  /a/b/file  /a/up -> ../a/b  /abs -> /a/b/file  …
class PathWalkTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-walk-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    fs::create_directories(root_ / "a/b");
    std::ofstream(root_ / "a/b/file") << "x";
    fs::create_symlink("../a/b", root_ / "a/up");
    fs::create_symlink("/a/b/file", root_ / "abs");
    fs::create_symlink("../../../../../etc/passwd", root_ / "a/escape");
    fs::create_symlink("loop", root_ / "loop");
    fs::create_symlink("/a/new", root_ / "dangling");
    root_fd_.reset(::open(root_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    a_.reset(::open((root_ / "a").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  void TearDown() override { fs::remove_all(root_); }

  Resolution resolve(const std::string& path, int base = -1, Final final = Final::kFollow,
                     Missing missing = Missing::kError, uint64_t flags = 0) {
    return PathWalk(root_fd_.get())
        .resolve(Caller{::getpid()}, Base{base}, path, final, missing, flags);
  }
  ino_t inode(const std::string& inside) {
    struct stat s {};
    EXPECT_EQ(::lstat((root_.string() + inside).c_str(), &s), 0);
    return s.st_ino;
  }
  ino_t found(const Resolution& r) {
    ObjectFacts facts;
    EXPECT_EQ(r.error, 0);
    EXPECT_EQ(object_facts(r.object.get(), facts), 0);
    return facts.identity.ino;
  }

  fs::path root_;
  sandbox::UniqueFd root_fd_, a_;
};

TEST_F(PathWalkTest, FindsWhatTheCallerWouldFind) {
  EXPECT_EQ(found(resolve("/a/b/file")), inode("/a/b/file"));
  EXPECT_EQ(found(resolve("//a/./b//../b/file")), inode("/a/b/file"));
  EXPECT_EQ(found(resolve("b/file", a_.get())), inode("/a/b/file"));
  EXPECT_EQ(found(resolve("../abs", a_.get())), inode("/a/b/file"));
  EXPECT_EQ(found(resolve("up/file", a_.get())), inode("/a/b/file"));
  EXPECT_EQ(found(resolve("/abs", -1, Final::kNoFollow)), inode("/abs"));
}

TEST_F(PathWalkTest, NothingLeavesTheRoot) {
  EXPECT_EQ(resolve("/a/escape").error, ENOENT);
  EXPECT_EQ(resolve("/../../../../etc/passwd").error, ENOENT);
  EXPECT_EQ(resolve("escape", a_.get()).error, ENOENT);
  EXPECT_EQ(found(resolve("/../../a/b/file")), inode("/a/b/file"));
}

TEST_F(PathWalkTest, ErrnoIsExact) {
  EXPECT_EQ(resolve("").error, ENOENT);
  EXPECT_EQ(resolve("/nowhere").error, ENOENT);
  EXPECT_EQ(resolve("/loop").error, ELOOP);
  EXPECT_EQ(resolve("/a/b/file/x").error, ENOTDIR);
  EXPECT_EQ(resolve("/a/b/file/").error, ENOTDIR);
  EXPECT_EQ(resolve("/" + std::string(300, 'n')).error, ENAMETOOLONG);
}

TEST_F(PathWalkTest, MissingLastComponentGivesParentAndName) {
  const Resolution r = resolve("/a/new", -1, Final::kFollow, Missing::kParent);
  ASSERT_EQ(r.error, 0);
  EXPECT_FALSE(r.object);
  EXPECT_EQ(r.name, "new");
  ObjectFacts facts;
  ASSERT_EQ(object_facts(r.parent.get(), facts), 0);
  EXPECT_EQ(facts.identity.ino, inode("/a"));
  // A dangling link as last component: the file would be made where it points.
  const Resolution d = resolve("/dangling", -1, Final::kFollow, Missing::kParent);
  ASSERT_EQ(d.error, 0);
  EXPECT_EQ(d.name, "new");
  EXPECT_EQ(resolve("/a/nowhere/new", -1, Final::kFollow, Missing::kParent).error, ENOENT);
  EXPECT_EQ(resolve("/a/new/", -1, Final::kFollow, Missing::kParent).error, EISDIR);
}

TEST_F(PathWalkTest, TheCallersOwnScopingHolds) {
  EXPECT_EQ(resolve("../abs", a_.get(), Final::kFollow, Missing::kError, RESOLVE_BENEATH).error,
            EXDEV);
  EXPECT_EQ(resolve("/abs", -1, Final::kFollow, Missing::kError, RESOLVE_NO_SYMLINKS).error, ELOOP);
  EXPECT_EQ(found(resolve("b/file", a_.get(), Final::kFollow, Missing::kError, RESOLVE_BENEATH)),
            inode("/a/b/file"));
  EXPECT_EQ(resolve("b/file", a_.get(), Final::kFollow, Missing::kError, RESOLVE_NO_XDEV).error,
            ENOSYS);
}

TEST_F(PathWalkTest, OwnProcLinksNameTheCaller) {
  // With the host's own root, /proc/self must be the *caller's*: here a child of ours.
  const sandbox::UniqueFd host(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  const sandbox::UniqueFd proc(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const Resolution magic =
      PathWalk(host.get())
          .resolve(Caller{child}, Base{}, "/proc/self/cwd", Final::kFollow, Missing::kError);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ASSERT_EQ(magic.error, 0);
  struct stat here {
  }, there{};
  ASSERT_EQ(::stat(".", &here), 0);
  ASSERT_EQ(::fstat(magic.object.get(), &there), 0);
  EXPECT_EQ(here.st_ino, there.st_ino);
}

TEST(PathWalk, APlainPathHasNothingToResolveButLinks) {
  for (const char* plain : {"/a", "/usr/include/stdio.h", "/.a", "/..a", "/a/.../b", "/a/..b/.c"})
    EXPECT_TRUE(PathWalk::is_plain(plain)) << plain;
  for (const char* other :
       {"", "/", "a", "a/b", "/a/", "//a", "/a//b", "/./a", "/a/.", "/a/..", "/../a", "/a/../b"})
    EXPECT_FALSE(PathWalk::is_plain(other)) << other;
}

}  // namespace
}  // namespace certgate::supervisor
