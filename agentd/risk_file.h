// The [risk] table of a policy file.
#pragma once

#include <array>
#include <cstdint>

#include "agentd/toml_reader.h"
#include "kernel/policy.h"

namespace certgate::agentd {

// Each level becomes the stricter of what it was and what `node` (may be null) says; a level that
// the table leaves out is treated as the one below it.
void read_risk(TomlFile& file, const toml::node* node,
               std::array<kernel::Effect, kernel::kRisks>& risk);

}  // namespace certgate::agentd
