#include "supervisor/script_binding.h"

#include <gtest/gtest.h>

namespace certgate::supervisor {
namespace {

ScriptBinding binding(const std::string& asked, uint64_t seq = 1) {
  ScriptBinding out;
  out.asked = asked;
  out.script.path = asked;
  out.certificate_seq = seq;
  return out;
}

TEST(ScriptBindings, ABindingIsTakenOnceByItsProcessAndItsPath) {
  ScriptBindings bindings;
  ASSERT_TRUE(bindings.bind(10, binding("/ws/a.sh", 7)));
  EXPECT_FALSE(bindings.take(10, "/ws/b.sh"));  // opening something else first keeps it
  EXPECT_FALSE(bindings.take(11, "/ws/a.sh"));  // nor is it another process's
  const auto taken = bindings.take(10, "/ws/a.sh");
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->certificate_seq, 7u);
  EXPECT_FALSE(bindings.take(10, "/ws/a.sh"));
}

TEST(ScriptBindings, TheNextExecReplacesOrClearsWhatWasBound) {
  ScriptBindings bindings;
  ASSERT_TRUE(bindings.bind(10, binding("/ws/a.sh")));
  ASSERT_TRUE(bindings.bind(10, binding("/ws/b.sh")));
  EXPECT_FALSE(bindings.take(10, "/ws/a.sh"));
  ASSERT_TRUE(bindings.bind(10, std::nullopt));
  EXPECT_FALSE(bindings.take(10, "/ws/b.sh"));
}

TEST(ScriptBindings, BeyondTheLimitNothingIsBoundAndTheExecMustNotGoOn) {
  ScriptBindings bindings;
  for (int pid = 1; pid <= static_cast<int>(kMaxBindings); ++pid) {
    ASSERT_TRUE(bindings.bind(pid, binding("/s")));
  }
  EXPECT_FALSE(bindings.bind(99999, binding("/s")));
  EXPECT_FALSE(bindings.take(99999, "/s"));
  EXPECT_TRUE(bindings.bind(1, binding("/t")));  // a process that has one may have another
  ASSERT_TRUE(bindings.bind(2, std::nullopt));
  EXPECT_TRUE(bindings.bind(99999, binding("/s")));
}

}  // namespace
}  // namespace certgate::supervisor
