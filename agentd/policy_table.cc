#include "agentd/policy_table.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "agentd/policy_call.h"
#include "agentd/toml_reader.h"
#include "supervisor/tool_sources.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Verb;

constexpr size_t kMaxTableBytes = 1 << 20;
constexpr const char* kDefaultLabel = "operator,user";

struct Case {
  AskedCall call;
  std::string why, expect, rule;
  std::optional<kernel::Label> raises_to;
  std::string place;
};

class TableFile {
 public:
  TableFile(TomlFile& file, const PolicyContext& context) : file_(file), context_(context) {}

  Case read(const toml::table& table) {
    TableReader reader(file_, table, "a [[case]]");
    Case out;
    out.place = file_.line(table.source());
    reader.text("why", out.why, Need::kRequired);
    reader.text("expect", out.expect, Need::kRequired);
    reader.text("rule", out.rule, Need::kOptional);
    read_call(reader, table, out.call);
    out.call.agent = label(reader, "label").value_or(*kernel::Label::parse(kDefaultLabel));
    out.call.file = label(reader, "file");
    out.raises_to = label(reader, "raises_to");
    (void)reader.number("used", out.call.used);
    reader.done();
    if (out.expect != "allow" && !kernel::parse_reason(out.expect)) {
      file_.complain(reader.source("expect"),
                     "'expect' is \"allow\" or a reason code like \"UNTRUSTED_ORIGIN\"");
    }
    return out;
  }

 private:
  void read_call(TableReader& reader, const toml::table& table, AskedCall& out) {
    size_t named = 0;
    if (reader.texts("exec", out.argv, Need::kOptional)) {
      ++named;
      out.verb = Verb::kExec;
      if (reader.text("program", out.object, Need::kOptional)) {
        out.object = place_of(out.object);
      } else {
        out.object = place_of(out.argv[0]);
        out.argv[0] = out.object.substr(out.object.rfind('/') + 1);
      }
      std::vector<std::string> chain;
      (void)reader.texts("run_by", chain, Need::kOptional);
      for (const std::string& path : chain) out.interpreters.push_back(place_of(path));
      read_tool_facts(reader, out);
    }
    for (const Verb verb : {Verb::kRead, Verb::kWrite, Verb::kConnect}) {
      std::string text;
      if (!reader.text(kernel::verb_text(verb), text, Need::kOptional)) continue;
      ++named;
      out.verb = verb;
      out.object = place_of(text);
    }
    if (named != 1)
      file_.complain(table.source(), "a case has one of 'exec', 'read', 'write' and 'connect'");
  }

  // What only tools ask about.
  void read_tool_facts(TableReader& reader, AskedCall& out) {
    std::string content;
    std::vector<std::string> sources;
    if (reader.text("cwd", out.cwd, Need::kOptional)) out.cwd = place_of(out.cwd);
    (void)reader.texts("env", out.env, Need::kOptional);
    (void)reader.texts("messages", out.messages, Need::kOptional);
    (void)reader.texts("sources", sources, Need::kOptional);
    if (reader.text("content", content, Need::kOptional)) {
      if (content != "other") file_.complain(reader.source("content"), "'content' is \"other\"");
      out.content.emplace().fill(0xff);
    }
    for (const std::string& text : sources) {
      auto source = supervisor::parse_source(text);
      if (!source) return file_.complain(reader.source("sources"), source.error().what);
      out.sources.push_back(*source);
    }
  }

  std::string place_of(const std::string& text) const {
    if (text == "@workspace" || text.starts_with("@workspace/"))
      return context_.workspace + text.substr(10);
    if (text == "~" || text.starts_with("~/")) return context_.home + text.substr(1);
    return text;
  }

  std::optional<kernel::Label> label(TableReader& reader, const char* key) {
    std::string text;
    if (!reader.text(key, text, Need::kOptional)) return std::nullopt;
    auto parsed = kernel::Label::parse(text);
    if (!parsed) {
      file_.complain(reader.source(key), parsed.error().what);
      return std::nullopt;
    }
    return *std::move(parsed);
  }

  TomlFile& file_;
  const PolicyContext& context_;
};

bool decided_by(const kernel::Policy& policy, const Answer& answer, const std::string& rule) {
  if (const auto* refusal = std::get_if<kernel::Refusal>(&answer.verdict))
    return refusal->rule == rule;
  for (const kernel::RuleUse& use : std::get<kernel::Certificate>(answer.verdict).rules()) {
    if (policy.rules[use.rule].id == rule) return true;
  }
  return false;
}

CaseResult judge(const kernel::Policy& policy, const Case& one, const Answer& answer) {
  CaseResult out{
      one.place, one.why, one.expect, verdict_line(policy, answer), explanation(policy, answer),
      false};
  if (!one.rule.empty()) out.wanted += " by rule " + one.rule;
  if (one.raises_to) out.wanted += ", the label then " + one.raises_to->text();
  const auto* refusal = std::get_if<kernel::Refusal>(&answer.verdict);
  const std::string is = refusal != nullptr ? kernel::reason_text(refusal->reason) : "allow";
  const auto* certificate = std::get_if<kernel::Certificate>(&answer.verdict);
  out.passed =
      is == one.expect && (one.rule.empty() || decided_by(policy, answer, one.rule)) &&
      (!one.raises_to || (certificate != nullptr && certificate->raised_to() == *one.raises_to));
  return out;
}

Result<std::string> policy_of(TomlFile& file, const toml::table& table) {
  const toml::node* node = table.get("policy");
  const auto name = node != nullptr ? node->value_exact<std::string>() : std::nullopt;
  if (!name)
    return fail(file.place(table.source()) +
                ": a table needs policy = \"FILE or name\" at its top");
  const fs::path beside = fs::path(file.path).parent_path() / *name;
  std::error_code error;
  if (fs::is_regular_file(beside, error)) return beside.string();
  return find_policy(*name);
}

}  // namespace

Result<std::vector<CaseResult>> run_policy_table(const std::string& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return fail(path + ": " + error.message() + "; name a readable table");
  if (size > kMaxTableBytes) return fail(path + ": larger than 1 MiB");
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  TomlFile file{path, std::nullopt};
  TomlFault fault;
  const auto parsed = parse_toml(text, fault);
  if (!parsed) return fail(file.place(fault) + ": " + fault.what);
  const toml::table& table = *parsed;
  for (const auto& [key, node] : table) {
    if (key.str() != "policy" && key.str() != "case")
      return fail(file.place(key.source()) + ": unknown key '" + std::string(key.str()) +
                  "'; known are: policy, case");
  }
  CG_TRY(const std::string policy_path, policy_of(file, table));
  const PolicyContext context{"/workspace", "/home/agent"};
  CG_TRY(const CompiledPolicy compiled, load_policy(policy_path, context));
  const toml::node* cases = table.get("case");
  const toml::array* all = cases != nullptr ? cases->as_array() : nullptr;
  if (all == nullptr || !all->is_array_of_tables() || all->empty())
    return fail(path + ": no [[case]]: nothing would be tested");
  TableFile reader(file, context);
  std::vector<CaseResult> out;
  for (const toml::node& node : *all) {
    const Case one = reader.read(*node.as_table());
    if (file.error) return *file.error;
    const auto answer = ask(compiled, context, one.call);
    if (!answer) return fail(one.place + ": " + answer.error().what);
    out.push_back(judge(compiled.policy, one, *answer));
  }
  return out;
}

}  // namespace certgate::agentd
