#include "agentd/limits.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <charconv>

#include "kernel/mutant.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

using sandbox::Means;
using sandbox::Resource;
using supervisor::escape;

constexpr uint64_t kMaxSizeCount = 1ull << 20;
constexpr const char* kCure =
    "cure: start it in a delegated cgroup (systemd-run --user --scope -p Delegate=yes certgate run "
    "…) or as root";

uint64_t at_most(__rlimit_resource resource, uint64_t wanted) {
  rlimit now{};
  if (::getrlimit(resource, &now) != 0) return wanted;
  return std::min<uint64_t>(now.rlim_max, wanted);
}

std::optional<uint64_t> default_memory() {
  struct sysinfo info {};
  if (::sysinfo(&info) != 0) return std::nullopt;
  return uint64_t{info.totalram} * info.mem_unit / 4 * 3;
}

const char* name_of(Means means) {
  switch (means) {
    case Means::kCgroup2:
      return "cgroup v2";
    case Means::kCgroup1:
      return "cgroup v1";
    case Means::kNone:
      break;
  }
  return "rlimit";
}

std::string json_entry(const char* name, uint64_t limit, const std::string& by) {
  return fmt::format(R"(,"{}":{{"limit":{},"by":"{}"}})", name, limit, by);
}

std::string json_of(const Limits& limits, const sandbox::Cgroup& cgroup,
                    const sandbox::Spec& spec) {
  std::string out = R"({"kind":"limits")";
  const auto memory = limits.memory ? limits.memory : cgroup.limits().memory;
  if (memory && (limits.memory || cgroup.means(Resource::kMemory) != Means::kNone))
    out += json_entry("memory", *memory, name_of(cgroup.means(Resource::kMemory)));
  out += json_entry("processes", *cgroup.limits().processes,
                    name_of(cgroup.means(Resource::kProcesses)));
  if (limits.cpu_milli)
    out += json_entry("cpu_milli", *limits.cpu_milli, name_of(cgroup.means(Resource::kCpu)));
  out += json_entry("tmp", spec.tmp_bytes, "tmpfs");
  if (limits.file_size) out += json_entry("file_size", *limits.file_size, "rlimit");
  out += json_entry("open_files", limits.open_files.value_or(kDefaultOpenFiles), "rlimit");
  out += json_entry("records_per_second",
                    limits.records_per_second.value_or(kDefaultRecordsPerSecond), "supervisor");
  return out + "}";
}

}  // namespace

void Limits::narrow(const Limits& other) {
  for (const auto field : {&Limits::memory, &Limits::processes, &Limits::cpu_milli, &Limits::tmp,
                           &Limits::file_size, &Limits::open_files, &Limits::records_per_second}) {
    if (other.*field && (!(this->*field) || *(other.*field) < *(this->*field)))
      this->*field = other.*field;
  }
}

Result<Imposed> impose(const Limits& limits, sandbox::Spec& spec,
                       const sandbox::CgroupSources& sources) {
  const uint64_t processes = limits.processes.value_or(kDefaultProcesses);
  Imposed out{
      sandbox::Cgroup::make(
          {limits.memory ? limits.memory : default_memory(), processes, limits.cpu_milli}, sources),
      {},
      {}};
  const sandbox::Cgroup& cgroup = out.cgroup;
  if (limits.cpu_milli && cgroup.means(Resource::kCpu) == Means::kNone &&
      !mutant(Mutant::kCgroup)) {
    return fail(fmt::format("limits.cpu cannot be held: {}; {}, or take it out of the policy",
                            escape(cgroup.why(Resource::kCpu)), kCure));
  }
  const uint64_t files = limits.open_files.value_or(kDefaultOpenFiles);
  spec.limits = {{RLIMIT_CORE, 0}, {RLIMIT_NOFILE, at_most(RLIMIT_NOFILE, files)}};
  if (limits.file_size)
    spec.limits.emplace_back(RLIMIT_FSIZE, at_most(RLIMIT_FSIZE, *limits.file_size));
  // Beside a cgroup, which counts how often it is met, only against what would be absurd.
  const bool counted = cgroup.means(Resource::kProcesses) != Means::kNone;
  if (!mutant(Mutant::kCgroup)) {
    spec.limits.emplace_back(RLIMIT_NPROC,
                             at_most(RLIMIT_NPROC, counted ? kMaxProcesses : processes));
  }
  if (limits.memory && cgroup.means(Resource::kMemory) == Means::kNone) {
    if (!mutant(Mutant::kCgroup))
      spec.limits.emplace_back(RLIMIT_DATA, at_most(RLIMIT_DATA, *limits.memory));
    out.weaker.push_back(
        fmt::format("certgate: limits.memory holds for each process, not for all together "
                    "(RLIMIT_DATA): {}; {}",
                    escape(cgroup.why(Resource::kMemory)), kCure));
  }
  if (limits.tmp) spec.tmp_bytes = *limits.tmp;
  spec.entrances = cgroup.entrances();
  out.json = json_of(limits, cgroup, spec);
  return out;
}

std::optional<uint64_t> parse_size(const std::string& text) {
  constexpr std::string_view kUnits = "KMGT";
  uint64_t count = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc() || count == 0 || count > kMaxSizeCount || end - at != 1)
    return std::nullopt;
  const size_t unit = kUnits.find(*at);
  if (unit == std::string_view::npos) return std::nullopt;
  return count << (10 * (unit + 1));
}

}  // namespace certgate::agentd
