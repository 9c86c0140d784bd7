#include "agentd/policy_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "agentd/tool_file.h"
#include "kernel/risk.h"

namespace certgate::agentd {
namespace {

constexpr std::string_view kHomeFiles = "home-files";  // zones that [sandbox] brings itself

std::string quoted(std::string_view text) { return toml_text(text); }

std::string list(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) (out += out.empty() ? "" : ", ") += quoted(text);
  return "[" + out + "]";
}

// The largest unit that leaves a whole number: what people wrote.
struct UnitName {
  uint64_t size;
  const char* name;
};
constexpr UnitName kTimes[] = {{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}};
constexpr UnitName kSizes[] = {
    {1ull << 40, "T"}, {1ull << 30, "G"}, {1ull << 20, "M"}, {1ull << 10, "K"}};

template <size_t N>
std::string in_units(uint64_t value, const UnitName (&units)[N]) {
  for (const UnitName& unit : units) {
    if (value % unit.size == 0) return quoted(std::to_string(value / unit.size) + unit.name);
  }
  return quoted(std::to_string(value));
}

void put(std::string& out, const char* key, const std::string& value) {
  out += fmt::format("{} = {}\n", key, value);
}

void put_rule(std::string& out, const kernel::Rule& rule, const std::vector<kernel::Tool>& tools) {
  out += fmt::format("\n# {}\n[[rule]]\n", rule.source);
  put(out, "id", quoted(rule.id));
  put(out, "why", quoted(rule.why));
  std::vector<std::string> texts;
  for (const kernel::Verb verb : rule.verbs) texts.emplace_back(kernel::verb_text(verb));
  const char* const effect = rule.effect == kernel::Effect::kAsk ? "ask" : "allow";
  put(out, rule.grants() ? effect : "forbid", list(texts));
  texts.clear();
  for (const kernel::PathPattern& p : rule.paths) texts.push_back(p.text());
  if (!texts.empty()) put(out, "paths", list(texts));
  texts.clear();
  for (const auto& argv : rule.argvs) texts.push_back(list(argv));
  if (!texts.empty()) put(out, "argv", fmt::format("[{}]", fmt::join(texts, ", ")));
  texts.clear();
  for (const uint32_t tool : rule.tools) texts.push_back(tools[tool].name);
  if (!texts.empty()) put(out, "tools", list(texts));
  texts.clear();
  for (const kernel::EndpointPattern& e : rule.endpoints) texts.push_back(e.text());
  if (!texts.empty()) put(out, "to", list(texts));
  if (!rule.endpoints.empty() && rule.endpoints[0].via)
    put(out, "via", quoted(*rule.endpoints[0].via));
  if (rule.origin) put(out, "origin", quoted(rule.origin->text()));
  if (rule.grants()) put(out, "accept", list(rule.accept.texts()));
  if (const auto tags = rule.clearance.texts(); !tags.empty()) put(out, "clearance", list(tags));
  if (rule.deadline_ns) put(out, "deadline", in_units(*rule.deadline_ns / 1'000'000'000, kTimes));
  if (rule.ttl_ns) put(out, "ttl", in_units(*rule.ttl_ns / 1'000'000'000, kTimes));
  if (rule.budget) put(out, "budget", std::to_string(*rule.budget));
  if (rule.durability == kernel::Durability::kStrict) put(out, "durability", quoted("strict"));
}

void put_sandbox(std::string& out, const CompiledPolicy& compiled) {
  out += "\n[sandbox]\n";
  if (!compiled.read_only.empty()) put(out, "read_only", list(compiled.read_only));
  if (!compiled.env_pass.empty()) put(out, "env", list(compiled.env_pass));
  put(out, "home", quoted(compiled.home == HomePolicy::kKept ? "kept" : "fresh"));
  std::string table;
  for (const PolicyHomeFile& file : compiled.home_files)
    (table += table.empty() ? "" : ", ") += quoted(file.source) + " = " + quoted(file.asked);
  if (!table.empty()) put(out, "home_files", "{ " + table + " }");
  table.clear();
  for (auto it = compiled.env_set.begin(); it != compiled.env_set.end(); ++it) {
    // Of several files that set a variable the last one counts.
    const auto same = [&](const auto& later) { return later.first == it->first; };
    if (std::any_of(it + 1, compiled.env_set.end(), same)) continue;
    (table += table.empty() ? "" : ", ") += quoted(it->first) + " = " + quoted(it->second);
  }
  if (!table.empty()) put(out, "set_env", "{ " + table + " }");
}

void put_redaction(std::string& out, const supervisor::Redaction& redact) {
  if (redact.patterns.empty() && redact.env.empty()) return;
  out += "\n[redact]\n";
  if (!redact.patterns.empty()) put(out, "patterns", list(redact.patterns));
  if (!redact.env.empty()) put(out, "env", list(redact.env));
}

void put_limits(std::string& out, const Limits& limits) {
  out += "\n[limits]\n";
  if (limits.memory) put(out, "memory", in_units(*limits.memory, kSizes));
  if (limits.processes) put(out, "processes", std::to_string(*limits.processes));
  if (limits.cpu_milli)
    put(out, "cpu", fmt::format("{}.{:03}", *limits.cpu_milli / 1000, *limits.cpu_milli % 1000));
  if (limits.tmp) put(out, "tmp", in_units(*limits.tmp, kSizes));
  if (limits.file_size) put(out, "file_size", in_units(*limits.file_size, kSizes));
  if (limits.open_files) put(out, "open_files", std::to_string(*limits.open_files));
  if (limits.records_per_second)
    put(out, "records_per_second", std::to_string(*limits.records_per_second));
}

void put_risk(std::string& out, const kernel::Policy& policy) {
  constexpr const char* kWords[] = {"forbid", "allow", "ask"};  // by kernel::Effect
  out += "\n[risk]\n";
  for (size_t i = policy.risk.size(); i-- > 0;)
    put(out, kernel::risk_text(static_cast<kernel::Risk>(i)),
        quoted(kWords[static_cast<size_t>(policy.risk[i])]));
}

}  // namespace

std::string rule_text(const kernel::Rule& rule) {
  std::string out;
  put_rule(out, rule, {});
  return out;
}
std::string toml_list(const std::vector<std::string>& texts) { return list(texts); }
std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string effective_text(const CompiledPolicy& compiled) {
  std::string out;
  put(out, "name", quoted(compiled.policy.name));
  for (const kernel::Zone& zone : compiled.policy.zones) {
    if (zone.name == kHomeFiles) continue;
    out += fmt::format("\n# {}\n[[zone]]\n", zone.source);
    put(out, "name", quoted(zone.name));
    put(out, "paths", list({zone.pattern.text()}));
    if (zone.origin) put(out, "origin", quoted(zone.origin->text()));
    std::vector<std::string> tags;
    for (const kernel::Origin& tag : zone.secrecy.origins()) tags.push_back(tag.detail);
    if (!tags.empty()) put(out, "secrecy", list(tags));
  }
  for (const kernel::Tool& tool : compiled.policy.tools)
    out += fmt::format("\n# {}\n[[tool]]\n{}", tool.source, tool_text(tool));
  for (const kernel::Rule& rule : compiled.policy.rules) {
    if (rule.layer == 0) put_rule(out, rule, compiled.policy.tools);
  }
  put_sandbox(out, compiled);
  put_limits(out, compiled.limits);
  put_risk(out, compiled.policy);
  put_redaction(out, compiled.redact);
  return out;
}

std::string layers_text(const CompiledPolicy& compiled) {
  std::string text;
  for (size_t layer = 1; layer < compiled.layer_files.size(); ++layer) {
    if (compiled.layer_files[layer].empty()) continue;
    text += fmt::format("\nlayer {}, which only narrows: {}\n", kernel::layer_text(layer),
                        compiled.layer_files[layer]);
    for (const kernel::Rule& rule : compiled.policy.rules) {
      if (rule.layer == layer) put_rule(text, rule, compiled.policy.tools);
    }
  }
  text += "\nlimits of all layers\n";
  put_limits(text, compiled.limits);
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    out += "# " + text.substr(at, end - at) + "\n";
    at = end + 1;
  }
  return out;
}

}  // namespace certgate::agentd
