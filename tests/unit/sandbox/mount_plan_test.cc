#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "sandbox/mounts.h"

namespace certgate::sandbox {
namespace {

Spec plain_spec() {
  Spec spec;
  spec.workspace = "/srv/project";
  spec.home = "/home/agent";
  return spec;
}

size_t position(const MountPlan& plan, const std::string& path) {
  const auto at = std::find_if(plan.entries.begin(), plan.entries.end(),
                               [&](const MountEntry& entry) { return entry.path == path; });
  EXPECT_NE(at, plan.entries.end()) << path;
  return static_cast<size_t>(at - plan.entries.begin());
}

std::string error_of(const Spec& spec) {
  const auto plan = plan_mounts(spec);
  return plan ? "accepted" : plan.error().what;
}

TEST(MountPlan, ParentsComeBeforeChildren) {
  Spec spec = plain_spec();
  spec.workspace = "/home/agent/work/project";
  spec.read_only = {"/home/agent/work/project/.git", "/tmp/tools"};
  const auto plan = plan_mounts(spec);
  ASSERT_TRUE(plan) << plan.error().what;
  EXPECT_LT(position(*plan, "/home/agent"), position(*plan, spec.workspace));
  EXPECT_LT(position(*plan, spec.workspace), position(*plan, spec.read_only[0]));
  EXPECT_LT(position(*plan, "/tmp"), position(*plan, "/tmp/tools"));
  EXPECT_LT(position(*plan, "/dev"), position(*plan, "/dev/shm"));
}

TEST(MountPlan, OnlyTheWorkspaceIsAWritableBind) {
  Spec spec = plain_spec();
  spec.read_only = {"/srv/data"};
  const auto plan = plan_mounts(spec);
  ASSERT_TRUE(plan);
  for (const MountEntry& entry : plan->entries) {
    if (entry.kind != MountEntry::Kind::kBind) continue;
    EXPECT_EQ((entry.attributes & 1 /* MOUNT_ATTR_RDONLY */) == 0, entry.path == spec.workspace)
        << entry.path;
    EXPECT_NE(entry.attributes & 2 /* MOUNT_ATTR_NOSUID */, 0u) << entry.path;
  }
}

TEST(MountPlan, EveryTmpfsHasLimits) {
  const auto plan = plan_mounts(plain_spec());
  ASSERT_TRUE(plan);
  for (const MountEntry& entry : plan->entries) {
    if (entry.text != "tmpfs" || entry.kind != MountEntry::Kind::kFileSystem) continue;
    for (const std::string key : {"size", "nr_inodes", "mode"}) {
      EXPECT_TRUE(std::any_of(entry.options.begin(), entry.options.end(),
                              [&](const auto& option) { return option.key == key; }))
          << entry.path << " " << key;
    }
  }
}

TEST(MountPlan, RefusesPlacesThatWouldHideOrOpenSomething) {
  for (const char* place :
       {"", "/", "//", "/a/", "/a//b", "/a/../b", "/a/.", "relative", "/usr", "/etc", "/tmp",
        "/var", "/home", "/home/agent", "/dev", "/proc", "/proc/self", "/run"}) {
    Spec spec = plain_spec();
    spec.workspace = place;
    EXPECT_NE(error_of(spec).find("workspace"), std::string::npos) << place;
    EXPECT_NE(error_of(spec).find("cure: "), std::string::npos) << place;
  }
  for (const char* place : {"", "/", "/usr/home", "/proc/home", "/var", "home"}) {
    Spec spec = plain_spec();
    spec.home = place;
    EXPECT_NE(error_of(spec).find("home"), std::string::npos) << place;
  }
  for (const char* place :
       {"/", "/tmp", "/home/agent", "/srv/project", "/proc/sys", "/dev/kmsg", "a/b"}) {
    Spec spec = plain_spec();
    spec.read_only = {place};
    EXPECT_NE(error_of(spec).find("read-only path"), std::string::npos) << place;
  }
  Spec spec = plain_spec();
  spec.read_only.assign(65, "/srv/data");
  EXPECT_NE(error_of(spec).find("more than 64"), std::string::npos);
  spec = plain_spec();
  spec.tmp_bytes = 0;
  EXPECT_NE(error_of(spec).find("1 MiB"), std::string::npos);
  spec = plain_spec();
  spec.workspace = std::string("/srv/a\0b", 8);
  EXPECT_NE(error_of(spec), "accepted");
}

TEST(MountPlan, PathsOfTheUserlandAreThereAlready) {
  Spec spec = plain_spec();
  spec.read_only = {"/usr/lib/x", "/etc/y"};
  const auto plan = plan_mounts(spec);
  ASSERT_TRUE(plan);
  for (const MountEntry& entry : plan->entries) {
    EXPECT_NE(entry.path, "/usr/lib/x");
    EXPECT_NE(entry.path, "/etc/y");
  }
}

TEST(Steps, ExplainNamesStepObjectErrnoAndCure) {
  const Error error = explain(fail_step(Step::kWorkingDirectory, "/nowhere", ENOENT));
  EXPECT_EQ(error.code, ENOENT);
  EXPECT_TRUE(error.what.starts_with(
      "enter the working directory /nowhere: No such file or directory; cure: "));
  // Whatever came through the socket: no read out of bounds, and a long path is cut.
  Failure wild = fail_step(static_cast<Step>(255), std::string(5000, 'a').c_str(), EIO);
  EXPECT_LT(explain(wild).what.size(), 1000u);
  for (char& byte : wild.object) byte = 'x';
  EXPECT_LT(explain(wild).what.size(), 1000u);
  EXPECT_FALSE(Failure{});
  errno = 0;
  EXPECT_TRUE(fail_step(Step::kClone));  // a failure stays one even without an errno
}

}  // namespace
}  // namespace certgate::sandbox
