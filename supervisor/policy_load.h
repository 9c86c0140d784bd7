// The loader of the canonical form: what Policy::canonical() wrote, and nothing else, so that no
// unknown key and no second spelling gets in. `Rule::source` stays empty.
//
//   CG_TRY(Policy same, load_canonical(bytes.data(), bytes.size()));   // same.canonical() == bytes
#pragma once

#include "kernel/policy.h"

namespace certgate::supervisor {

Result<kernel::Policy> load_canonical(const uint8_t* data, size_t size);

}  // namespace certgate::supervisor
