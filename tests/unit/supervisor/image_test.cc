#include "supervisor/image.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

Result<std::optional<Shebang>> shebang(const std::string& text) {
  return parse_shebang(text.data(), text.size());
}

TEST(Shebang, IsReadAsTheKernelReadsIt) {
  struct Case {
    const char* text;
    const char* interpreter;
    const char* argument;  // nullptr = none
  };
  const Case cases[] = {
      {"#!/bin/sh\n", "/bin/sh", nullptr},
      {"#! /bin/sh \n", "/bin/sh", nullptr},
      {"#!\t/usr/bin/env python3 -u \t\nprint()", "/usr/bin/env", "python3 -u"},
      {"#!/bin/sh", "/bin/sh", nullptr},
      {"#!sh -e\n", "sh", "-e"},
  };
  for (const Case& c : cases) {
    const auto got = shebang(c.text);
    ASSERT_TRUE(got) << c.text;
    ASSERT_TRUE(got->has_value()) << c.text;
    EXPECT_EQ((*got)->interpreter, c.interpreter);
    EXPECT_EQ((*got)->argument.has_value(), c.argument != nullptr) << c.text;
    if (c.argument != nullptr) {
      EXPECT_EQ(*(*got)->argument, c.argument);
    }
  }
}

TEST(Shebang, OtherFilesHaveNoneAndEmptyOnesFail) {
  EXPECT_FALSE(shebang("\x7f"
                       "ELF")
                   ->has_value());
  EXPECT_FALSE(shebang("")->has_value());
  EXPECT_EQ(shebang("#!\n").error().code, ENOEXEC);
  EXPECT_EQ(shebang("#!   \n").error().code, ENOEXEC);
  EXPECT_EQ(shebang("#!/" + std::string(400, 'x')).error().code, ENOEXEC);
}

TEST(ImageKind, DynamicProgramNamesItsLoader) {
  const sandbox::UniqueFd fd(::open("/bin/sh", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd);
  const auto kind = image_kind(fd.get());
  ASSERT_TRUE(kind) << kind.error().what;
  EXPECT_FALSE(kind->script);
  ASSERT_TRUE(kind->loader);
  EXPECT_NE(kind->loader->find("ld-linux"), std::string::npos);
}

TEST(ImageKind, TextIsNotExecutable) {
  const sandbox::UniqueFd fd(::open("/etc/passwd", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(fd);
  EXPECT_EQ(image_kind(fd.get()).error().code, ENOEXEC);
}

}  // namespace
}  // namespace certgate::supervisor
