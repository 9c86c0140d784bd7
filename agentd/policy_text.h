// Effective policy: a compiled policy as one TOML file, everything it extends taken in, sets and
// directories written out, each rule under the place it came from.
//
//   std::fputs(effective_text(compiled, digest).c_str(), stdout);
//
// Law: what it writes compiles to the same canonical form, so to the same digest, anywhere.
#pragma once

#include <string>

#include "agentd/policy_file.h"

namespace certgate::agentd {

std::string effective_text(const CompiledPolicy& compiled);
std::string rule_text(const kernel::Rule& rule);  // one [[rule]], under its place

}  // namespace certgate::agentd
