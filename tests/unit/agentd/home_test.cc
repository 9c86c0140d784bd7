#include "agentd/home.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "supervisor/home_archive.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Label;

class Homes : public testing::Test {
 protected:
  Homes() {
    char name[] = "/tmp/certgate-homes-XXXXXX";
    base_ = ::mkdtemp(name);
    fs::create_directory(base_ / "home");
  }
  ~Homes() override { fs::remove_all(base_); }

  Result<KeptHome> take(const char* label) const {
    return KeptHome::take({base_ / "state", "codex", 1000, *Label::parse(label)});
  }
  static Status pack(const KeptHome& home, const fs::path& from, const char* label) {
    const sandbox::UniqueFd dir(::open(from.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return supervisor::pack_home(dir.get(), {}, *Label::parse(label), home.out());
  }
  fs::path base_;
};

TEST_F(Homes, TrustedOriginsShareTheCleanHome) {
  EXPECT_EQ(home_key(*Label::parse("operator,user,model,tool,policy")), "");
  EXPECT_EQ(home_key(*Label::parse("operator,web:a.test")), "web:a.test");
  EXPECT_EQ(home_key(*Label::parse("unknown,user")), "unknown");
}

TEST_F(Homes, AHomeGoesToTheLabelThatTheRunEndedWith) {
  {
    auto home = take("operator");
    ASSERT_TRUE(home) << home.error().what;
    EXPECT_EQ(home->in(), -1);
    ASSERT_TRUE(pack(*home, base_ / "home", "operator,web:a.test"));
    ASSERT_TRUE(home->keep());
  }
  const auto clean = take("operator");
  ASSERT_TRUE(clean);
  EXPECT_EQ(clean->in(), -1);
  const auto tainted = take("web:a.test");
  ASSERT_TRUE(tainted);
  EXPECT_GE(tainted->in(), 0);
  EXPECT_EQ(tainted->label().text(), Label::parse("operator,web:a.test")->text());
}

TEST_F(Homes, OneRunHoldsAHomeAndAnArchiveThatLostALabelIsNotKept) {
  {
    auto home = take("web:a.test");
    ASSERT_TRUE(home);
    EXPECT_FALSE(take("web:a.test"));
    ASSERT_TRUE(pack(*home, base_ / "home", "model,web:a.test"));
    ASSERT_TRUE(home->keep());
  }
  auto home = take("web:a.test");
  ASSERT_TRUE(home);
  ASSERT_TRUE(pack(*home, base_ / "home", "operator"));
  EXPECT_FALSE(home->keep());
}

}  // namespace
}  // namespace certgate::agentd
