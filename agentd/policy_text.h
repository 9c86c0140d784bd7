// Effective policy: a compiled policy as one TOML file, everything it extends taken in, sets and
// directories written out, each rule under the place it came from.
//
//   std::fputs(effective_text(compiled, digest).c_str(), stdout);
//
// Law: what it writes compiles to the same canonical form, so to the same digest, anywhere.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agentd/policy_file.h"

namespace certgate::agentd {

std::string effective_text(const CompiledPolicy& compiled);
std::string rule_text(const kernel::Rule& rule);  // one [[rule]], under its place

// As TOML writes them.
std::string toml_text(std::string_view text);
std::string toml_list(const std::vector<std::string>& texts);
// The lower layers' rules as comments, each layer under its file: what they narrow is above.
std::string layers_text(const CompiledPolicy& compiled);

}  // namespace certgate::agentd
