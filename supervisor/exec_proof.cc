#include "supervisor/exec_proof.h"

#include <elf.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>

#include "sandbox/remote.h"
#include "sandbox/trace.h"
#include "supervisor/path_walk.h"

namespace certgate::supervisor {
namespace {

constexpr size_t kMaxStackBytes = 16u << 20;
constexpr size_t kStackChunk = 8192;
constexpr size_t kMaxMapsBytes = 4u << 20;

// The new stack as execve left it (System V ABI, x86-64, §3.4.1): argc, argv[], 0, envp[], 0,
// auxv[], then the strings. What is read here is what the program will be given, byte for byte.
class NewStack {
 public:
  NewStack(pid_t pid, uint64_t sp) : pid_(pid), sp_(sp) {}

  Result<uint64_t> word(size_t index) {
    uint64_t value = 0;
    CG_CHECK(need((index + 1) * sizeof value));
    std::memcpy(&value, bytes_.data() + index * sizeof value, sizeof value);
    return value;
  }
  Result<std::string> text(uint64_t address) {
    if (address < sp_ || address - sp_ > kMaxStackBytes)
      return fail("a string outside the new stack", EFAULT);
    const size_t at = address - sp_;
    for (size_t want = at + 1;; want = bytes_.size() + 1) {
      CG_CHECK(need(want));
      const void* nul = std::memchr(bytes_.data() + at, 0, bytes_.size() - at);
      if (nul != nullptr) return std::string(bytes_.data() + at);
    }
  }

 private:
  // Reads on until `size` bytes are here; the stack ends where memory does.
  Status need(size_t size) {
    while (bytes_.size() < size) {
      if (bytes_.size() >= kMaxStackBytes) return fail("a new stack larger than 16 MiB", EFBIG);
      char chunk[kStackChunk];
      iovec local{chunk, sizeof chunk};
      iovec remote{reinterpret_cast<void*>(sp_ + bytes_.size()),
                   sizeof chunk};  // NOLINT: another process
      const ssize_t n = ::process_vm_readv(pid_, &local, 1, &remote, 1, 0);
      if (n <= 0) return fail("the new stack ends too early", EFAULT);
      bytes_.insert(bytes_.end(), chunk, chunk + n);
    }
    return ok();
  }

  const pid_t pid_;
  const uint64_t sp_;
  std::vector<char> bytes_;
};

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
  ExecProof out;
  CG_TRY(out.exe, sandbox::open_task_link(pid, "exe"));
  CG_TRY(const uint64_t sp, sandbox::stack_pointer(pid));
  NewStack stack(pid, sp);
  CG_TRY(const uint64_t argc, stack.word(0));
  size_t at = 1;
  for (std::vector<std::string>* list : {&out.argv, &out.env}) {
    for (;; ++at) {
      CG_TRY(const uint64_t pointer, stack.word(at));
      if (pointer == 0) break;
      CG_TRY(std::string text, stack.text(pointer));
      list->push_back(std::move(text));
    }
    ++at;
  }
  if (argc != out.argv.size()) return fail("argc and argv differ", EFAULT);
  uint64_t execfn = 0;
  for (;; at += 2) {
    CG_TRY(const uint64_t type, stack.word(at));
    CG_TRY(const uint64_t value, stack.word(at + 1));
    if (type == AT_NULL) break;
    if (type == AT_EXECFN) execfn = value;
    if (type == AT_BASE) out.loader_base = value;
    if (type == AT_UID || type == AT_EUID) out.uids.push_back(static_cast<uint32_t>(value));
    if (type == AT_GID || type == AT_EGID) out.gids.push_back(static_cast<uint32_t>(value));
    if (type == AT_SECURE) out.privileged = value != 0;
  }
  CG_TRY(out.execfn, stack.text(execfn));
  return out;
}

}  // namespace certgate::supervisor
