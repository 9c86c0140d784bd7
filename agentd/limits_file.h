// The [limits] table of a policy file.
//
//   read_limits(file, table.get("limits"), limits);   // narrows; errors go to the file
#pragma once

#include "agentd/limits.h"
#include "agentd/toml_reader.h"

namespace certgate::agentd {

void read_limits(TomlFile& file, const toml::node* node, Limits& limits);

}  // namespace certgate::agentd
