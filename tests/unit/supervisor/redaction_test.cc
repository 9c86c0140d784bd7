#include "supervisor/redaction.h"

#include <gtest/gtest.h>

#include <random>

namespace certgate::supervisor {
namespace {

// The definition, as slow as it is plain.
bool naive(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') {
    for (size_t i = 0; i <= text.size(); ++i) {
      if (naive(pattern.substr(1), text.substr(i))) return true;
    }
    return false;
  }
  return !text.empty() && text[0] == pattern[0] && naive(pattern.substr(1), text.substr(1));
}

TEST(Redaction, PatternsMeanWhatTheNaiveMatcherSays) {
  std::mt19937 random(3);
  for (int i = 0; i < 200000; ++i) {
    std::string pattern(random() % 6, ' '), text(random() % 8, ' ');
    for (char& c : pattern) c = "ab*"[random() % 3];
    for (char& c : text) c = "ab"[random() % 2];
    ASSERT_EQ(pattern_matches(pattern, text), naive(pattern, text)) << pattern << " in " << text;
    ASSERT_EQ(pattern_found(pattern, text), naive('*' + pattern + '*', text))
        << pattern << " anywhere in " << text;
  }
}

TEST(Redaction, APatternOfManyStarsIsNoTrap) {
  std::string pattern, text(200000, 'a');
  for (int i = 0; i < 100; ++i) pattern += "a*";
  EXPECT_FALSE(pattern_matches(pattern + "b", text));
}

TEST(Redaction, NothingThatAPatternFindsStaysInTheRecord) {
  const Redaction redaction{{"token=*"}, {"*_KEY"}};
  kernel::Record record;
  record.object = "/ws/token=1";
  record.asked = "token=1";
  record.argv = {"curl", "https://a.test/?token=abc", "plain", std::string(300, 'z')};
  record.argv.resize(70, "more");
  const std::vector<std::string> env = {"PATH=/bin", "API_KEY=k", "KEYS=x", "A=token=q"};
  const auto hidden = redaction.hide(record, &env);
  EXPECT_EQ(record.object, "");
  EXPECT_EQ(record.asked, "");
  EXPECT_EQ(record.argv[0], "curl");
  EXPECT_EQ(record.argv[1], "");
  EXPECT_EQ(record.argv[2], "plain");
  EXPECT_EQ(record.argv[3], "");
  std::vector<std::string> names;
  for (const Hidden& h : hidden) names.push_back(h.name);
  EXPECT_EQ(names, (std::vector<std::string>{"argv[1]", "argv[3]", "argv[64]", "object", "asked",
                                             "env", "env:secret"}));
  EXPECT_EQ(hidden[5].value, std::string("PATH=/bin\0KEYS=x", 16));
  EXPECT_EQ(hidden[6].value, std::string("API_KEY=k\0A=token=q", 19));
}

TEST(Redaction, WithoutPatternsOnlyWhatIsTooLongGoes) {
  kernel::Record record;
  record.object = "/a";
  record.argv = {"a", std::string(256, 'z')};
  const kernel::Record before = record;
  EXPECT_TRUE(Redaction{}.hide(record, nullptr).empty());
  EXPECT_EQ(record, before);
}

}  // namespace
}  // namespace certgate::supervisor
