#include "supervisor/limit_watch.h"

#include <fmt/format.h>

#include "supervisor/report.h"

namespace certgate::supervisor {
namespace {

using sandbox::Resource;

struct Row {
  Resource resource;
  const char* name;
  const char* what;  // has happened
};
constexpr Row kRows[] = {
    {Resource::kMemory, "memory", "the kernel killed a process of it"},
    {Resource::kProcesses, "processes", "it cannot start more"},
};

std::string amount(Resource resource, uint64_t limit) {
  constexpr uint64_t kMiB = 1 << 20, kGiB = 1 << 30;
  if (resource != Resource::kMemory) return std::to_string(limit);
  if (limit % kGiB == 0) return fmt::format("{} GiB", limit / kGiB);
  return fmt::format("{} MiB", limit / kMiB);
}

void say(Report report, const char* name, uint64_t limit, const std::string& line) {
  print_line(report == Report::kJson
                 ? fmt::format(R"({{"kind":"limit","limit":"{}","value":{}}})", name, limit)
                 : line);
}

}  // namespace

void LimitWatch::look() {
  for (const Row& row : kRows) {
    bool& met = met_[static_cast<size_t>(row.resource)];
    if (met || cgroup_.times_met(row.resource) == 0) continue;
    met = true;
    const uint64_t limit = *cgroup_.limits().of(row.resource);
    say(report_, row.name, limit,
        fmt::format("certgate: the agent reached its {} limit ({}): {}", row.name,
                    amount(row.resource, limit), row.what));
  }
}

void say_record_rate(uint64_t per_second, Report report) {
  say(report, "records_per_second", per_second,
      fmt::format("certgate: the agent makes more than {} records a second: its calls are slowed "
                  "down (limits.records_per_second)",
                  per_second));
}

void say_log_room(LogRoom::Change change, Report report) {
  const bool full = change == LogRoom::Change::kFull;
  if (report == Report::kJson)
    return print_line(fmt::format(R"({{"kind":"halt","full":{}}})", full));
  print_line(full ? "certgate: the disk that the log is on is full: the agent waits until there is "
                    "room (free some), or you end it"
                  : "certgate: there is room for the log again: the agent goes on");
}

}  // namespace certgate::supervisor
