// certgate policy check|show|explain|test|analyze|diff …

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "agentd/cli/verbs.h"
#include "agentd/policy_analysis.h"
#include "agentd/policy_call.h"
#include "agentd/policy_diff.h"
#include "agentd/policy_file.h"
#include "agentd/policy_table.h"
#include "agentd/policy_text.h"
#include "supervisor/report.h"

namespace certgate::agentd::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kNo = 1, kUsageError = 2;
// Patterns need some workspace to stand for @workspace; digests are for this one.
const PolicyContext kSomewhere{"/workspace", "/home/agent"};
constexpr const char* kUsage =
    "usage: certgate policy check FILE|NAME [--json]\n"
    "       certgate policy show [--effective] FILE|NAME [--workspace DIR]\n"
    "       certgate policy explain [--policy FILE|NAME] [--workspace DIR] [--label ORIGINS]\n"
    "                               [--file ORIGINS] -- COMMAND [ARG…]\n"
    "                               … --read PATH | --write PATH | --connect HOST:PORT\n"
    "       certgate policy test TABLE…\n"
    "       certgate policy analyze FILE|NAME\n"
    "       certgate policy diff BEFORE AFTER\n\n"
    "check    compiles the policy as `certgate run` would\n"
    "show     the policy's file; --effective: all that it extends taken in, sets and directories\n"
    "         written out, each rule under the place it comes from; it compiles to the same "
    "digest\n"
    "explain  what the policy says of a call, and every rule that was tried; nothing is run\n"
    "test     tables of calls and expected verdicts (policies/README.md)\n"
    "analyze  rules that never decide, that nobody can use, that favour outsiders, that run "
    "anything\n"
    "diff     what may now be done, or no longer, each with a call that shows it\n\n"
    "  --policy FILE|NAME   default: default\n"
    "  --workspace DIR      what @workspace stands for; show: /workspace, explain: the current "
    "directory\n"
    "  --label ORIGINS      the agent's label, like operator,web:page.test; default: "
    "operator,user\n"
    "  --file ORIGINS       the label of the file; default: its zone's\n\n"
    "Exit status: 0 valid, allowed, as expected, nothing wrong or nothing different; 1 not;\n"
    "2 wrong usage.\n";

std::string hex(const kernel::Digest& digest) {
  std::string out;
  for (const uint8_t b : digest) out += fmt::format("{:02x}", b);
  return out;
}

std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : escape(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

// Words and options of one verb: every option has a value but --json and --effective.
struct Words {
  std::vector<std::string> plain, command;
  std::vector<std::pair<std::string, std::string>> options;
  std::vector<std::string> flags;

  bool flag(const std::string& name) const {
    return std::find(flags.begin(), flags.end(), name) != flags.end();
  }
  std::string option(const std::string& name, const std::string& otherwise = "") const {
    for (const auto& [key, value] : options) {
      if (key == name) return value;
    }
    return otherwise;
  }
};

Result<Words> parse(const Args& args, const std::vector<std::string>& known) {
  Words out;
  for (size_t i = 1; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    if (args[i] == "--") {
      out.command.assign(args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end());
      break;
    }
    if (!args[i].starts_with("--")) {
      out.plain.push_back(args[i]);
    } else if (std::find(known.begin(), known.end(), name) == known.end()) {
      return fail("no such option here: " + args[i]);
    } else if (args[i] == "--json" || args[i] == "--effective") {
      out.flags.push_back(name);
    } else if (equals != std::string::npos) {
      out.options.emplace_back(name, args[i].substr(equals + 1));
    } else if (i + 1 < args.size()) {
      out.options.emplace_back(name, args[++i]);
    } else {
      return fail(name + " needs a value");
    }
  }
  return out;
}

int usage_error(const std::string& what) {
  fmt::print(stderr, "certgate: {}\n{}", escape(what), kUsage);
  return kUsageError;
}

int trouble(const Error& error) {
  fmt::print(stderr, "certgate: {}\n", escape(error.what));
  return kNo;
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
  const auto words = parse(args, {"--json"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1) return usage_error("check takes one policy");
  auto file = find_policy(words->plain[0]);
  auto policy = file ? load_policy(*file, kSomewhere) : Result<CompiledPolicy>(file.error());
  if (!policy && words->flag("--json")) {
    fmt::print("{{\"ok\":false,\"error\":{}}}\n", json_text(policy.error().what));
    return kNo;
  }
  if (!policy) return trouble(policy.error());
  const std::string digest = hex(policy->policy.digest());
  if (words->flag("--json")) {
    fmt::print("{{\"ok\":true,\"name\":{},\"rules\":{},\"zones\":{},\"digest\":\"{}\"}}\n",
               json_text(policy->policy.name), policy->policy.rules.size(),
               policy->policy.zones.size(), digest);
  } else {
    fmt::print("{}: ok, {} rules, {} zones, sha256 {} (for workspace /workspace)\n", escape(*file),
               policy->policy.rules.size(), policy->policy.zones.size(), digest);
  }
  return 0;
}

int show(const Args& args) {
  const auto words = parse(args, {"--workspace", "--effective"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1) return usage_error("show takes one policy");
  const PolicyContext context{words->option("--workspace", "/workspace"), "/home/agent"};
  if (!context.workspace.starts_with('/')) return usage_error("--workspace is an absolute path");
  const auto file = find_policy(words->plain[0]);
  if (!file) return trouble(file.error());
  const auto compiled = load_policy(*file, context);
  if (!compiled) return trouble(compiled.error());
  if (!words->flag("--effective")) {
    std::ifstream in(*file, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    fmt::print("# {}\n{}", escape(*file), text);
    return 0;
  }
  fmt::print("# {}, for workspace {} and home {}; sha256 {}\n{}", escape(*file),
             escape(context.workspace), context.home, hex(compiled->policy.digest()),
             effective_text(*compiled));
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
  const auto words = parse(
      args, {"--policy", "--workspace", "--label", "--file", "--read", "--write", "--connect"});
  if (!words) return usage_error(words.error().what);
  if (!words->plain.empty()) return usage_error("the command comes after --");
  const auto workspace = directory(words->option("--workspace", "."));
  if (!workspace) return trouble(workspace.error());
  const PolicyContext context{*workspace, "/home/agent"};
  const auto file = find_policy(words->option("--policy", "default"));
  if (!file) return trouble(file.error());
  const auto compiled = load_policy(*file, context);
  if (!compiled) return trouble(compiled.error());
  const auto asked = asked_call(*words, *workspace);
  if (!asked) return usage_error(asked.error().what);
  const auto answer = ask(*compiled, context, *asked);
  if (!answer) return trouble(answer.error());
  fmt::print("{}", explanation(compiled->policy, *answer));
  return std::holds_alternative<kernel::Certificate>(answer->verdict) ? 0 : kNo;
}

int test(const Args& args) {
  const auto words = parse(args, {});
  if (!words) return usage_error(words.error().what);
  if (words->plain.empty()) return usage_error("test takes tables");
  size_t passed = 0, failed = 0;
  for (const std::string& table : words->plain) {
    const auto results = run_policy_table(table);
    if (!results) return trouble(results.error());
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
  const auto words = parse(args, {});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1) return usage_error("analyze takes one policy");
  const auto compiled = load(words->plain[0]);
  if (!compiled) return trouble(compiled.error());
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
  const auto words = parse(args, {});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 2) return usage_error("diff takes two policies");
  const auto before = load(words->plain[0]), after = load(words->plain[1]);
  if (!before || !after) return trouble((before ? after : before).error());
  const auto changes = differences(*before, *after, kSomewhere);
  if (!changes) return trouble(changes.error());
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
constexpr Command kCommands[] = {{"check", check}, {"show", show},           {"explain", explain},
                                 {"test", test},   {"analyze", analyze_one}, {"diff", diff}};

}  // namespace

int policy_main(const Args& args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (!args.empty() && args[0] == command.name) return command.run(args);
  }
  std::fputs(kUsage, stderr);
  return kUsageError;
}

}  // namespace certgate::agentd::cli
