#include "supervisor/gate_message.h"

#include <gtest/gtest.h>

#include "supervisor/permits.h"
#include "supervisor/tool_sources.h"

namespace certgate::supervisor {
namespace {

TEST(GateMessage, ARequestIsReadWhole) {
  const auto request = parse_gate_request(
      R"({"v":1,"tool":"commit","args":[{"value":"-m"},{"value":"a\"b: c","from":{"message":2,"start":3,"end":9}}],)"
      R"("cwd":"/ws","intent":"because","taint":["web:a.test"]})");
  ASSERT_TRUE(request) << request.error().what;
  EXPECT_EQ(request->tool, "commit");
  EXPECT_EQ(request->args, (std::vector<std::string>{"-m", "a\"b: c"}));
  ASSERT_EQ(request->sources.size(), 1u);
  EXPECT_EQ(request->sources[0], (kernel::ArgumentSource{2, 2, 3, 9}));
  EXPECT_EQ(request->cwd, "/ws");
  EXPECT_EQ(request->intent, "because");
  EXPECT_EQ(request->taint.text(), "web:a.test");
}

TEST(GateMessage, WhatIsNotSpelledOutIsAnError) {
  const std::vector<std::string> bad = {
      "",
      "x",
      "[]",
      "null",
      R"({"v":1})",
      R"({"tool":"a"})",
      R"({"v":2,"tool":"a"})",
      R"({"v":"1","tool":"a"})",
      R"({"v":1.0,"tool":"a"})",
      R"({"v":1,"tool":""})",
      R"({"v":1,"tool":7})",
      R"({"v":1,"tool":"a","more":1})",
      R"({"v":1,"tool":"a","tool":"b"})",
      R"({"v":1,"tool":"a","args":"x"})",
      R"({"v":1,"tool":"a","args":["x"]})",
      R"({"v":1,"tool":"a","args":[{}]})",
      R"({"v":1,"tool":"a","args":[{"value":1}]})",
      R"({"v":1,"tool":"a","args":[{"value":"x\u0000y"}]})",
      R"({"v":1,"tool":"a","args":[{"value":"x","from":{"message":0,"start":1}}]})",
      R"({"v":1,"tool":"a","args":[{"value":"x","from":{"message":-1,"start":1,"end":2}}]})",
      R"({"v":1,"tool":"a","args":[{"value":"x","from":{"message":0,"start":1,"end":2,"label":"user"}}]})",
      R"({"v":1,"tool":"a","args":[{"value":"x","label":"user"}]})",
      R"({"v":1,"tool":"a","cwd":"relative"})",
      R"({"v":1,"tool":"a","taint":["nonsense"]})",
      R"({"v":1,"tool":"a","taint":"web:x"})",
      R"({"v":1,"tool":"a","intent":null})",
      R"({"v":1,"tool":"a"} {})",
      R"({"v":1,"tool":"a","args":[[[[[[[[[[]]]]]]]]]]})"};
  for (const std::string& line : bad) EXPECT_FALSE(parse_gate_request(line)) << line;
  EXPECT_FALSE(parse_gate_request(std::string(kMaxGateLine + 1, ' ')));
  std::string many = R"({"v":1,"tool":"a","args":[)";
  for (size_t i = 0; i <= kMaxGateArgs; ++i) many += R"({"value":""},)";
  many.back() = ']';
  EXPECT_FALSE(parse_gate_request(many + "}"));
}

TEST(GateMessage, AnswersAreOneLineOfJsonWhateverTheBytes) {
  GatePermit permit;
  permit.argv = {"a\nb", "\xff\xfe", "\"}"};
  const std::string text = gate_answer(permit);
  EXPECT_EQ(text.find('\n'), text.size() - 1);
  EXPECT_EQ(text.find('\xff'), std::string::npos);
  EXPECT_EQ(gate_error("x\ny").find('\n'), gate_error("x\ny").size() - 1);
}

TEST(ToolSources, TextAndPartsSayTheSame) {
  const kernel::ArgumentSource source{3, 0, 4, 20};
  EXPECT_EQ(source_text(source), "3=user@0:4-20");
  EXPECT_EQ(*parse_source(source_text(source)), source);
  for (const char* bad :
       {"", "3", "3=", "3=user@", "3=user@0", "3=user@0:4", "3=user@0:4-", "3=user@0:4-20x",
        "3=web@0:4-20", "-3=user@0:4-20", "3=user@0:-4-20", "99999999999=user@0:4-20"})
    EXPECT_FALSE(parse_source(bad)) << bad;
}

Permit permit(const std::string& id, int64_t expires_ns) {
  return {id, "/bin/x", {}, {"x", "y"}, {}, expires_ns};
}

kernel::ExecEffect exec() {
  kernel::ExecEffect out;
  out.images.push_back({"/bin/x", {}, {}, false});
  out.argv = {"x", "y"};
  return out;
}

TEST(Permits, OneIsForOneExecOfExactlyThis) {
  Permits permits;
  permits.add(permit("a", 100));
  permits.add(permit("b", 100));
  kernel::ExecEffect other = exec();
  other.argv[1] += "z";
  EXPECT_FALSE(permits.take(other, 5, 1));
  other = exec();
  other.images[0].sha256[31] = 1;
  EXPECT_FALSE(permits.take(other, 5, 1));
  other = exec();
  other.images[0].path = "/bin/y";
  EXPECT_FALSE(permits.take(other, 5, 1));
  EXPECT_EQ(permits.take(exec(), 5, 1)->id, "a");
  EXPECT_EQ(permits.take(exec(), 5, 1)->id, "b");
  EXPECT_FALSE(permits.take(exec(), 5, 1));
}

TEST(Permits, TheyEndAndAreFew) {
  Permits permits;
  for (size_t i = 0; i < kMaxPermits; ++i) {
    EXPECT_FALSE(permits.full(1));
    permits.add(permit("a", 100));
  }
  EXPECT_TRUE(permits.full(99));
  EXPECT_FALSE(permits.take(exec(), 5, 100));
  EXPECT_FALSE(permits.full(100));
}

TEST(Permits, WhileAnExecWaitsItsPermitIsItsThreadsAlone) {
  Permits permits;
  permits.keep_for(7, permit("a", 100), 1000);
  EXPECT_FALSE(permits.take(exec(), 5, 1)) << "another thread's exec, word for word the same";
  auto mine = permits.take(exec(), 7, 999);
  ASSERT_TRUE(mine) << "it was used in time; the wait is the operator's";
  permits.put_back(*mine);
  EXPECT_FALSE(permits.take(exec(), 7, 999)) << "refused after all, and its own time is over";
  permits.keep_for(7, permit("b", 5000), 1000);
  permits.drop_kept(6);
  EXPECT_TRUE(permits.take(exec(), 7, 1)) << "another's end is not its caller's";
  permits.keep_for(7, permit("c", 5000), 1000);
  permits.drop_kept(7);
  EXPECT_FALSE(permits.take(exec(), 7, 1)) << "its caller is gone";
  permits.keep_for(7, permit("d", 5000), 1000);
  EXPECT_FALSE(permits.take(exec(), 7, 1000)) << "no wait is longer";
}

}  // namespace
}  // namespace certgate::supervisor
