// What shells ask for completion: certgate completion bash|words.
#pragma once

#include <string>
#include <vector>

namespace certgate::agentd::cli {

// `commands`: the verbs of the command line.
int completion_main(const std::vector<std::string>& args, const std::vector<std::string>& commands);

// audit.cc: the verbs of `certgate audit`, and the options that one of them takes.
std::vector<std::string> audit_names();
std::vector<std::string> audit_options(const std::string& verb);
// audit_io.cc: "--json", "--state", … of a list as in AuditVerb::options, with those that all take.
std::vector<std::string> option_names(const char* list);

}  // namespace certgate::agentd::cli
