#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <filesystem>
#include <string_view>

#include "kernel/mutant.h"
#include "sandbox/mounts.h"

namespace certgate::sandbox {
namespace {

using Kind = MountEntry::Kind;

constexpr uint64_t kPlain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
constexpr size_t kMaxReadOnly = 64;
constexpr uint64_t kMinTmpBytes = 1 << 20;
constexpr const char* kMaxTerminals = "256";  // of the host's own limit, which all instances share
constexpr size_t kMaxHostFile = 64 * 1024;
constexpr int kMaxLinks = 8;

constexpr const char* kUserland[] = {"/usr",   "/bin",    "/sbin", "/lib", "/lib32",
                                     "/lib64", "/libx32", "/etc",  "/opt"};

struct Device {
  const char* path;
  unsigned major, minor;
};
constexpr Device kDevices[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                               {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};

struct Link {
  const char* path;
  const char* target;
};
constexpr Link kLinks[] = {{"/dev/fd", "/proc/self/fd"},
                           {"/dev/stdin", "/proc/self/fd/0"},
                           {"/dev/stdout", "/proc/self/fd/1"},
                           {"/dev/stderr", "/proc/self/fd/2"},
                           {"/dev/ptmx", "pts/ptmx"}};

// `path` is `root` or lies under it.
bool within(std::string_view path, std::string_view root) {
  if (root == "/") return true;
  return path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/');
}

// Absolute, without empty, "." and ".." components and without a slash at the end.
bool is_normal(const std::string& path) {
  if (path.size() < 2 || path[0] != '/' || path.size() >= PATH_MAX) return false;
  if (path.find('\0') != std::string::npos) return false;
  for (size_t start = 1; start <= path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const std::string_view part(path.data() + start, end - start);
    if (part.empty() || part == "." || part == ".." || part.size() > NAME_MAX) return false;
    start = end + 1;
  }
  return true;
}

Status check_path(const char* what, const std::string& path) {
  if (is_normal(path)) return ok();
  return fail(std::string(what) + " '" + path +
              "' is not usable; cure: give an absolute path other than /, without '.', '..' and "
              "repeated slashes");
}

std::array<std::string, 5> empty_places(const Spec& spec) {
  return {"/tmp", "/var/tmp", "/run", "/dev", spec.home};
}

Status check_places(const Spec& spec) {
  CG_CHECK(check_path("workspace", spec.workspace));
  CG_CHECK(check_path("home", spec.home));
  for (const char* place : kUserland) {
    if (within(place, spec.workspace))
      return fail("workspace " + spec.workspace + " holds " + place +
                  "; cure: use a directory below it");
    if (within(spec.home, place))
      return fail("home " + spec.home + " lies in the read-only " + place +
                  "; cure: use another home");
  }
  for (const std::string& place : empty_places(spec)) {
    if (within(place, spec.workspace)) {
      return fail("workspace " + spec.workspace + " holds the sandbox's own " + place +
                  "; cure: use a directory that does not");
    }
    if (place != spec.home && within(place, spec.home)) {
      return fail("home " + spec.home + " holds the sandbox's own " + place +
                  "; cure: use another home");
    }
  }
  if (within(spec.workspace, "/proc") || within(spec.home, "/proc") ||
      within("/proc", spec.workspace)) {
    return fail("workspace and home cannot be in /proc; cure: use another directory");
  }
  if (spec.tmp_bytes < kMinTmpBytes)
    return fail("the limit of /tmp is below 1 MiB; cure: raise it");
  if (spec.read_only.size() > kMaxReadOnly) {
    return fail("more than " + std::to_string(kMaxReadOnly) +
                " read-only paths; cure: name a directory above them");
  }
  return ok();
}

MountEntry bind(const std::string& path, uint64_t attributes) {
  MountEntry entry;
  entry.path = path;
  entry.attributes = attributes;
  return entry;
}

MountEntry link(const std::string& path, std::string target) {
  MountEntry entry;
  entry.kind = Kind::kLink;
  entry.path = path;
  entry.text = std::move(target);
  return entry;
}

MountEntry file_system(const std::string& path, const char* type, uint64_t attributes,
                       std::vector<MountEntry::Option> options) {
  MountEntry entry;
  entry.kind = Kind::kFileSystem;
  entry.path = path;
  entry.text = type;
  entry.attributes = attributes;
  entry.options = std::move(options);
  return entry;
}

MountEntry tmpfs(const std::string& path, const char* mode, uint64_t bytes) {
  // One inode for each 4 KiB: without a limit of its own a full tree of empty files is free.
  return file_system(path, "tmpfs", kPlain,
                     {{"mode", mode},
                      {"size", std::to_string(bytes)},
                      {"nr_inodes", std::to_string(std::max<uint64_t>(bytes / 4096, 256))}});
}

Status add_userland(MountPlan& plan) {
  for (const char* path : kUserland) {
    struct stat info {};
    if (lstat(path, &info) != 0) continue;  // not every distribution has all of them
    if (!S_ISLNK(info.st_mode)) {
      plan.entries.push_back(bind(path, kPlain | MOUNT_ATTR_RDONLY));
      continue;
    }
    std::error_code error;
    const auto target = std::filesystem::read_symlink(path, error);
    if (error) return fail_errno(std::string("readlink ") + path, error.value());
    plan.entries.push_back(link(path, target.string()));
  }
  return ok();
}

Status add_read_only(const Spec& spec, MountPlan& plan) {
  for (const std::string& path : spec.read_only) {
    CG_CHECK(check_path("read-only path", path));
    const bool present = std::any_of(std::begin(kUserland), std::end(kUserland),
                                     [&](const char* place) { return within(path, place); });
    if (present) continue;
    bool taken = path == spec.workspace || within(path, "/proc") || within(path, "/dev");
    for (const std::string& place : empty_places(spec)) taken = taken || path == place;
    if (taken) {
      return fail("read-only path " + path +
                  " is a place that the sandbox makes itself; cure: leave it out");
    }
    plan.entries.push_back(bind(path, kPlain | MOUNT_ATTR_RDONLY));
  }
  return ok();
}

Status add_home_files(const Spec& spec, MountPlan& plan) {
  if (spec.home_files.size() > kMaxReadOnly) return fail("more than 64 files for the home");
  for (const HomeFile& file : spec.home_files) {
    CG_CHECK(check_path("home file", file.source));
    CG_CHECK(check_path("home file", file.target));
    if (file.target == spec.home || !within(file.target, spec.home) ||
        within(file.target, spec.workspace) || within(spec.workspace, file.target)) {
      return fail("home file " + file.target +
                  " is not a place in the home beside the workspace; cure: name one");
    }
    plan.entries.push_back(bind(file.target, kPlain | MOUNT_ATTR_RDONLY));
    plan.entries.back().source = file.source;
  }
  return ok();
}

// A file system of its own, so that no name in it can be moved away.
void add_gate(const Spec& spec, MountPlan& plan) {
  if (!spec.gate) return;
  plan.entries.push_back(tmpfs(kGateDirectory, "0755", 64 * 1024));
  plan.entries.back().sealed = true;
  if (!spec.gate_program.empty()) {
    plan.entries.push_back(bind(kGateProgram, kPlain | MOUNT_ATTR_RDONLY));
    plan.entries.back().source = spec.gate_program;
    plan.entries.back().directory = false;
    plan.entries.back().optional = true;
  }
  for (size_t i = 0; i < spec.messages.size(); ++i) {
    const std::string number = std::to_string(i);
    plan.files.push_back({std::string(kWorkshop) + "/message-" + number,
                          std::string(kGateMessages) + "/" + number, spec.messages[i]});
  }
}

void add_dev(const Spec& spec, MountPlan& plan) {
  plan.entries.push_back(tmpfs("/dev", "0755", 64 * 1024));
  for (const Device& device : kDevices) {
    // Read-only still lets the device be written to; it keeps the host's node as it is.
    MountEntry entry = bind(device.path, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY);
    entry.kind = Kind::kDevice;
    entry.device = makedev(device.major, device.minor);
    plan.entries.push_back(std::move(entry));
  }
  for (const Link& item : kLinks) plan.entries.push_back(link(item.path, item.target));
  plan.entries.push_back(
      file_system("/dev/pts", "devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                  {{"ptmxmode", "0666"}, {"mode", "0620"}, {"max", kMaxTerminals}}));
  plan.entries.push_back(tmpfs("/dev/shm", "1777", spec.tmp_bytes));
  plan.entries.push_back(file_system("/dev/mqueue", "mqueue", kPlain | MOUNT_ATTR_NOEXEC, {}));
  plan.entries.back().optional = mutant(Mutant::kPrivateIpc);
  plan.entries.back().optional = true;
}

// Where the links of a file of /etc end, also when the last one points to nothing (yet).
Result<std::string> end_of_links(const std::string& path) {
  std::filesystem::path current(path);
  std::error_code error;
  for (int hops = 0; hops < kMaxLinks; ++hops) {
    const auto parent = std::filesystem::weakly_canonical(current.parent_path(), error);
    if (error) return fail_errno("resolve " + path, error.value());
    current = parent / current.filename();
    if (!std::filesystem::is_symlink(current, error)) return current.string();
    const auto target = std::filesystem::read_symlink(current, error);
    if (error) return fail_errno("readlink " + current.string(), error.value());
    current = (parent / target).lexically_normal();
  }
  return fail(path + " goes through too many symbolic links; cure: make it a file", ELOOP);
}

// The host's nsswitch.conf with names resolved by files and dns only: other modules would ask
// daemons that are not there.
std::string plain_nsswitch(const std::string& host) {
  std::string result;
  for (size_t start = 0; start < host.size();) {
    const size_t end = std::min(host.find('\n', start), host.size());
    const std::string line = host.substr(start, end - start);
    const size_t first = line.find_first_not_of(" \t");
    if (first == std::string::npos || line.compare(first, 6, "hosts:") != 0) result += line + "\n";
    start = end + 1;
  }
  return result + "hosts: files dns\n";
}

Result<std::string> read_small(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return fail_errno("open " + path, errno);
  std::string text(kMaxHostFile, '\0');
  const ssize_t got = read(file.get(), text.data(), text.size());
  if (got < 0) return fail_errno("read " + path, errno);
  text.resize(static_cast<size_t>(got));
  return text;
}

std::string workshop(const char* name) { return std::string(kWorkshop) + "/" + name; }

Status add_private_files(const Spec& spec, MountPlan& plan) {
  CG_TRY(std::string resolver, end_of_links("/etc/resolv.conf"));
  plan.files.push_back(
      {workshop("resolv.conf"), std::move(resolver),
       std::string("nameserver ") + kResolverAddress + "\noptions timeout:2 attempts:2\n"});
  // Without these two the C library's defaults are what we would write.
  if (access("/etc/hosts", F_OK) == 0) {
    CG_TRY(std::string hosts, end_of_links("/etc/hosts"));
    plan.files.push_back(
        {workshop("hosts"), std::move(hosts),
         "127.0.0.1 localhost " + spec.hostname + "\n::1 localhost " + spec.hostname + "\n"});
  }
  if (access("/etc/nsswitch.conf", R_OK) == 0) {
    CG_TRY(std::string target, end_of_links("/etc/nsswitch.conf"));
    CG_TRY(const std::string host, read_small("/etc/nsswitch.conf"));
    plan.files.push_back({workshop("nsswitch.conf"), std::move(target), plain_nsswitch(host)});
  }
  plan.files.push_back({kEmptyFile, "", ""});
  return ok();
}

}  // namespace

Result<MountPlan> plan_mounts(const Spec& spec) {
  CG_CHECK(check_places(spec));
  MountPlan plan;
  plan.workspace = spec.workspace;
  CG_CHECK(add_userland(plan));
  plan.entries.push_back(tmpfs("/tmp", "1777", spec.tmp_bytes));
  plan.entries.push_back(tmpfs("/var/tmp", "1777", spec.tmp_bytes));
  plan.entries.push_back(tmpfs("/run", "0755", kMinTmpBytes));
  plan.entries.push_back(tmpfs(spec.home, "0700", spec.tmp_bytes));
  plan.entries.push_back(mutant(Mutant::kOwnProc)
                             ? bind("/proc", kPlain | MOUNT_ATTR_NOEXEC)
                             : file_system("/proc", "proc", kPlain | MOUNT_ATTR_NOEXEC, {}));
  add_dev(spec, plan);
  add_gate(spec, plan);
  CG_CHECK(add_read_only(spec, plan));
  CG_CHECK(add_home_files(spec, plan));
  plan.entries.push_back(bind(spec.workspace, kPlain));
  plan.entries.back().lent_tree = spec.workspace_tree;
  CG_CHECK(add_private_files(spec, plan));
  std::stable_sort(plan.entries.begin(), plan.entries.end(),
                   [](const auto& left, const auto& right) {
                     return std::count(left.path.begin(), left.path.end(), '/') <
                            std::count(right.path.begin(), right.path.end(), '/');
                   });
  return plan;
}

}  // namespace certgate::sandbox
