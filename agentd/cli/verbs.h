// The verbs of the command line, one file each. Every verb takes its own arguments (without the
// verb) and returns the exit status of the process.
#pragma once

#include <string>
#include <vector>

namespace certgate::agentd::cli {

using Args = std::vector<std::string>;

int run_main(const Args& args);     // certgate run …
int audit_main(const Args& args);   // certgate audit list|why|verify …
int policy_main(const Args& args);  // certgate policy check …
int doctor_main(const Args& args);  // certgate doctor …

// Makes untrusted bytes safe for a terminal or a log line: control characters, ESC, DEL, bytes that
// are not UTF-8 and the backslash become \xNN (or \n, \t). Printable UTF-8 passes unchanged.
std::string escape(const std::string& bytes);

// State directory: --state, else $XDG_STATE_HOME/certgate, else ~/.local/state/certgate
// (root: /var/lib/certgate).
std::string default_state_dir();

}  // namespace certgate::agentd::cli
