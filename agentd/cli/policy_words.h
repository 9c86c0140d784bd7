// What the verbs of `certgate policy` have in common: words and options, usage, errors, layers.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "agentd/cli/verbs.h"
#include "agentd/policy_layers.h"
#include "kernel/result.h"

namespace certgate::agentd::cli {

inline constexpr int kNo = 1, kUsageError = 2;
extern const char* const kPolicyUsage;

// Words and options of one verb: every option has a value but the flags.
struct Words {
  std::vector<std::string> plain, command;
  std::vector<std::pair<std::string, std::string>> options;
  std::vector<std::string> flags;

  bool flag(const std::string& name) const;
  bool has(const std::string& name) const;
  std::string option(const std::string& name, const std::string& otherwise = "") const;
};

Result<Words> parse_words(const Args& args, const std::vector<std::string>& known);
int usage_error(const std::string& what);
int policy_trouble(const Error& error);

// `--admin-policy`, below a policy.
LayerChoice layers(const Words& words, const std::string& vendor);
// `-o FILE`, or stdout. 0, or the exit status after the error was said.
int write_out(const Words& words, const std::string& text);

// policy_tools.cc
int learn(const Args& args);
int import_settings(const Args& args);
int pack(const Args& args);  // policy_signing.cc
int verify_bundle(const Args& args);
int explain_record(const Words& words);
int reload(const Args& args);  // policy_reload.cc

}  // namespace certgate::agentd::cli
