#include "sandbox/cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <sstream>

#include "kernel/mutant.h"

namespace certgate::sandbox {
namespace {

constexpr const char* kPrefix = "certgate-";
constexpr uint64_t kPeriod_us = 100000;
constexpr int kMakeTries = 8;
constexpr int kRemoveTries = 400;  // of 5 ms
constexpr size_t kMaxLeftovers = 1024;

// One file of a group that gets the limit, and how its value is written.
enum class Value : uint8_t { kNumber, kZero, kQuota, kQuotaAndPeriod, kPeriod };
enum class Need : uint8_t { kRequired, kIfThere };
struct Setting {
  Resource resource;
  CgroupVersion version;
  const char* file;
  Value value;
  Need need;
};
constexpr Setting kSettings[] = {
    {Resource::kMemory, CgroupVersion::kTwo, "memory.max", Value::kNumber, Need::kRequired},
    {Resource::kMemory, CgroupVersion::kTwo, "memory.swap.max", Value::kZero, Need::kIfThere},
    {Resource::kProcesses, CgroupVersion::kTwo, "pids.max", Value::kNumber, Need::kRequired},
    {Resource::kCpu, CgroupVersion::kTwo, "cpu.max", Value::kQuotaAndPeriod, Need::kRequired},
    {Resource::kMemory, CgroupVersion::kOne, "memory.limit_in_bytes", Value::kNumber,
     Need::kRequired},
    {Resource::kMemory, CgroupVersion::kOne, "memory.memsw.limit_in_bytes", Value::kNumber,
     Need::kIfThere},
    {Resource::kProcesses, CgroupVersion::kOne, "pids.max", Value::kNumber, Need::kRequired},
    {Resource::kCpu, CgroupVersion::kOne, "cpu.cfs_period_us", Value::kPeriod, Need::kRequired},
    {Resource::kCpu, CgroupVersion::kOne, "cpu.cfs_quota_us", Value::kQuota, Need::kRequired},
};

// Where the kernel counts how often a limit was met.
struct Counter {
  Resource resource;
  CgroupVersion version;
  const char* file;
  const char* key;
};
constexpr Counter kCounters[] = {
    {Resource::kMemory, CgroupVersion::kTwo, "memory.events", "oom_kill "},
    {Resource::kMemory, CgroupVersion::kOne, "memory.oom_control", "oom_kill "},
    {Resource::kProcesses, CgroupVersion::kTwo, "pids.events", "max "},
    {Resource::kProcesses, CgroupVersion::kOne, "pids.events", "max "},
};

constexpr const char* kControllers[] = {"memory", "pids", "cpu"};
const char* controller_of(Resource resource) { return kControllers[static_cast<size_t>(resource)]; }

std::string text_of(Value value, uint64_t limit) {
  const std::string quota = std::to_string(limit * kPeriod_us / 1000);
  switch (value) {
    case Value::kNumber:
      return std::to_string(limit);
    case Value::kZero:
      return "0";
    case Value::kQuota:
      return quota;
    case Value::kQuotaAndPeriod:
      return quota + " " + std::to_string(kPeriod_us);
    case Value::kPeriod:
      return std::to_string(kPeriod_us);
  }
  return "";
}

// 0 or errno. A cgroup's files are made by the kernel: what is missing is not supported.
int write_file(const std::string& path, const std::string& text) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file) return errno;
  return write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0
                                                                                          : errno;
}

bool lists(const std::string& path, const char* word) {
  std::ifstream in(path);
  for (std::string name; in >> name;) {
    if (name == word) return true;
  }
  return false;
}

std::string error_text(const std::string& what, int error) {
  return what + ": " + std::strerror(error);
}

void pause_5ms() {
  timespec wait{0, 5'000'000};
  nanosleep(&wait, nullptr);
}

// What makers that were killed left below `parent`: ours by name, empty, and locked by nobody.
void remove_leftovers(const std::string& parent, const CgroupSources& sources) {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(parent.c_str()), closedir);
  if (!dir) return;
  std::vector<std::string> names;
  while (const dirent* entry = readdir(dir.get())) {
    if (names.size() < kMaxLeftovers && std::strncmp(entry->d_name, kPrefix, 9) == 0)
      names.emplace_back(entry->d_name);
  }
  for (const std::string& name : names) {
    const std::string path = parent + "/" + name;
    const UniqueFd held(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    if (held && flock(held.get(), LOCK_EX | LOCK_NB) == 0) sources.remove_directory(path.c_str());
  }
}

bool same_directory(int fd, const std::string& path) {
  struct stat held {
  }, named{};
  return fstat(fd, &held) == 0 && lstat(path.c_str(), &named) == 0 && held.st_ino == named.st_ino &&
         held.st_dev == named.st_dev;
}

// Makes and locks a directory of a new name. 0 or errno.
int make_directory(const std::string& parent, const CgroupSources& sources, std::string& path,
                   UniqueFd& directory) {
  static int number = 0;
  for (int i = 0; i < kMakeTries; ++i) {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    path = parent + "/" + kPrefix + std::to_string(getpid()) + "-" + std::to_string(now.tv_nsec) +
           "-" + std::to_string(number++);
    if (sources.make_directory(path.c_str(), 0755) != 0) {
      if (errno == EEXIST) continue;
      return errno;
    }
    directory.reset(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
    // Between mkdir and flock another one's remove_leftovers() may have taken it for one.
    if (directory && flock(directory.get(), LOCK_EX) == 0 && same_directory(directory.get(), path))
      return 0;
    directory.reset();
    sources.remove_directory(path.c_str());
  }
  return EAGAIN;
}

// Whether a process of ours can be moved there, by moving one. 0 or errno.
int try_to_enter(int entrance) {
  const pid_t child = fork();
  if (child < 0) return errno;
  if (child == 0) _exit(write(entrance, "0", 1) == 1 ? 0 : errno);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

int open_entrance(const std::string& path, UniqueFd& entrance) {
  entrance.reset(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return entrance ? try_to_enter(entrance.get()) : errno;
}

void remove_group(const std::string& path, const CgroupSources& sources) {
  for (int i = 0; i < kRemoveTries; ++i) {
    if (sources.remove_directory(path.c_str()) == 0 || errno != EBUSY) return;
    pause_5ms();
  }
}

}  // namespace

const std::optional<uint64_t>& CgroupLimits::of(Resource resource) const {
  return resource == Resource::kMemory      ? memory
         : resource == Resource::kProcesses ? processes
                                            : cpu_milli;
}

Cgroup::~Cgroup() { remove(); }

void Cgroup::note(const std::vector<Resource>& resources, const std::string& why) {
  for (const Resource resource : resources) {
    Row& row = rows_[static_cast<size_t>(resource)];
    row.why += (row.why.empty() ? "" : "; ") + why;
  }
}

bool Cgroup::bound(const Group& group, Resource resource) {
  for (const Setting& setting : kSettings) {
    if (setting.resource != resource || setting.version != group.version) continue;
    const std::string path = group.path + "/" + setting.file;
    const int error = write_file(path, text_of(setting.value, *limits_.of(resource)));
    if (error == 0 || (setting.need == Need::kIfThere && error == ENOENT)) continue;
    note({resource}, error_text(path, error));
    return false;
  }
  Row& row = rows_[static_cast<size_t>(resource)];
  for (const Counter& counter : kCounters) {
    if (counter.resource == resource && counter.version == group.version)
      row.events.reset(open((group.path + "/" + counter.file).c_str(), O_RDONLY | O_CLOEXEC));
  }
  row.means = group.version == CgroupVersion::kTwo ? Means::kCgroup2 : Means::kCgroup1;
  row.where = group.path;
  return true;
}

// A group below `parent` that bounds at least one of the wanted resources.
bool Cgroup::make_two_below(const std::string& parent, const std::vector<Resource>& wanted) {
  remove_leftovers(parent, sources_);
  Group group;
  if (const int error = make_directory(parent, sources_, group.path, group.directory); error != 0)
    return note(wanted, error_text("make a cgroup in " + parent, error)), false;
  const int error = open_entrance(group.path + "/cgroup.procs", group.entrance);
  bool any = false;
  if (error != 0) {
    note(wanted, error_text("enter a cgroup in " + parent, error));
  } else {
    for (const Resource resource : wanted) any = bound(group, resource) || any;
  }
  if (any) {
    groups_.push_back(std::move(group));
  } else {
    remove_group(group.path, sources_);
  }
  return any;
}

// Our own cgroup holds us, so its children can have controllers only where it is the root one (no
// internal processes); hence also a sibling, up to the mount point. First where all that the tree
// can do is to be had, then where anything is.
void Cgroup::make_two(const CgroupTree& tree) {
  std::vector<Resource> wanted, offered;
  for (size_t i = 0; i < kResources; ++i) {
    const auto resource = static_cast<Resource>(i);
    if (!limits_.of(resource)) continue;
    wanted.push_back(resource);
    if (lists(tree.own + "/cgroup.controllers", controller_of(resource)))
      offered.push_back(resource);
  }
  if (wanted.size() > offered.size())
    note(wanted, "not every controller is in " + tree.own + "/cgroup.controllers");
  for (const bool all : {true, false}) {
    std::string parent = tree.own;
    while (!offered.empty()) {
      std::vector<Resource> had;
      for (const Resource resource : offered) {
        const std::string enabled = parent + "/cgroup.subtree_control";
        if (!lists(enabled, controller_of(resource)))
          write_file(enabled, std::string("+") + controller_of(resource));
        if (lists(enabled, controller_of(resource))) had.push_back(resource);
      }
      const bool enough = all ? had.size() == offered.size() : !had.empty();
      if (enough && make_two_below(parent, had)) return;
      if (parent.size() <= tree.top.size()) break;
      parent.resize(parent.rfind('/'));
    }
  }
  note(offered, "no delegated cgroup at or above " + tree.own);
}

void Cgroup::make_one(const CgroupTree& tree, Resource resource) {
  for (const Group& group : groups_) {  // controllers may share a hierarchy
    if (group.version == CgroupVersion::kOne && group.path.starts_with(tree.own + "/certgate-")) {
      bound(group, resource);
      return;
    }
  }
  remove_leftovers(tree.own, sources_);
  Group group;
  group.version = CgroupVersion::kOne;
  if (const int error = make_directory(tree.own, sources_, group.path, group.directory); error != 0)
    return note({resource}, error_text("make a cgroup in " + tree.own, error));
  // A thread that moves itself waits for nobody; whole processes (cgroup.procs) wait for an RCU
  // grace period, 3 ms each. Whoever enters has one thread.
  const int error = open_entrance(group.path + "/tasks", group.entrance);
  if (error != 0) note({resource}, error_text("enter a cgroup in " + tree.own, error));
  if (error == 0 && bound(group, resource))
    groups_.push_back(std::move(group));
  else
    remove_group(group.path, sources_);
}

Cgroup Cgroup::make(const CgroupLimits& limits, const CgroupSources& sources) {
  Cgroup out;
  out.limits_ = limits;
  out.sources_ = sources;
  out.maker_ = getpid();
  if (mutant(Mutant::kCgroup)) return out;
  const std::vector<CgroupTree> trees = find_cgroup_trees(sources);
  for (const CgroupTree& tree : trees) {
    if (tree.version == CgroupVersion::kTwo && out.groups_.empty()) out.make_two(tree);
  }
  for (size_t i = 0; i < kResources; ++i) {
    const auto resource = static_cast<Resource>(i);
    for (const CgroupTree& tree : trees) {
      const bool open_still = limits.of(resource) && out.means(resource) == Means::kNone;
      if (open_still && tree.version == CgroupVersion::kOne && tree.has(controller_of(resource)))
        out.make_one(tree, resource);
    }
    Row& row = out.rows_[i];
    if (limits.of(resource) && row.means == Means::kNone && row.why.empty())
      row.why = "no cgroup hierarchy with this controller is mounted";
  }
  return out;
}

std::vector<int> Cgroup::entrances() const {
  std::vector<int> out;
  for (const Group& group : groups_) out.push_back(group.entrance.get());
  return out;
}

uint64_t Cgroup::times_met(Resource resource) const {
  const Row& row = rows_[static_cast<size_t>(resource)];
  if (!row.events) return 0;
  char text[1024] = {};
  if (pread(row.events.get(), text, sizeof text - 1, 0) <= 0) return 0;
  for (const Counter& counter : kCounters) {
    if (counter.resource != resource) continue;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with(counter.key))
        return std::strtoull(line.c_str() + std::strlen(counter.key), nullptr, 10);
    }
  }
  return 0;
}

void Cgroup::remove() {
  if (maker_ != getpid()) return;
  for (const Group& group : groups_) {
    if (!mutant(Mutant::kDeathOfSupervisor) && group.version == CgroupVersion::kTwo)
      write_file(group.path + "/cgroup.kill", "1");
    remove_group(group.path, sources_);
  }
  groups_.clear();
}

}  // namespace certgate::sandbox
