#include "supervisor/sealed_text.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

TEST(SealedText, WhatIsSealedArrivesAndCannotBeChanged) {
  const std::string text(300'000, 'x');
  const auto sealed = seal_text(text);
  ASSERT_TRUE(sealed) << sealed.error().what;
  EXPECT_EQ(*read_sealed(sealed->get(), text.size()), text);
  EXPECT_EQ(::pwrite(sealed->get(), "y", 1, 0), -1);
  EXPECT_EQ(::ftruncate(sealed->get(), 0), -1);
  EXPECT_EQ(read_sealed(sealed->get(), text.size() - 1).error().code, EMSGSIZE);
  EXPECT_EQ(*read_sealed(seal_text("")->get(), 0), "");
}

TEST(SealedText, WhatCouldStillChangeOrMakeUsWaitIsNotRead) {
  const UniqueFd open(::memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(::write(open.get(), "x", 1), 1);
  EXPECT_FALSE(read_sealed(open.get(), 10));
  ASSERT_EQ(::fcntl(open.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_FALSE(read_sealed(open.get(), 10)) << "its bytes may change";
  ASSERT_EQ(::fcntl(open.get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  EXPECT_TRUE(read_sealed(open.get(), 10));
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd reads(ends[0]), writes(ends[1]);
  EXPECT_FALSE(read_sealed(reads.get(), 10));
  EXPECT_FALSE(read_sealed(UniqueFd(::open("/etc/passwd", O_RDONLY | O_CLOEXEC)).get(), 1 << 20));
}

}  // namespace
}  // namespace certgate::supervisor
