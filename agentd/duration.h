// Durations as people write them: "90s", "15m", "2h", "7d".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace certgate::agentd {

// Nanoseconds; nothing for 0, more than 36500 of a unit, or anything else.
std::optional<uint64_t> parse_duration(const std::string& text);

}  // namespace certgate::agentd
