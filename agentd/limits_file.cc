#include "agentd/limits_file.h"

#include <cmath>
#include <optional>

namespace certgate::agentd {
namespace {

enum class Unit : uint8_t { kBytes, kNumber, kCores };

// Below the least value nothing could start; the greatest are what the kernel's files take.
struct Row {
  const char* key;
  Unit unit;
  uint64_t least, most;
  std::optional<uint64_t> Limits::*field;
  const char* form;
};
constexpr uint64_t kMiB = 1ull << 20;
constexpr Row kRows[] = {
    {"memory", Unit::kBytes, 16 * kMiB, 1ull << 50, &Limits::memory,
     "a size from \"16M\" on, like \"512M\" or \"2G\""},
    {"processes", Unit::kNumber, 8, kMaxProcesses, &Limits::processes,
     "a whole number from 8 to 4194304 (threads count too)"},
    {"cpu", Unit::kCores, 10, 1024000, &Limits::cpu_milli,
     "a number of processors from 0.01 to 1024, like 1.5"},
    {"tmp", Unit::kBytes, kMiB, 1ull << 50, &Limits::tmp,
     "a size from \"1M\" on, like \"512M\" or \"2G\""},
    {"file_size", Unit::kBytes, 64 * 1024, 1ull << 50, &Limits::file_size,
     "a size from \"64K\" on, like \"16M\""},
    {"open_files", Unit::kNumber, 16, 1048576, &Limits::open_files,
     "a whole number from 16 to 1048576"},
    {"records_per_second", Unit::kNumber, 10, 1000000, &Limits::records_per_second,
     "a whole number from 10 to 1000000"},
};

std::optional<uint64_t> value_of(const toml::node& node, Unit unit) {
  if (unit == Unit::kBytes) {
    const auto text = node.value_exact<std::string>();
    return text ? parse_size(*text) : std::nullopt;
  }
  const auto whole = node.value_exact<int64_t>();
  if (unit == Unit::kNumber)
    return whole && *whole > 0 ? std::optional(static_cast<uint64_t>(*whole)) : std::nullopt;
  const auto fraction = node.value_exact<double>();
  const double cores = whole ? static_cast<double>(*whole) : fraction.value_or(0);
  if (!(cores > 0) || cores > 1e6) return std::nullopt;
  return static_cast<uint64_t>(std::llround(cores * 1000));
}

}  // namespace

void read_limits(TomlFile& file, const toml::node* node, Limits& limits) {
  if (node == nullptr) return;
  const toml::table* table = node->as_table();
  if (table == nullptr) return file.complain(node->source(), "'limits' must be a table: [limits]");
  TableReader reader(file, *table, "[limits]");
  Limits found;
  for (const Row& row : kRows) {
    const toml::node* value = reader.take(row.key, Need::kOptional);
    if (value == nullptr) continue;
    found.*row.field = value_of(*value, row.unit);
    if (!(found.*row.field) || *(found.*row.field) < row.least || *(found.*row.field) > row.most)
      return file.complain(value->source(), std::string("'") + row.key + "' must be " + row.form);
  }
  reader.done();
  limits.narrow(found);
}

}  // namespace certgate::agentd
