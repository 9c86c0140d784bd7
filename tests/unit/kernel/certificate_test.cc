#include "kernel/certificate.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

TEST(Reason, TextAndCodeAreInverseAndStable) {
  const char* const texts[] = {"UNTRUSTED_ORIGIN", "SCOPE_MISSING", "FORBIDDEN",
                               "TOKEN_EXPIRED",    "TOKEN_MISSING", "RULE_EXPIRED",
                               "BUDGET_EXHAUSTED", "HELD_WRITABLE", "CONSTRAINT_VIOLATION",
                               "INTERNAL"};
  for (size_t i = 0; i < std::size(texts); ++i) {
    EXPECT_STREQ(reason_text(static_cast<Reason>(i + 1)), texts[i]);
    EXPECT_EQ(parse_reason(texts[i]).value(), static_cast<Reason>(i + 1));
  }
  EXPECT_FALSE(parse_reason("forbidden"));
}

// Every field of the effect, changed alone, gives another digest.
template <typename E>
void each_change_shows(const E& base, const std::vector<std::function<void(E&)>>& changes) {
  std::set<Digest> seen = {action_digest(base)};
  for (size_t i = 0; i < changes.size(); ++i) {
    E other = base;
    changes[i](other);
    EXPECT_TRUE(seen.insert(action_digest(other)).second) << "change " << i;
  }
  EXPECT_EQ(action_digest(base), action_digest(E(base)));
}

TEST(ActionDigest, CoversEveryFieldOfAnOpen) {
  each_change_shows<OpenEffect>(
      {}, {[](OpenEffect& e) { e.path = "/a"; }, [](OpenEffect& e) { e.kind = FileKind::kFifo; },
           [](OpenEffect& e) { e.file.fsid = 1; }, [](OpenEffect& e) { e.file.ino = 1; },
           [](OpenEffect& e) { e.file.btime_ns = 1; }, [](OpenEffect& e) { e.read = true; },
           [](OpenEffect& e) { e.write = true; }, [](OpenEffect& e) { e.create = true; },
           [](OpenEffect& e) { e.inside = true; }, [](OpenEffect& e) { e.flags = 1; },
           [](OpenEffect& e) { e.mode = 1; }});
}

TEST(ActionDigest, CoversEveryFieldOfAnExec) {
  ExecEffect base;
  base.images.push_back({"/a", {}, {}, false});
  base.argv = {"ab", "c"};
  each_change_shows<ExecEffect>(
      base, {[](ExecEffect& e) { e.images[0].path = "/b"; },
             [](ExecEffect& e) { e.images[0].file.ino = 1; },
             [](ExecEffect& e) { e.images[0].sha256[0] = 1; },
             [](ExecEffect& e) { e.images[0].inside = true; },
             [](ExecEffect& e) { e.images.push_back(e.images[0]); },
             [](ExecEffect& e) {
               e.argv = {"a", "bc"};
             },
             [](ExecEffect& e) { e.env = {"c"}; }, [](ExecEffect& e) { e.cwd = "/"; }});
}

TEST(ActionDigest, CoversEveryFieldOfAConnect) {
  each_change_shows<ConnectEffect>(
      {}, {[](ConnectEffect& e) { e.transport = Transport::kUdp; },
           [](ConnectEffect& e) { e.host = "a"; }, [](ConnectEffect& e) { e.address[15] = 1; },
           [](ConnectEffect& e) { e.port = 1; }, [](ConnectEffect& e) { e.path = "a"; },
           [](ConnectEffect& e) { e.inside = true; }});
}

TEST(ActionDigest, SeparatesKinds) {
  EXPECT_NE(action_digest(OpenEffect{}), action_digest(ConnectEffect{}));
  EXPECT_NE(action_digest(OpenEffect{}), action_digest(ExecEffect{}));
}

static_assert(!std::is_default_constructible_v<Certificate>);
static_assert(!std::is_copy_constructible_v<Certificate> &&
              !std::is_copy_assignable_v<Certificate>);
static_assert(std::is_nothrow_move_constructible_v<Certificate>);

}  // namespace
}  // namespace certgate::kernel
