#include "supervisor/screen_state.h"

#include <gtest/gtest.h>

#include <string>

namespace certgate::supervisor {
namespace {

struct Case {
  const char* name;
  std::string sent;
  bool settled;
  std::string prefix;  // before the text of a line of ours
};

const std::string kPlain = "\x1b(B\x0f\x1b[m";

const Case kCases[] = {
    {"nothing", "", true, ""},
    {"a line", "text\r\n", true, ""},
    {"half a line", "text", true, "\r\n"},
    {"colours", "\x1b[31mtext\x1b[0m\r\n", true, kPlain},
    {"escape alone", "\r\n\x1b", false, "\x18" + kPlain},
    {"half a control sequence", "\n\x1b[3", false, "\x18" + kPlain},
    {"half a charset", "\n\x1b(", false, "\x18" + kPlain},
    {"another charset", "\n\x1b(0", true, kPlain},
    {"shifted out", "\n\x0e", true, kPlain},
    {"half a title", "\n\x1b]0;title", false, "\x18" + kPlain},
    {"newlines inside a title", "x\x1b]0;a\nb\n", false, "\x18" + kPlain + "\r\n"},
    {"a title ended by BEL", "\n\x1b]0;title\x07", true, kPlain},
    {"a title ended by ST", "\n\x1b]0;title\x1b\\", true, kPlain},
    {"half of the ST", "\n\x1b]0;title\x1b", false, "\x18" + kPlain},
    {"BEL does not end a control sequence", "\n\x1b[3\x07", false, "\x18" + kPlain},
    {"a cancelled string", "\n\x1bPdata\x18", true, kPlain},
    {"half a character", "\n\xe2\x82", false, "\r\n"},
    {"a whole character", "\n\xe2\x82\xac", true, "\r\n"},
    {"not a character", "\n\xe2q", true, "\r\n"},
    {"continuations out of place", "\n\xbf\xbf", true, "\r\n"},
};

TEST(ScreenState, ALineOfOursStandsAloneWhateverWasSentBefore) {
  for (const Case& item : kCases) {
    ScreenState screen;
    screen.feed(item.sent);
    EXPECT_EQ(screen.settled(), item.settled) << item.name;
    EXPECT_EQ(screen.line("ours"), item.prefix + "ours\r\n") << item.name;
    EXPECT_TRUE(screen.settled()) << item.name;
  }
}

TEST(ScreenState, PiecesMakeNoDifference) {
  for (const Case& item : kCases) {
    ScreenState screen;
    for (const char c : item.sent) screen.feed(std::string_view(&c, 1));
    EXPECT_EQ(screen.settled(), item.settled) << item.name;
    EXPECT_EQ(screen.line("ours"), item.prefix + "ours\r\n") << item.name;
  }
}

TEST(ScreenState, ASecondLineNeedsNoBreak) {
  ScreenState screen;
  screen.feed("half");
  EXPECT_EQ(screen.line("one"), "\r\none\r\n");
  EXPECT_EQ(screen.line("two"), "two\r\n");
}

}  // namespace
}  // namespace certgate::supervisor
