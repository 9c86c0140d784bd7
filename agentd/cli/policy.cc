// certgate policy check|show|explain|test|analyze|diff … (the rest is in policy_tools.cc)

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "agentd/cli/policy_words.h"
#include "agentd/policy_analysis.h"
#include "agentd/policy_call.h"
#include "agentd/policy_diff.h"
#include "agentd/policy_file.h"
#include "agentd/policy_layers.h"
#include "agentd/policy_table.h"
#include "agentd/policy_text.h"
#include "supervisor/report.h"

namespace certgate::agentd::cli {
namespace {

namespace fs = std::filesystem;

// Patterns need some workspace to stand for @workspace; digests are for this one.
const PolicyContext kSomewhere{"/workspace", "/home/agent"};
std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : escape(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// What `run` would make of a directory: absolute, without symlinks.
Result<std::string> directory(const std::string& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error || !fs::is_directory(real, error))
    return fail("workspace " + path + ": not a directory; name an existing one");
  return real.string();
}

int check(const Args& args) {
  const auto words = parse_words(args, {"--json", "--workspace", "--admin-policy"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1) return usage_error("check takes one policy");
  PolicyContext context = kSomewhere;
  if (const std::string asked = words->option("--workspace"); !asked.empty()) {
    const auto real = directory(asked);
    if (!real) return policy_trouble(real.error());
    context.workspace = *real;
  }
  const bool layered = words->has("--workspace") || words->has("--admin-policy");
  auto file = find_policy(words->plain[0]);
  auto policy = file ? load_policy(*file, context) : Result<CompiledPolicy>(file.error());
  if (policy && layered) {
    if (auto added = add_layers(*policy, layers(*words, *file), context); !added)
      policy = added.error();
  }
  if (!policy && words->flag("--json")) {
    fmt::print("{{\"ok\":false,\"error\":{}}}\n", json_text(policy.error().what));
    return kNo;
  }
  if (!policy) return policy_trouble(policy.error());
  const std::string digest = supervisor::hex(policy->policy.digest());
  if (words->flag("--json")) {
    fmt::print("{{\"ok\":true,\"name\":{},\"rules\":{},\"zones\":{},\"digest\":\"{}\"}}\n",
               json_text(policy->policy.name), policy->policy.rules.size(),
               policy->policy.zones.size(), digest);
  } else {
    fmt::print("{}: ok, {} rules, {} zones, sha256 {} (for workspace {})\n", escape(*file),
               policy->policy.rules.size(), policy->policy.zones.size(), digest,
               escape(context.workspace));
    for (size_t i = 1; i < policy->layer_files.size(); ++i) {
      if (!policy->layer_files[i].empty())
        fmt::print("layer {}: {}\n", kernel::layer_text(i), escape(policy->layer_files[i]));
    }
    for (const std::string& note : layer_notes(policy->policy))
      fmt::print("note  {}\n", escape(note));
  }
  return 0;
}

int show(const Args& args) {
  const auto words = parse_words(args, {"--workspace", "--effective", "--admin-policy"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1) return usage_error("show takes one policy");
  const PolicyContext context{words->option("--workspace", "/workspace"), "/home/agent"};
  if (!context.workspace.starts_with('/')) return usage_error("--workspace is an absolute path");
  const auto file = find_policy(words->plain[0]);
  if (!file) return policy_trouble(file.error());
  const auto compiled = load_policy(*file, context);
  if (!compiled) return policy_trouble(compiled.error());
  if (!words->flag("--effective")) {
    std::ifstream in(*file, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    fmt::print("# {}\n{}", escape(*file), text);
    return 0;
  }
  fmt::print("# {}, for workspace {} and home {}; sha256 {}\n{}", escape(*file),
             escape(context.workspace), context.home, supervisor::hex(compiled->policy.digest()),
             effective_text(*compiled));
  CompiledPolicy all = *compiled;
  if (auto added = add_layers(all, layers(*words, *file), context); !added)
    return policy_trouble(added.error());
  if (all.layer_files.size() > 1) fmt::print("{}", layers_text(all));
  return 0;
}

Result<AskedCall> asked_call(const Words& words, const std::string& workspace) {
  AskedCall out;
  size_t named = words.command.empty() ? 0 : 1;
  if (named != 0) {
    CG_TRY(out, asked_exec(words.command, workspace));
  }
  for (const kernel::Verb verb :
       {kernel::Verb::kRead, kernel::Verb::kWrite, kernel::Verb::kConnect}) {
    const std::string object = words.option(std::string("--") + kernel::verb_text(verb));
    if (object.empty()) continue;
    ++named;
    out.verb = verb;
    out.object = object;
    if (verb == kernel::Verb::kConnect) continue;
    std::error_code error;
    const fs::path real = fs::weakly_canonical(fs::path(workspace) / object, error);
    if (error) return fail(object + ": " + error.message());
    out.object = real.string();
  }
  if (named != 1) return fail("explain takes one call: -- COMMAND, --read, --write or --connect");
  CG_TRY(out.agent, kernel::Label::parse(words.option("--label", "operator,user")));
  if (const std::string file = words.option("--file"); !file.empty()) {
    CG_TRY(out.file, kernel::Label::parse(file));
  }
  return out;
}

int explain(const Args& args) {
  const auto words =
      parse_words(args, {"--policy", "--workspace", "--label", "--file", "--read", "--write",
                         "--connect", "--admin-policy", "--record", "--state"});
  if (!words) return usage_error(words.error().what);
  if (!words->plain.empty()) return usage_error("the command comes after --");
  if (words->has("--record")) return explain_record(*words);
  const auto workspace = directory(words->option("--workspace", "."));
  if (!workspace) return policy_trouble(workspace.error());
  const PolicyContext context{*workspace, "/home/agent"};
  const auto compiled = load_layers(layers(*words, words->option("--policy", "default")), context);
  if (!compiled) return policy_trouble(compiled.error());
  const auto asked = asked_call(*words, *workspace);
  if (!asked) return usage_error(asked.error().what);
  const auto answer = ask(*compiled, context, *asked);
  if (!answer) return policy_trouble(answer.error());
  fmt::print("{}", explanation(compiled->policy, *answer));
  return std::holds_alternative<kernel::Certificate>(answer->verdict) ? 0 : kNo;
}

int test(const Args& args) {
  const auto words = parse_words(args, {});
  if (!words) return usage_error(words.error().what);
  if (words->plain.empty()) return usage_error("test takes tables");
  size_t passed = 0, failed = 0;
  for (const std::string& table : words->plain) {
    const auto results = run_policy_table(table);
    if (!results) return policy_trouble(results.error());
    for (const CaseResult& one : *results) {
      ++(one.passed ? passed : failed);
      if (one.passed) continue;
      fmt::print("FAIL {}: {}\n  wanted  {}\n  got     {}\n", escape(one.place), escape(one.why),
                 escape(one.wanted), one.verdict);
      fmt::print("{}\n", one.explanation);
    }
  }
  fmt::print("policy test: {} passed, {} failed\n", passed, failed);
  return failed == 0 ? 0 : kNo;
}

Result<CompiledPolicy> load(const std::string& name) {
  CG_TRY(const std::string file, find_policy(name));
  return load_policy(file, kSomewhere);
}

int analyze_one(const Args& args) {
  const auto words = parse_words(args, {});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1) return usage_error("analyze takes one policy");
  const auto compiled = load(words->plain[0]);
  if (!compiled) return policy_trouble(compiled.error());
  size_t errors = 0, notes = 0;
  for (const Finding& found : analyze(compiled->policy)) {
    const bool wrong = found.severity == Severity::kError;
    ++(wrong ? errors : notes);
    fmt::print("{} {}: rule {}: {} [{}]\n", wrong ? "wrong" : "note ", escape(found.place),
               escape(found.rule), escape(found.what), found.check);
  }
  fmt::print("{} rules, {} wrong, {} notes\n", compiled->policy.rules.size(), errors, notes);
  return errors == 0 ? 0 : kNo;
}

int diff(const Args& args) {
  const auto words = parse_words(args, {});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 2) return usage_error("diff takes two policies");
  const auto before = load(words->plain[0]), after = load(words->plain[1]);
  if (!before || !after) return policy_trouble((before ? after : before).error());
  const auto changes = differences(*before, *after, kSomewhere);
  if (!changes) return policy_trouble(changes.error());
  for (const Change& change : *changes) {
    fmt::print("{}\n  with    {}\n  before  {}\n  after   {}\n", change.what,
               escape(fmt::format("{}", fmt::join(change.labels, "; "))), change.before,
               change.after);
  }
  if (!changes->empty()) return kNo;
  const bool same = before->policy.digest() == after->policy.digest();
  fmt::print("{}\n", same ? "the same policy" : "no difference found; the digests differ");
  return 0;
}

struct Command {
  const char* name;
  int (*run)(const Args& args);
};
constexpr Command kCommands[] = {{"check", check},         {"show", show},
                                 {"explain", explain},     {"test", test},
                                 {"analyze", analyze_one}, {"diff", diff},
                                 {"learn", learn},         {"import", import_settings},
                                 {"pack", pack},           {"verify", verify_bundle},
                                 {"reload", reload}};

}  // namespace

int policy_main(const Args& args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kPolicyUsage, stdout);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (!args.empty() && args[0] == command.name) return command.run(args);
  }
  std::fputs(kPolicyUsage, stderr);
  return kUsageError;
}

}  // namespace certgate::agentd::cli
