// [redact] of a policy file: what is kept out of records (supervisor/redaction.h).
#pragma once

#include <cstdint>

#include "agentd/toml_reader.h"
#include "supervisor/redaction.h"

namespace certgate::agentd {

// Adds to `out`: a policy that extends another keeps out what that one does, too.
void read_redaction(TomlFile& file, const toml::node* node, supervisor::Redaction& out);

}  // namespace certgate::agentd
