// Cgroup: the group of an agent's processes whose memory, number and processor time the kernel
// bounds as a whole. Version 2 first, then version 1, controller by controller.
//
//   Cgroup group = Cgroup::make({.memory = 2ull << 30, .processes = 512}, {});
//   if (group.means(Resource::kMemory) == Means::kNone) say(group.why(Resource::kMemory));
//   spec.entrances = group.entrances();   // init writes itself in before it does anything else
//   ... the sandbox has ended ...
//   group.remove();
//
// It must be made by who may make it (root, before it becomes somebody else) while single-threaded:
// that a process can be moved there is tried, not supposed. The descriptors keep the right to enter
// after that one is given up. Whatever entered cannot leave: no cgroup file system is shown inside.
//
// Empty → made (locked by flock while its maker or a copy of it lives) → removed. What a killed
// maker left is unlocked, and the next make() removes it.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/cgroup_places.h"
#include "sandbox/fd.h"

namespace certgate::sandbox {

enum class Resource : uint8_t { kMemory, kProcesses, kCpu };
inline constexpr size_t kResources = 3;

enum class Means : uint8_t { kNone, kCgroup2, kCgroup1 };

struct CgroupLimits {
  std::optional<uint64_t> memory;     // bytes, none of them swapped out
  std::optional<uint64_t> processes;  // and threads
  std::optional<uint64_t> cpu_milli;  // thousandths of one processor's time

  const std::optional<uint64_t>& of(Resource resource) const;
};

class Cgroup {
 public:
  Cgroup() = default;
  Cgroup(Cgroup&&) noexcept = default;
  Cgroup& operator=(Cgroup&&) = delete;
  ~Cgroup();

  // Bounds what the host lets it bound; never fails as a whole.
  static Cgroup make(const CgroupLimits& limits, const CgroupSources& sources);

  Means means(Resource resource) const { return row(resource).means; }
  const std::string& where(Resource resource) const { return row(resource).where; }
  const std::string& why(Resource resource) const { return row(resource).why; }  // of kNone
  const CgroupLimits& limits() const { return limits_; }

  // Each takes "0" from a process that enters; lent.
  std::vector<int> entrances() const;
  // How often a limit was met: processes killed for memory, forks refused. 0 for kCpu.
  uint64_t times_met(Resource resource) const;
  // Waits at most two seconds for the last process to be gone. Only in the process that made it.
  void remove();

 private:
  struct Group {
    std::string path;
    CgroupVersion version = CgroupVersion::kTwo;
    UniqueFd directory;  // holds the lock
    UniqueFd entrance;
  };
  struct Row {
    Means means = Means::kNone;
    std::string where, why;
    UniqueFd events;
  };

  const Row& row(Resource resource) const { return rows_[static_cast<size_t>(resource)]; }
  void make_two(const CgroupTree& tree);
  bool make_two_below(const std::string& parent, const std::vector<Resource>& wanted);
  void make_one(const CgroupTree& tree, Resource resource);
  bool bound(const Group& group, Resource resource);
  void note(const std::vector<Resource>& resources, const std::string& why);

  CgroupLimits limits_;
  CgroupSources sources_;
  std::vector<Group> groups_;
  std::array<Row, kResources> rows_;
  pid_t maker_ = -1;
};

}  // namespace certgate::sandbox
