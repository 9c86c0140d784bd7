// Tools as text: what `policy show --effective` writes, and calls that fit.
#include <fmt/format.h>

#include <algorithm>

#include "agentd/policy_text.h"
#include "agentd/tool_file.h"
#include "kernel/path_cover.h"

namespace certgate::agentd {
namespace {

using kernel::Tool;
using kernel::ToolPart;
using kernel::ToolVariable;
using kernel::ValueSpec;
using kernel::ValueType;

std::string path_list(const std::vector<kernel::PathPattern>& patterns) {
  std::vector<std::string> texts;
  for (const kernel::PathPattern& p : patterns) texts.push_back(p.text());
  return toml_list(texts);
}

std::string value_text(const ValueSpec& value) {
  std::vector<std::string> keys;
  if (!value.one_of.empty()) keys.push_back("one_of = " + toml_list(value.one_of));
  constexpr const char* kTypes[] = {"text", "integer", "path"};
  keys.push_back("type = " + toml_text(kTypes[static_cast<size_t>(value.type)]));
  keys.push_back(fmt::format("min = {}, max = {}", value.min, value.max));
  if (!value.chars.empty()) keys.push_back("chars = " + toml_text(value.chars));
  if (!value.patterns.empty()) keys.push_back("pattern = " + toml_list(value.patterns));
  if (!value.within.empty()) keys.push_back("within = " + path_list(value.within));
  if (value.dash) keys.emplace_back("dash = true");
  if (value.accept) keys.push_back("accept = " + toml_list(value.accept->texts()));
  return fmt::format("{{ {} }}", fmt::join(keys, ", "));
}

std::string part_text(const ToolPart& part) {
  const bool once = !part.optional && !part.repeats;
  if (!part.value && once) return toml_text(part.flag);
  std::vector<std::string> keys;
  if (!part.flag.empty()) keys.push_back("flag = " + toml_text(part.flag));
  if (part.value) keys.push_back("value = " + value_text(*part.value));
  if (part.optional) keys.emplace_back("optional = true");
  if (part.repeats) keys.emplace_back("repeat = true");
  return fmt::format("{{ {} }}", fmt::join(keys, ", "));
}

std::string example(const ValueSpec& value) {
  if (!value.one_of.empty()) return value.one_of[0];
  if (value.type == ValueType::kInteger) return std::to_string(std::max<int64_t>(value.min, 0));
  if (value.type == ValueType::kPath) {
    const auto path = kernel::path_outside(value.within[0], {});
    return path && *path ? (*path)->path : "";
  }
  std::string out = value.patterns.empty() ? "" : value.patterns[0];
  out.erase(std::remove(out.begin(), out.end(), '*'), out.end());
  while (static_cast<int64_t>(out.size()) < value.min)
    out += value.chars.empty() ? 'x' : value.chars[0];
  return out;
}

}  // namespace

std::string tool_text(const Tool& tool) {
  std::string out = fmt::format("name = {}\nwhy = {}\nprogram = {}\n", toml_text(tool.name),
                                toml_text(tool.why), toml_text(tool.program));
  if (tool.pin == Tool::Pin::kAtStart) out += "pin = \"at-start\"\n";
  if (tool.pin == Tool::Pin::kExact) {
    std::string hex;
    for (const uint8_t byte : tool.sha256) hex += fmt::format("{:02x}", byte);
    out += fmt::format("sha256 = {}\n", toml_text(hex));
  }
  if (!tool.run_by.empty()) out += fmt::format("run_by = {}\n", toml_list(tool.run_by));
  out += fmt::format("argv0 = {}\n", toml_list(tool.parts[0].value->one_of));
  std::vector<std::string> parts;
  for (size_t i = 1; i < tool.parts.size();) {
    if (tool.parts[i].group == 0) {
      parts.push_back(part_text(tool.parts[i++]));
      continue;
    }
    std::vector<std::string> members;
    for (const uint32_t group = tool.parts[i].group;
         i < tool.parts.size() && tool.parts[i].group == group; ++i)
      members.push_back(part_text(tool.parts[i]));
    parts.push_back(fmt::format("{{ any_order = [{}] }}", fmt::join(members, ", ")));
  }
  out += fmt::format("args = [{}]\n", fmt::join(parts, ", "));
  std::vector<std::string> variables;
  for (const ToolVariable& v : tool.env)
    variables.push_back(
        fmt::format("{{ name = {}, value = {} }}", toml_text(v.name), value_text(v.value)));
  out += fmt::format("env = [{}]\ncwd = {}\n", fmt::join(variables, ", "), path_list(tool.cwd));
  return out + (tool.descriptors == Tool::Descriptors::kAny ? "fds = \"any\"\n" : "");
}

std::vector<std::string> example_argv(const Tool& tool) {
  std::vector<std::string> out;
  for (const ToolPart& part : tool.parts) {
    if (part.optional) continue;
    const bool joined = part.flag.ends_with('=');
    if (!part.value || (!part.flag.empty() && !joined)) out.push_back(part.flag);
    if (part.value) out.push_back((joined ? part.flag : "") + example(*part.value));
  }
  return out;
}

}  // namespace certgate::agentd
