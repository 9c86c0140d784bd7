#include "agentd/duration.h"

#include <charconv>
#include <string_view>

namespace certgate::agentd {
namespace {

struct Unit {
  std::string_view name;
  uint64_t seconds;
};
constexpr Unit kUnits[] = {{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
constexpr uint64_t kMaxCount = 36500;

}  // namespace

std::optional<uint64_t> parse_duration(const std::string& text) {
  uint64_t count = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc() || count == 0 || count > kMaxCount) return std::nullopt;
  const std::string_view name(at, static_cast<size_t>(end - at));
  for (const Unit& unit : kUnits) {
    if (unit.name == name) return count * unit.seconds * 1'000'000'000;
  }
  return std::nullopt;
}

}  // namespace certgate::agentd
