// Rule proposal: the narrowest rule that would have allowed one approved action without asking.
//
//   CG_TRY(const std::string toml, proposed_rule(request, "k3u7x2qa-17"));
//
// Exactly this program with exactly these arguments, this path, this endpoint; the origins of the
// label that it was asked under, and no others. What a pattern cannot say exactly is an error.
#pragma once

#include <string>

#include "kernel/result.h"
#include "supervisor/operator_line.h"

namespace certgate::agentd {

Result<std::string> proposed_rule(const supervisor::ApprovalRequest& request,
                                  const std::string& id);

}  // namespace certgate::agentd
