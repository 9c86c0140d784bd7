// Tools out of the canonical form of a policy (kernel/policy.cc put_tool()).
#pragma once

#include <vector>

#include "kernel/cbor.h"
#include "kernel/policy.h"

namespace certgate::supervisor {

// `in` stands before the array of tools. Strict: what has another form is an error.
Result<std::vector<kernel::Tool>> read_tools(kernel::CborReader& in);

}  // namespace certgate::supervisor
