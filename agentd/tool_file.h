// Tool files: [[tool]] tables in, kernel tools (kernel/tool.h) out, and back. The grammar is in
// policies/README.md.
//
//   [[tool]]
//   name = "commit"
//   program = "/usr/bin/git"
//   args = ["commit", "-q", { flag = "-m", value = { max = 200, accept = ["policy", "operator", "user"] } }]
//
// A tool says everything: what it does not name cannot be in the call.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agentd/policy_file.h"
#include "agentd/toml_reader.h"
#include "kernel/tool.h"

namespace certgate::agentd {

// What a policy file's sets and directories stand for; complains to the file.
using Expand = std::function<std::vector<std::string>(const toml::source_region& at,
                                                      const std::vector<std::string>& items)>;

// Complains to the file where it cannot be read.
kernel::Tool read_tool(TomlFile& file, const toml::table& table, const Expand& expand);

// The table that read_tool() reads back as the same tool, without its [[tool]] line.
std::string tool_text(const kernel::Tool& tool);

// An argv that fits, the shortest: for a tool that takes paths, in `directory` where that is right.
std::vector<std::string> example_argv(const kernel::Tool& tool);

// Takes the digest of each program that is pinned at the start; it must be a regular file at
// exactly that path, without links.
Status pin_tools(kernel::Policy& policy);
Result<kernel::Digest> program_digest(const std::string& path);

}  // namespace certgate::agentd
