#include "supervisor/inherited.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

bool inherits(int fd) {
  std::vector<int> all;
  EXPECT_EQ(inherited_descriptors(::getpid(), 4096, all), 0);
  return std::find(all.begin(), all.end(), fd) != all.end();
}

TEST(Inherited, DescriptorsWithoutCloseOnExecAreHandedOn) {
  const sandbox::UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd);
  EXPECT_FALSE(inherits(fd.get()));
  ASSERT_EQ(::fcntl(fd.get(), F_SETFD, 0), 0);
  EXPECT_TRUE(inherits(fd.get()));
  EXPECT_TRUE(leaves_descriptors(::getpid()));
  std::vector<int> one;
  EXPECT_EQ(inherited_descriptors(::getpid(), 1, one), 0);
  EXPECT_EQ(one.size(), 1u);
}

TEST(Inherited, AProcessThatIsNotThereIsSaidSo) {
  std::vector<int> none;
  EXPECT_EQ(inherited_descriptors(0x7ffffffe, 1, none), ESRCH);
  EXPECT_TRUE(leaves_descriptors(0x7ffffffe)) << "what cannot be said counts as yes";
}

}  // namespace
}  // namespace certgate::supervisor
