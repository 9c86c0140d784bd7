#include "sandbox/cgroup.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace certgate::sandbox {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& text) { std::ofstream(path) << text; }
std::string read(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

constexpr const char* kFilesOfTwo[] = {"cgroup.procs", "cgroup.kill", "memory.max", "memory.events",
                                       "pids.max",     "pids.events", "cpu.max"};

// What the kernel does in mkdir and rmdir of a cgroup directory.
int make_with_files(const char* path, mode_t mode) {
  if (::mkdir(path, mode) != 0) return -1;
  for (const char* file : kFilesOfTwo) write(fs::path(path) / file, "");
  return 0;
}
int remove_with_files(const char* path) {
  for (const char* file : kFilesOfTwo) fs::remove(fs::path(path) / file);
  return ::rmdir(path);
}

// A host made of files: /top is mounted as cgroup2, this process is in /top/user/session.
class CgroupTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-cgroup-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    top_ = dir_ / "top";
    fs::create_directories(top_ / "user/session");
    mounts("30 24 0:26 / " + top_.string() + " rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
    write(dir_ / "own", "0::/user/session\n");
    for (const char* place : {"", "user", "user/session"}) {
      offer(place, "cpu memory pids");
      delegate(place, "");
    }
  }
  void TearDown() override { fs::remove_all(dir_); }

  void mounts(const std::string& text) { write(dir_ / "mountinfo", text); }
  void offer(const char* place, const char* names) {
    write(top_ / place / "cgroup.controllers", names);
  }
  void delegate(const char* place, const char* names) {
    write(top_ / place / "cgroup.subtree_control", names);
  }
  CgroupSources sources() const {
    return {(dir_ / "mountinfo").string(), (dir_ / "own").string(), make_with_files,
            remove_with_files};
  }
  // No place hands controllers on, and none can be made to.
  void withhold() {
    for (const char* place : {"", "user", "user/session"})
      fs::remove(top_ / place / "cgroup.subtree_control");
  }
  static size_t groups_in(const fs::path& place) {
    size_t count = 0;
    for (const auto& entry : fs::directory_iterator(place))
      count += entry.path().filename().string().starts_with("certgate-");
    return count;
  }

  fs::path dir_, top_;
  const CgroupLimits all_{.memory = 64 << 20, .processes = 100, .cpu_milli = 1500};
};

TEST_F(CgroupTest, TheGroupIsTheNearestPlaceWithAllControllers) {
  delegate("user", "cpu memory pids");
  delegate("", "cpu memory pids");
  const Cgroup group = Cgroup::make(all_, sources());
  for (const Resource resource : {Resource::kMemory, Resource::kProcesses, Resource::kCpu}) {
    EXPECT_EQ(group.means(resource), Means::kCgroup2) << group.why(resource);
    EXPECT_EQ(fs::path(group.where(resource)).parent_path(), top_ / "user");
  }
  const fs::path made = group.where(Resource::kMemory);
  EXPECT_EQ(read(made / "memory.max"), "67108864");
  EXPECT_EQ(read(made / "pids.max"), "100");
  EXPECT_EQ(read(made / "cpu.max"), "150000 100000");
  EXPECT_EQ(read(made / "cgroup.procs"), "0");  // that one can enter was tried
  EXPECT_EQ(group.entrances().size(), 1u);
}

TEST_F(CgroupTest, WhatIsNotOfferedIsNotBound) {
  offer("user/session", "pids");
  withhold();
  delegate("user", "pids");
  const Cgroup group = Cgroup::make(all_, sources());
  EXPECT_EQ(group.means(Resource::kProcesses), Means::kCgroup2) << group.why(Resource::kProcesses);
  EXPECT_EQ(group.means(Resource::kMemory), Means::kNone);
  EXPECT_FALSE(group.why(Resource::kMemory).empty());
}

TEST_F(CgroupTest, ItIsRemovedWithItsOwner) {
  delegate("user", "cpu memory pids");
  {
    const Cgroup group = Cgroup::make(all_, sources());
    EXPECT_EQ(groups_in(top_ / "user"), 1u);
  }
  EXPECT_EQ(groups_in(top_ / "user"), 0u);
}

TEST_F(CgroupTest, WhatADeadMakerLeftIsRemovedAndALivingOnesIsNot) {
  delegate("user", "cpu memory pids");
  ASSERT_EQ(make_with_files((top_ / "user/certgate-1-2-3").c_str(), 0755), 0);
  const Cgroup living = Cgroup::make(all_, sources());
  EXPECT_FALSE(fs::exists(top_ / "user/certgate-1-2-3"));
  const Cgroup second = Cgroup::make(all_, sources());
  EXPECT_TRUE(fs::exists(living.where(Resource::kMemory)));
  EXPECT_EQ(groups_in(top_ / "user"), 2u);
}

TEST_F(CgroupTest, HowOftenALimitWasMetIsTheKernelsCount) {
  delegate("user", "cpu memory pids");
  const Cgroup group = Cgroup::make(all_, sources());
  const fs::path made = group.where(Resource::kMemory);
  EXPECT_EQ(group.times_met(Resource::kMemory), 0u);
  write(made / "memory.events", "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n");
  write(made / "pids.events", "max 7\n");
  EXPECT_EQ(group.times_met(Resource::kMemory), 2u);
  EXPECT_EQ(group.times_met(Resource::kProcesses), 7u);
}

TEST_F(CgroupTest, WithoutADelegatedPlaceItSaysSo) {
  withhold();
  const Cgroup group = Cgroup::make(all_, sources());
  EXPECT_EQ(group.means(Resource::kMemory), Means::kNone);
  EXPECT_NE(group.why(Resource::kMemory).find("no delegated cgroup"), std::string::npos);
  EXPECT_TRUE(group.entrances().empty());
}

TEST_F(CgroupTest, NoHierarchyIsNoCgroup) {
  mounts("22 1 0:20 / /proc rw - proc proc rw\n");
  const Cgroup group = Cgroup::make(all_, sources());
  EXPECT_EQ(group.means(Resource::kCpu), Means::kNone);
  EXPECT_NE(group.why(Resource::kCpu).find("no cgroup hierarchy"), std::string::npos);
}

TEST_F(CgroupTest, TreesAreFoundByControllerAndByWhatTheMountShows) {
  mounts(
      "31 30 0:27 /docker/a /sys/fs/cgroup/memory rw shared:5 - cgroup cgroup rw,memory\n"
      "32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "33 30 0:29 /elsewhere /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
      "34 30 0:30 / /with\\040space rw - cgroup2 cgroup2 rw\n");
  write(dir_ / "own", "4:memory:/docker/a/b\n3:cpu,cpuacct:/\n2:pids:/docker/a\n0::/docker/a\n");
  const std::vector<CgroupTree> trees =
      find_cgroup_trees({(dir_ / "mountinfo").string(), (dir_ / "own").string()});
  ASSERT_EQ(trees.size(), 3u);  // the pids mount shows another part
  EXPECT_EQ(trees[0].version, CgroupVersion::kTwo);
  EXPECT_EQ(trees[0].own, "/with space/docker/a");
  EXPECT_EQ(trees[1].own, "/sys/fs/cgroup/memory/b");
  EXPECT_TRUE(trees[1].has("memory"));
  EXPECT_TRUE(trees[2].has("cpu"));
  EXPECT_EQ(trees[2].own, "/sys/fs/cgroup/cpu,cpuacct");
}

}  // namespace
}  // namespace certgate::sandbox
