#include "agentd/learn_paths.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace certgate::agentd {
namespace {

const PolicyContext kContext{"/ws", "/home/agent"};

std::set<std::string> patterns(const std::vector<std::string>& paths,
                               const std::set<std::string>& went = {}) {
  std::set<std::string> out;
  for (const PathGroup& group : group_paths(paths, went, kContext, 3))
    out.insert(group.patterns.begin(), group.patterns.end());
  return out;
}

using Set = std::set<std::string>;

TEST(LearnPaths, FewFilesAreNamedManyAreTheirDirectory) {
  EXPECT_EQ(patterns({"/ws/a/x", "/ws/a/y"}), (Set{"/ws/a/x", "/ws/a/y"}));
  EXPECT_EQ(patterns({"/ws/a/x", "/ws/a/y", "/ws/a/z"}), (Set{"/ws/a/*"}));
  EXPECT_EQ(patterns({"/ws/a/1/x", "/ws/a/2/x", "/ws/a/3/x"}), (Set{"/ws/a/**"}));
}

TEST(LearnPaths, ANameThatCameAndWentStandsForItsDirectory) {
  EXPECT_EQ(patterns({"/ws/a/tmp.123"}, {"/ws/a/tmp.123"}), (Set{"/ws/a/*"}));
}

TEST(LearnPaths, NeitherTheWorkspaceNorASystemDirectoryStandsForAllBelowIt) {
  EXPECT_EQ(patterns({"/ws/1/x", "/ws/2/x", "/ws/3/x"}), (Set{"/ws/1/x", "/ws/2/x", "/ws/3/x"}));
  EXPECT_EQ(patterns({"/var/lib/1/x", "/var/lib/2/x", "/var/lib/3/x"}),
            (Set{"/var/lib/1/x", "/var/lib/2/x", "/var/lib/3/x"}));
}

TEST(LearnPaths, WildcardsAndBytesThatAreNotTextMatchOneByteEach) {
  EXPECT_EQ(patterns({"/ws/a*b"}), (Set{"/ws/a?b"}));
  EXPECT_EQ(patterns({"/ws/a\xff\xc3\xa9"}), (Set{"/ws/a?\xc3\xa9"}));
}

// Whatever the paths are: each is matched by a pattern of the group that it is a member of.
TEST(LearnPaths, EveryPathIsCoveredByItsGroup) {
  const char* parts[] = {"a", "b", "tmp.1", "x*y"};
  std::vector<std::string> all;
  for (const char* p : parts) {
    all.push_back(std::string("/ws/") + p);
    for (const char* q : parts) {
      all.push_back(std::string("/ws/") + p + "/" + q);
      all.push_back(std::string("/opt/") + p + "/" + q);
    }
  }
  for (unsigned mask = 1; mask < (1u << 16); mask = mask * 3 + 1) {
    std::vector<std::string> paths;
    for (size_t i = 0; i < all.size(); ++i) {
      if ((mask * 2654435761u) >> (i % 32) & 1) paths.push_back(all[i]);
    }
    std::sort(paths.begin(), paths.end());
    size_t members = 0;
    for (const PathGroup& group : group_paths(paths, {"/ws/a/tmp.1"}, kContext, 3)) {
      for (const std::string& member : group.members) {
        ++members;
        EXPECT_TRUE(std::any_of(group.patterns.begin(), group.patterns.end(), [&](const auto& p) {
          return kernel::PathPattern::parse(p)->matches(member, false);
        })) << member;
      }
    }
    EXPECT_EQ(members, paths.size());
  }
}

}  // namespace
}  // namespace certgate::agentd
