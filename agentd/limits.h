// Limits: what an agent may use, as policies ask for it, and how this host can hold it.
//
//   limits.narrow(other);                            // of two policies the smaller value counts
//   CG_TRY(Imposed held, impose(limits, spec));      // fails when one that was asked for cannot be
//   for (const std::string& line : held.weaker) print_line(line);
//   ... run; then held.cgroup.remove();
//
// Memory, processes and cpu are held by a cgroup where one can be had (sandbox/cgroup.h); else
// processes by RLIMIT_NPROC, which in the sandbox's own user namespace counts all of the agent too,
// memory by RLIMIT_DATA for each process alone, which is said, and cpu by nothing, which is an
// error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/result.h"
#include "sandbox/cgroup.h"
#include "sandbox/launch.h"

namespace certgate::agentd {

// Where nobody asks: memory is three quarters of the host's where a cgroup can hold it, cpu is
// free.
inline constexpr uint64_t kDefaultProcesses = 8192;
inline constexpr uint64_t kMaxProcesses = 4194304;
inline constexpr uint64_t kDefaultOpenFiles = 65536;
inline constexpr uint64_t kDefaultTmp = 1ull << 30;
inline constexpr uint64_t kDefaultRecordsPerSecond = 10000;

struct Limits {
  std::optional<uint64_t> memory;              // bytes
  std::optional<uint64_t> processes;           // threads count too
  std::optional<uint64_t> cpu_milli;           // thousandths of a processor
  std::optional<uint64_t> tmp;                 // bytes of each tmpfs
  std::optional<uint64_t> file_size;           // bytes up to which a file can be written
  std::optional<uint64_t> open_files;          // of each process
  std::optional<uint64_t> records_per_second;  // over ten seconds; then its calls wait

  void narrow(const Limits& other);
};

struct Imposed {
  sandbox::Cgroup cgroup;
  std::vector<std::string> weaker;  // lines for the operator
  std::string json;                 // what holds each, as one object
};

// Before the process becomes another user or starts a thread. Completes the spec.
Result<Imposed> impose(const Limits& limits, sandbox::Spec& spec,
                       const sandbox::CgroupSources& sources = {});

// "64K", "512M", "2G", "1T" (of 1024) as bytes; nothing for anything else.
std::optional<uint64_t> parse_size(const std::string& text);

}  // namespace certgate::agentd
