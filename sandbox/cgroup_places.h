// Cgroup places: which cgroup hierarchies this host has mounted, and where this process is in them.
//
//   for (const CgroupTree& tree : find_cgroup_trees({}))
//     ... tree.own is a directory below which a child may be made ...
//
// Unified (version 2) trees come first. Trees in which this process is outside of what is mounted
// (a container that shows another's) are left out.
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <vector>

namespace certgate::sandbox {

enum class CgroupVersion : uint8_t { kTwo, kOne };

struct CgroupTree {
  CgroupVersion version = CgroupVersion::kTwo;
  std::vector<std::string> controllers;  // version 1; of version 2 see cgroup.controllers
  std::string top;                       // where it is mounted
  std::string own;                       // the directory of this process's cgroup, at or below top

  bool has(const std::string& controller) const;
};

// Where the kernel says it, and how it makes a group with its files. A test has its own.
struct CgroupSources {
  std::string mountinfo = "/proc/self/mountinfo";
  std::string own = "/proc/self/cgroup";
  int (*make_directory)(const char* path, mode_t mode) = ::mkdir;
  int (*remove_directory)(const char* path) = ::rmdir;
};

std::vector<CgroupTree> find_cgroup_trees(const CgroupSources& sources);

}  // namespace certgate::sandbox
