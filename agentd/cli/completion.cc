// certgate completion: what a shell offers next, from the tables that the commands themselves use.
#include "agentd/cli/completion.h"

#include <cstdio>
#include <iostream>

#include "agentd/cli/audit_verbs.h"
#include "agentd/export/exporter.h"

namespace certgate::agentd::cli {
namespace {

constexpr char kUsage[] =
    "usage: certgate completion bash           the completion function for bash:\n"
    "                                          . <(certgate completion bash)\n"
    "       certgate completion words -- WORD…  what the last WORD of a command line could become, "
    "one\n"
    "                                          a line; of --where the whole expression so far\n";

// share/completions/certgate.bash
constexpr char kBash[] =
#include "completion_bash.inc"
    ;

std::vector<std::string> values_of(const std::string& option) {
  std::vector<std::string> names = where_values(option);
  if (option == "format") {
    std::istringstream formats(export_formats());
    for (std::string one; std::getline(formats >> std::ws, one, ',');) names.push_back(one);
  }
  return names;
}

std::vector<std::string> candidates(const Args& words, const std::vector<std::string>& commands) {
  const std::string& last = words.back();
  if (words.size() == 1) return commands;
  if (words[0] != "audit") return {};
  if (words.size() == 2) return audit_names();
  const std::string& before = words[words.size() - 2];
  if (before == "--where") return complete_where(last);
  if (before.starts_with("--")) {
    if (std::vector<std::string> values = values_of(before.substr(2)); !values.empty())
      return values;
  }
  return last.starts_with('-') ? audit_options(words[1]) : std::vector<std::string>();
}

}  // namespace

int completion_main(const Args& args, const std::vector<std::string>& commands) {
  if (args.size() == 1 && args[0] == "bash") {
    std::cout << kBash;
  } else if (args.size() >= 3 && args[0] == "words" && args[1] == "--") {
    const Args words(args.begin() + 2, args.end());
    for (const std::string& one : candidates(words, commands)) {
      if (one.starts_with(words.back())) std::cout << one << '\n';
    }
  } else {
    const bool asked = args.size() == 1 && (args[0] == "--help" || args[0] == "-h");
    (asked ? std::cout : std::cerr) << kUsage;
    if (!asked) return kExitTrouble;
  }
  return std::cout.flush() ? 0 : kExitTrouble;
}

}  // namespace certgate::agentd::cli
