#include "supervisor/trap.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

bool same_object(int a, int b) {
  struct stat x {
  }, y{};
  return ::fstat(a, &x) == 0 && ::fstat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

TEST(TrapBase, OfAnAbsolutePathIsNothingWhateverTheDescriptorIs) {
  for (const int dirfd : {AT_FDCWD, 0, -1, 12345}) {
    UniqueFd base;
    EXPECT_EQ(Trap::base_of(::getpid(), dirfd, "/etc", base), 0) << dirfd;
    EXPECT_FALSE(base) << dirfd;
  }
}

TEST(TrapBase, OfARelativePathIsPinnedAndNotFollowedAfterwards) {
  const UniqueFd here(::open(".", O_PATH | O_CLOEXEC));
  UniqueFd base;
  ASSERT_EQ(Trap::base_of(::getpid(), AT_FDCWD, "x", base), 0);
  EXPECT_TRUE(same_object(base.get(), here.get()));
  ASSERT_EQ(::chdir("/"), 0);
  EXPECT_TRUE(same_object(base.get(), here.get()));
  ASSERT_EQ(::fchdir(here.get()), 0);
}

TEST(TrapBase, OfADescriptorIsItsObjectAndABadOneIsEBADF) {
  const UniqueFd directory(::open("/usr", O_RDONLY | O_CLOEXEC));
  UniqueFd base;
  ASSERT_EQ(Trap::base_of(::getpid(), directory.get(), "bin", base), 0);
  EXPECT_TRUE(same_object(base.get(), directory.get()));
  for (const int bad : {-1, -2, 99999}) {
    UniqueFd none;
    EXPECT_EQ(Trap::base_of(::getpid(), bad, "x", none), EBADF) << bad;
    EXPECT_FALSE(none);
  }
}

// The empty path is relative: it is about the descriptor itself (AT_EMPTY_PATH).
TEST(TrapBase, OfTheEmptyPathIsTheDescriptor) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  UniqueFd base;
  ASSERT_EQ(Trap::base_of(::getpid(), file.get(), "", base), 0);
  EXPECT_TRUE(same_object(base.get(), file.get()));
}

TEST(TrapBase, OfACallerThatHasDiedIsAnError) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  UniqueFd base;
  EXPECT_NE(Trap::base_of(child, AT_FDCWD, "x", base), 0);
}

TEST(InheritedStdio, CoversOnlyTheSameObjectAndOnlyTheDirectionsItHas) {
  InheritedStdio stdio;
  stdio.streams[0] = {1, 10, true, true, false};
  stdio.streams[1] = {1, 11, true, false, true};
  stdio.streams[2] = {1, 12, false, true, true};  // closed
  ObjectFacts facts;
  facts.dev = 1;
  const auto covers = [&](uint64_t ino, bool read, bool write) {
    facts.identity.ino = ino;
    return stdio.covers(facts, read, write);
  };
  EXPECT_TRUE(covers(10, true, false));
  EXPECT_FALSE(covers(10, false, true));
  EXPECT_FALSE(covers(10, true, true));
  EXPECT_TRUE(covers(11, false, true));
  EXPECT_FALSE(covers(11, true, false));
  EXPECT_FALSE(covers(12, true, false));
  EXPECT_FALSE(covers(13, true, false));
  facts.dev = 2;
  EXPECT_FALSE(covers(10, true, false));
}

TEST(PrivatePlaces, HoldOnlyTheirOwnFileSystems) {
  PrivatePlaces places;
  places.devs = {3, 5};
  EXPECT_TRUE(places.contains(3));
  EXPECT_FALSE(places.contains(4));
}

}  // namespace
}  // namespace certgate::supervisor
