// Layers: the policy that is asked for, the machine's above all agents, and the project's own.
//
//   CG_TRY(CompiledPolicy policy, load_layers({"policies/default.toml", std::nullopt}, context));
//   for (const std::string& note : layer_notes(policy.policy)) print(note);
//
//   vendor    --policy FILE|NAME
//   admin     /etc/certgate/policy.toml; where there is none, --admin-policy FILE
//   project   .certgate.toml in the workspace
// A call must be allowed by every layer that is there, each decided as a policy of its own (kernel/
// policy.h). A lower one that has no allow rule for a verb leaves that verb to the others; so it
// can forbid, name fewer things, accept fewer origins, set budgets and times, and never grant. Its
// rules are recorded as "admin:id" and "project:id"; of [limits] the smallest value counts.
//
// Whoever writes in the workspace writes the project's file: it is read without following links, it
// can only narrow, and no agent may write it, also while there is none. A file that does not
// compile refuses the run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agentd/policy_bundle.h"
#include "agentd/policy_file.h"

namespace certgate::agentd {

inline constexpr const char* kAdminPolicy = "/etc/certgate/policy.toml";
inline constexpr const char* kProjectPolicy = ".certgate.toml";

struct LayerChoice {
  std::string vendor;                  // a file, or a name of the catalogue
  std::optional<std::string> admin;    // only where the machine has none of its own
  std::string machine = kAdminPolicy;  // tests put another one here
  PolicyTrust trust = {};              // of the first layer; the others can only narrow
};

Result<CompiledPolicy> load_layers(const LayerChoice& choice, const PolicyContext& context);
// The lower layers, onto a policy that is compiled already.
Status add_layers(CompiledPolicy& to, const LayerChoice& choice, const PolicyContext& context);

// What a lower layer allows beyond the ones above: it grants nothing, and its author may not know.
std::vector<std::string> layer_notes(const kernel::Policy& policy);

}  // namespace certgate::agentd
