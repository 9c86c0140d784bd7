// Process stat: /proc/<pid>/stat as numbers.
//
//   if (const auto stat = process_stat(pid)) use(stat->field[kStatStarted]);
//
// The process may be gone, and its pid another's: compare kStatStarted.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

namespace certgate::supervisor {

// Fields as proc(5) counts them, from 1.
enum StatField : int {
  kStatParent = 4,
  kStatStarted = 22,
  kStatStack = 28,
  kStatArguments = 48,
  kStatExit = 52,  // the wait status; 0 while it lives
  kStatFields = 53
};

struct ProcessStat {
  char state = 0;  // 'Z': it has ended and nobody has waited for it yet
  std::array<uint64_t, kStatFields> field{};
};

// None when it cannot be read, or not up to kStatArguments.
std::optional<ProcessStat> process_stat(int pid);

}  // namespace certgate::supervisor
