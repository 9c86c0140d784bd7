// The dependency direction of ARCHITECTURE.md, enforced: who may include whom, and what the kernel
// may not touch.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Include {
  fs::path file;
  std::string name;
  bool own = false;  // "…" rather than <…>
};

std::vector<fs::path> sources_of(const std::string& room) {
  std::vector<fs::path> out;
  for (const auto& entry : fs::recursive_directory_iterator(fs::path(CERTGATE_SOURCE_DIR) / room)) {
    const auto extension = entry.path().extension();
    if (extension == ".h" || extension == ".cc") out.push_back(entry.path());
  }
  return out;
}

std::vector<Include> includes_of(const std::string& room) {
  static const std::regex kLine(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
  std::vector<Include> out;
  for (const fs::path& file : sources_of(room)) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
      std::smatch match;
      if (std::regex_search(line, match, kLine)) out.push_back({file, match[2], match[1] == "\""});
    }
  }
  return out;
}

std::string room_of(const std::string& include) { return include.substr(0, include.find('/')); }

void expect_only(const std::string& room, const std::set<std::string>& rooms,
                 const std::set<std::string>& files) {
  const auto includes = includes_of(room);
  ASSERT_GT(includes.size(), 10u) << room;
  for (const Include& include : includes) {
    if (!include.own) continue;
    EXPECT_TRUE(rooms.contains(room_of(include.name)) || files.contains(include.name))
        << include.file << " may not include " << include.name;
  }
}

TEST(Layers, KernelIncludesNothingOfOurs) { expect_only("kernel", {"kernel"}, {}); }

TEST(Layers, SandboxKnowsNoPolicy) {
  expect_only("sandbox", {"sandbox"}, {"kernel/result.h", "kernel/call.h", "kernel/mutant.h"});
}

TEST(Layers, SupervisorKnowsNoAuthority) {
  expect_only("supervisor", {"supervisor", "kernel", "sandbox"}, {});
}

TEST(Layers, KernelIsPure) {
  const std::regex banned(
      R"(^(sys/|linux/|net|boost/|fcntl|unistd|signal|thread|mutex|atomic|chrono|random|fstream|iostream|filesystem|cstdio|stdio|time\.h|ctime|poll))");
  for (const Include& include : includes_of("kernel")) {
    if (!include.own) {
      EXPECT_FALSE(std::regex_search(include.name, banned))
          << include.file << " includes <" << include.name << ">";
    }
  }
}

TEST(Layers, TheSigningKeyIsOnlyInTheAuthoritysRoom) {
  for (const char* room : {"kernel", "sandbox", "supervisor"}) {
    for (const Include& include : includes_of(room)) {
      EXPECT_EQ(include.name.find("signing_key"), std::string::npos) << include.file;
    }
  }
}

TEST(Tidy, FilesStayReadable) {
  for (const char* room : {"kernel", "sandbox", "supervisor", "agentd"}) {
    for (const fs::path& file : sources_of(room)) {
      std::ifstream in(file);
      size_t lines = 0;
      for (std::string line; std::getline(in, line); ++lines) {
        EXPECT_LE(line.size(), 120u) << file << ":" << lines + 1;
      }
      EXPECT_LE(lines, 500u) << file << ": is a concept missing?";
    }
  }
}

TEST(Tidy, TheKernelIsReadInAnAfternoon) {
  size_t lines = 0;
  for (const fs::path& file : sources_of("kernel")) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) ++lines;
  }
  EXPECT_LE(lines, 5000u) << "kernel/ is more than can be audited: what does not decide goes elsewhere";
}

}  // namespace
