// Grouping of paths for `policy learn` (policy_learn.h says by which rule).
//
//   for (const PathGroup& g : group_paths(paths, went, context, 3)) …
#pragma once

#include <set>
#include <string>
#include <vector>

#include "agentd/policy_file.h"

namespace certgate::agentd {

struct PathGroup {
  std::string name;                   // of the directory
  std::vector<std::string> patterns;  // that cover the members
  std::vector<std::string> members;
};

// A name as a pattern of itself. "*" and "?" cannot be written as themselves, nor can bytes that are
// not UTF-8 stand in a policy: "?" stands for each.
std::string literal(std::string name);

// Each path is a member of one group. `went`: names that were moved or removed.
std::vector<PathGroup> group_paths(const std::vector<std::string>& paths,
                                   const std::set<std::string>& went, const PolicyContext& context,
                                   size_t together);

}  // namespace certgate::agentd
