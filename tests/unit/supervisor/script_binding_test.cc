#include "supervisor/script_binding.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

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
  ScriptBindings bindings([](int) { return true; });
  for (int pid = 1; pid <= static_cast<int>(kMaxBindings); ++pid) {
    ASSERT_TRUE(bindings.bind(pid, binding("/s")));
  }
  EXPECT_FALSE(bindings.bind(99999, binding("/s")));
  EXPECT_FALSE(bindings.take(99999, "/s"));
  EXPECT_TRUE(bindings.bind(1, binding("/t")));  // a process that has one may have another
  ASSERT_TRUE(bindings.bind(2, std::nullopt));
  EXPECT_TRUE(bindings.bind(99999, binding("/s")));
}

TEST(ScriptBindings, TheDeadLeaveRoomForTheLiving) {
  ScriptBindings bindings([](int tgid) { return tgid == 7; });
  for (int pid = 1; pid <= static_cast<int>(kMaxBindings); ++pid) {
    ASSERT_TRUE(bindings.bind(pid, binding("/s")));
  }
  EXPECT_TRUE(bindings.bind(99999, binding("/s")));
  EXPECT_TRUE(bindings.take(7, "/s"));
  EXPECT_FALSE(bindings.take(8, "/s"));
}

TEST(ScriptBindings, AProcessExistsUntilItIsReaped) {
  EXPECT_TRUE(process_exists(::getpid()));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(0);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, child, &info, WEXITED | WNOWAIT), 0);
  EXPECT_TRUE(process_exists(child));
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(process_exists(child));
}

}  // namespace
}  // namespace certgate::supervisor
