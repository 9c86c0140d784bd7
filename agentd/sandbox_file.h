// [sandbox] of a policy file: what the agent is shown and given, and its home.
#pragma once

#include <functional>
#include <string>

#include "agentd/policy_file.h"
#include "agentd/toml_reader.h"

namespace certgate::agentd {

// "@workspace/x" and "~/x" as paths inside.
using ExpandDirectory = std::function<std::string(const std::string&)>;

// Adds to `out`: of a policy that extends another both hold, and its own home decides.
void read_sandbox(TomlFile& file, const toml::node* node, const ExpandDirectory& expand,
                  CompiledPolicy& out);

}  // namespace certgate::agentd
