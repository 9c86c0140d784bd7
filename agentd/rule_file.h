// What a [[rule]] says without sets and tools: its verbs and its terms.
#pragma once

#include "agentd/toml_reader.h"
#include "kernel/policy.h"

namespace certgate::agentd {

// 'allow', 'ask' or 'forbid': the effect, and the verbs in their order.
void read_verbs(TomlFile& file, TableReader& reader, kernel::Rule& rule);
// 'ttl', 'deadline', 'budget' and 'durability'.
void read_terms(TomlFile& file, TableReader& reader, kernel::Rule& rule);

}  // namespace certgate::agentd
