// Rule order: where the rules of a file stand among those that were read before it, of the files
// that it extends (and of those beside them).
//
//   put_in_order(rules, begin, own);   // own: index of the file's first rule, begin: of its layer
//
// A rule that asks holds against every allow rule of another file, whichever extends which; the
// kernel's order is still "the first that matches and accepts". So of one file these come to the
// front: its ask rules; its allow rules that stand before one of these for the same verb, as they
// say what it does not ask about; and its allow rules for part of what an earlier file asks about
// and nothing else, which is how an approval is made to last. All else keeps its place. So a wide
// allow rule of a file silences a question of its own only, where it stands before it.
#pragma once

#include <cstddef>
#include <vector>

#include "kernel/policy.h"

namespace certgate::agentd {

void put_in_order(std::vector<kernel::Rule>& rules, size_t begin, size_t own);

}  // namespace certgate::agentd
