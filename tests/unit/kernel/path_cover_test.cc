#include "kernel/path_cover.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace certgate::kernel {
namespace {

PathPattern pattern(const std::string& text) { return PathPattern::parse(text).value(); }
std::vector<PathPattern> patterns(const std::vector<std::string>& texts) {
  std::vector<PathPattern> out;
  for (const std::string& text : texts) out.push_back(pattern(text));
  return out;
}

// "/" and all paths of at most three components of the letters a, b, c, the components of one or
// two letters.
std::vector<std::string> all_paths() {
  std::vector<std::string> names;
  for (const char* name : {"a", "b", "c", "aa", "ab", "ba", "bc"}) names.emplace_back(name);
  std::vector<std::string> out{"/"}, last{""};
  for (int depth = 0; depth < 3; ++depth) {
    std::vector<std::string> next;
    for (const std::string& head : last) {
      for (const std::string& name : names) next.push_back(head + "/" + name);
    }
    out.insert(out.end(), next.begin(), next.end());
    last = std::move(next);
  }
  return out;
}

const std::vector<std::string>& some_patterns() {
  static const std::vector<std::string> all{
      "/",     "/a",   "/a/b",   "/**",      "/a/**",    "/*",      "/?",      "/a*",
      "/*a",   "/*/b", "/**/b",  "/a/**/b",  "/**/a/**", "/*/**",   "/a/*/**", "/?*",
      "/**/*", "/a/?", "/ab/**", "@private", "/**/b/*",  "/a/**/*", "/*b*"};
  return all;
}

bool within_by_trying(const PathPattern& narrow, const std::vector<PathPattern>& wide) {
  static const auto paths = all_paths();
  for (const std::string& path : paths) {
    for (const bool inside : {false, true}) {
      const auto is_match = [&](const PathPattern& p) { return p.matches(path, inside); };
      if (is_match(narrow) && std::none_of(wide.begin(), wide.end(), is_match)) return false;
    }
  }
  return true;
}

void agrees(const PathPattern& narrow, const std::vector<PathPattern>& wide) {
  const auto found = path_outside(narrow, wide);
  ASSERT_TRUE(found) << found.error().what;
  ASSERT_EQ(!found->has_value(), within_by_trying(narrow, wide))
      << narrow.text() << " in " << wide[0].text() << (*found ? ": " + (*found)->path : "");
  if (!*found) return;
  EXPECT_TRUE(narrow.matches((*found)->path, (*found)->inside)) << (*found)->path;
  for (const PathPattern& p : wide) {
    EXPECT_FALSE(p.matches((*found)->path, (*found)->inside)) << p.text() << (*found)->path;
  }
}

TEST(PathCover, OnePatternLiesWithinAnotherExactlyWhenAllItsPathsDo) {
  for (const std::string& narrow : some_patterns()) {
    for (const std::string& wide : some_patterns()) {
      ASSERT_NO_FATAL_FAILURE(agrees(pattern(narrow), {pattern(wide)}));
    }
  }
}

TEST(PathCover, OnePatternLiesWithinTwoTogether) {
  for (const std::string& narrow : some_patterns()) {
    for (const std::string& a : some_patterns()) {
      for (const std::string& b : {std::string("/a/**"), std::string("/**/b"), std::string("/"),
                                   std::string("/*"), std::string("@private")}) {
        ASSERT_NO_FATAL_FAILURE(agrees(pattern(narrow), {pattern(a), pattern(b)}));
      }
    }
  }
  EXPECT_FALSE(path_outside(pattern("/a/**"), patterns({"/a", "/a/*", "/a/*/**"})).value());
}

TEST(PathCover, TwoPatternsMeetExactlyWhereAPathMatchesBoth) {
  const auto paths = all_paths();
  for (const std::string& x : some_patterns()) {
    for (const std::string& y : some_patterns()) {
      const PathPattern a = pattern(x), b = pattern(y);
      const auto found = path_in_both(a, b);
      ASSERT_TRUE(found) << found.error().what;
      bool meet = false;
      for (const std::string& path : paths) {
        for (const bool inside : {false, true})
          meet = meet || (a.matches(path, inside) && b.matches(path, inside));
      }
      ASSERT_EQ(found->has_value(), meet) << x << " and " << y;
      if (!*found) continue;
      EXPECT_TRUE(a.matches((*found)->path, (*found)->inside)) << x << (*found)->path;
      EXPECT_TRUE(b.matches((*found)->path, (*found)->inside)) << y << (*found)->path;
    }
  }
}

TEST(PathCover, TheWitnessIsShortest) {
  const auto found = path_outside(pattern("/usr/**"), patterns({"/usr/bin/**", "/usr"}));
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->path.size(), std::string("/usr/x").size()) << (*found)->path;
}

TEST(PathCover, WhatIsTooComplexIsAnErrorAndNotAnAnswer) {
  // "The 25th byte from the end is an a": 2^25 sets of states, each of which must be seen.
  const PathPattern same = pattern("/*a" + std::string(24, '?'));
  EXPECT_FALSE(path_outside(same, {same}));
}

}  // namespace
}  // namespace certgate::kernel
