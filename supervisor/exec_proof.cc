#include "supervisor/exec_proof.h"

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>

#include "sandbox/remote.h"
#include "supervisor/path_walk.h"

namespace certgate::supervisor {
namespace {

constexpr size_t kMaxStringsBytes = 16u << 20;
constexpr size_t kMaxMapsBytes = 4u << 20;

// "a\0b\0" → {a, b}
std::vector<std::string> split_strings(const std::string& bytes) {
  std::vector<std::string> out;
  for (size_t at = 0; at < bytes.size();) {
    size_t end = bytes.find('\0', at);
    if (end == std::string::npos) end = bytes.size();
    out.push_back(bytes.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

// "major:minor inode" of the mapping that starts at `address`, as /proc/<pid>/maps prints it. That
// device number is not always st_dev (overlayfs, btrfs), so it is only ever compared with itself.
std::optional<std::string> mapping_at(const std::string& maps, uint64_t address) {
  char prefix[32];
  std::snprintf(prefix, sizeof prefix, "%08" PRIx64 "-", address);
  for (size_t at = 0; at < maps.size();) {
    size_t end = maps.find('\n', at);
    if (end == std::string::npos) end = maps.size();
    const std::string line = maps.substr(at, end - at);
    at = end + 1;
    if (!line.starts_with(prefix)) continue;
    char dev[32];
    unsigned long long inode = 0;
    if (std::sscanf(line.c_str(), "%*s %*s %*s %31s %llu", dev, &inode) != 2) return std::nullopt;
    return std::string(dev) + " " + std::to_string(inode);
  }
  return std::nullopt;
}

// How /proc/*/maps names this file: found by mapping it here for a moment. The tracer thread only.
std::optional<std::string> name_in_maps(int fd) {
  thread_local std::map<kernel::FileIdentity, std::string> known;
  ObjectFacts facts;
  if (object_facts(fd, facts) != 0) return std::nullopt;
  const auto it = known.find(facts.identity);
  if (it != known.end()) return it->second;
  void* at = ::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  if (at == MAP_FAILED) return std::nullopt;
  std::optional<std::string> name;
  if (const auto maps = sandbox::read_file("/proc/self/maps", kMaxMapsBytes)) {
    name = mapping_at(*maps, reinterpret_cast<uint64_t>(at));
  }
  ::munmap(at, 4096);
  if (name && known.size() < 256) known.emplace(facts.identity, *name);
  return name;
}

}  // namespace

bool maps_file_at(pid_t pid, uint64_t address, int fd) {
  const auto maps = sandbox::read_file("/proc/" + std::to_string(pid) + "/maps", kMaxMapsBytes);
  if (!maps) return false;
  const auto there = mapping_at(*maps, address);
  const auto wanted = name_in_maps(fd);
  return there && wanted && *there == *wanted;
}

Result<ExecProof> read_exec_proof(pid_t pid) {
  const std::string proc = "/proc/" + std::to_string(pid) + "/";
  ExecProof out;
  CG_TRY(out.exe, sandbox::open_task_link(pid, "exe"));
  CG_TRY(const std::string argv, sandbox::read_file(proc + "cmdline", kMaxStringsBytes));
  CG_TRY(const std::string env, sandbox::read_file(proc + "environ", kMaxStringsBytes));
  CG_TRY(const std::string auxv, sandbox::read_file(proc + "auxv", 65536));
  CG_TRY(const sandbox::TaskFacts task, sandbox::task_facts(pid));
  out.argv = split_strings(argv);
  out.env = split_strings(env);
  out.uids = task.uids;
  uint64_t execfn = 0;
  for (size_t at = 0; at + sizeof(Elf64_auxv_t) <= auxv.size(); at += sizeof(Elf64_auxv_t)) {
    Elf64_auxv_t entry;
    std::memcpy(&entry, auxv.data() + at, sizeof entry);
    if (entry.a_type == AT_EXECFN) execfn = entry.a_un.a_val;
    if (entry.a_type == AT_BASE) out.loader_base = entry.a_un.a_val;
  }
  if (execfn == 0 || sandbox::read_string(pid, execfn, kMaxPath, out.execfn) != 0) {
    return fail("no AT_EXECFN", EFAULT);
  }
  return out;
}

}  // namespace certgate::supervisor
