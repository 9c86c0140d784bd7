// The catalogue: where policy files are found by name (find_policy in policy_file.h is the other
// way in).
//
//   find_extended("/etc/mine.toml", "base/system")   // "" when there is none
#pragma once

#include <filesystem>
#include <string>

namespace certgate::agentd {

// "base/system" is looked for beside this file, in the directories above it, then in the catalogue.
std::filesystem::path find_extended(const std::filesystem::path& from, const std::string& name);

}  // namespace certgate::agentd
