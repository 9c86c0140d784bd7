#include "supervisor/report.h"

#include <gtest/gtest.h>

#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

TEST(Escape, NothingThatMovesATerminalPasses) {
  EXPECT_EQ(escape("plain äöü €"), "plain äöü €");
  EXPECT_EQ(escape("a\x1b[31mb"), "a\\x1B[31mb");
  EXPECT_EQ(escape("line\nFAKE AUDIT\ttab\r"), "line\\nFAKE AUDIT\\ttab\\x0D");
  EXPECT_EQ(escape("\xff\xc3("), "\\xFF\\xC3(");
  EXPECT_EQ(escape("back\\slash"), "back\\x5Cslash");
  EXPECT_EQ(escape("\xc2\x9b"
                   "31m"),
            "\\xC2\\x9B31m");  // C1 CSI
  EXPECT_EQ(escape("\xe2\x80\xae"
                   "txt.exe"),
            "\\xE2\\x80\\xAEtxt.exe");  // right-to-left override
  EXPECT_EQ(escape("\x7f"), "\\x7F");
  EXPECT_EQ(escape("a\xd8\x9c"), "a\\xD8\\x9C");           // Arabic letter mark
  EXPECT_EQ(escape("a\xef\xbb\xbf"), "a\\xEF\\xBB\\xBF");  // zero width no-break space
}

TEST(Escape, OutputIsPrintableForEveryByte) {
  for (int byte = 0; byte < 256; ++byte) {
    for (const char c : escape(std::string(1, static_cast<char>(byte)))) {
      EXPECT_GE(c, 0x20) << byte;
      EXPECT_LT(c, 0x7f) << byte;
    }
  }
}

TEST(Report, ARefusalIsOneLineThatSaysWhatWhyAndHowToSeeMore) {
  kernel::Record record;
  record.run = "abcdefgh";
  record.seq = 17;
  record.verb = static_cast<uint8_t>(kernel::Verb::kExec) + 1;
  record.object = "/ws/run\nme";
  record.reason = "UNTRUSTED_ORIGIN";
  record.culprit = "web:page.test";
  record.rule = "run-tools";
  record.why = "tools run for people";
  const std::string line = refusal_line(record);
  EXPECT_EQ(line,
            "certgate: refused exec /ws/run\\nme: UNTRUSTED_ORIGIN web:page.test "
            "(rule run-tools: tools run for people); see: certgate audit why abcdefgh-17");
}

TEST(Report, AnUnknownOriginNamesTheOptionThatSaysWhatStdinCarries) {
  kernel::Record record;
  record.culprit = "unknown";
  EXPECT_NE(refusal_line(record).find("--stdin-origin"), std::string::npos);
}

}  // namespace
}  // namespace certgate::supervisor
