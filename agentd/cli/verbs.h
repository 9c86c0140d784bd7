// The verbs of the command line, one file each. Every verb takes its own arguments (without the
// verb) and returns the exit status of the process.
#pragma once

#include <string>
#include <vector>

#include "supervisor/report.h"

namespace certgate::agentd::cli {

using Args = std::vector<std::string>;

int approvals_main(const Args& args);  // certgate approvals …
int approve_main(const Args& args);    // certgate approve ID …
int deny_main(const Args& args);       // certgate deny ID …
int request_main(const Args& args);  // certgate request …
int run_main(const Args& args);          // certgate run …
int audit_main(const Args& args);        // certgate audit list|why|verify …
int audit_prune_main(const Args& args);  // … each its own arguments, without the verb
int audit_witness_main(const Args& args);
int audit_erase_main(const Args& args);
int policy_main(const Args& args);       // certgate policy check …
int token_main(const Args& args);        // certgate token key|new|narrow|show|revoke|rotate …
int doctor_main(const Args& args);       // certgate doctor …

using supervisor::escape;  // one form for everything an operator sees

// State directory: --state, else $XDG_STATE_HOME/certgate, else ~/.local/state/certgate
// (root: /var/lib/certgate).
std::string default_state_dir();

}  // namespace certgate::agentd::cli
