// Whose words the arguments of a tool's call are, as text: in records, tables and requests.
//
//   "0-2=policy 3=user@0:4-20"     argv[0] to argv[2] are spelled out by the policy, argv[3] is
//                                  bytes 4 to 20 of the user's message 0; all others are the
//                                  agent's, whose label is the decision's
#pragma once

#include <string>
#include <vector>

#include "kernel/decide.h"

namespace certgate::supervisor {

// Of a call that fits the tool named `tool`; "" when there is none.
std::string sources_text(const kernel::Policy& policy, const std::string& tool,
                         const kernel::Call& call);

// "3=user@0:4-20", as sources_text() writes it.
Result<kernel::ArgumentSource> parse_source(const std::string& text);
std::string source_text(const kernel::ArgumentSource& source);

}  // namespace certgate::supervisor
