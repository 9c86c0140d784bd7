// Path cover: whether one pattern lies within others, decided, with a path to show where it does
// not. What narrows (delegation, layers) and what may be said of a policy (unreachable, shadowed,
// wider than before) rest on it.
//
//   path_outside("/usr/**", {"/usr/bin/**", "/usr/lib/**"})   -> "/usr", inside = false
//   path_outside("/usr/bin/*", {"/usr/**"})                   -> nothing: it lies within
//
// Patterns are read as automata over bytes; the search goes through pairs of sets of their states,
// shortest path first. It is exact. Where it would take more than kMaxCoverSteps steps it is given
// up with an error, and whoever asks must assume the worse answer.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernel/policy.h"
#include "kernel/result.h"

namespace certgate::kernel {

inline constexpr size_t kMaxCoverSteps = 200'000;

// An object that path patterns speak of: an absolute path without empty components, and whether it
// lies on a file system of the sandbox's own.
struct PlacedPath {
  std::string path;
  bool inside = false;
};

// A shortest one that `narrow` matches and none of `wide` does; nothing when there is none.
Result<std::optional<PlacedPath>> path_outside(const PathPattern& narrow,
                                               const std::vector<PathPattern>& wide);

// A shortest one that both match.
Result<std::optional<PlacedPath>> path_in_both(const PathPattern& a, const PathPattern& b);

}  // namespace certgate::kernel
