#include "agentd/import_draft.h"

#include <fmt/format.h>

#include <algorithm>

#include "agentd/policy_file.h"
#include "agentd/policy_text.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

constexpr size_t kMaxRules = 4096;
constexpr size_t kMaxPoints = 1000;
constexpr size_t kMaxWord = 2000;    // bytes: a policy's strings and lists hold 4096
constexpr size_t kMaxListed = 4000;  // of one rule
constexpr const char* kProgramPlaces[] = {"/usr/bin/", "/usr/local/bin/", "/usr/sbin/"};
const PolicyContext kSomewhere{"/workspace", "/home/agent"};

// Every comment is one line of printable text, whatever the settings hold.
std::string shown(const std::string& text) {
  return supervisor::escape(text.size() > 300 ? text.substr(0, 300) + "…" : text);
}

std::string list(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) (out += out.empty() ? "" : ", ") += toml_text(text);
  return "[" + out + "]";
}

bool plain_utf8(const std::string& text) {
  return text.size() <= kMaxWord && std::none_of(text.begin(), text.end(), [](char c) {
           return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
         });
}

}  // namespace

ImportDraft::ImportDraft(std::string from, std::string place)
    : from_(std::move(from)), place_(std::move(place)) {}

void ImportDraft::lossy(const std::string& path, const std::string& what) {
  if (lossy_.size() == kMaxPoints) lossy_.push_back("and more, which are not listed");
  if (lossy_.size() <= kMaxPoints) lossy_.push_back(shown(path) + ": " + shown(what));
}

void ImportDraft::unsaid(Say say, const std::string& path, const std::string& what) {
  if (say == Say::kAllow) return lossy(path, what + "; it is not allowed here");
  if (denials_.size() <= kMaxPoints)
    denials_.push_back(shown(path) + ": NOT FORBIDDEN HERE: " + shown(what));
}

ImportDraft::Rule& ImportDraft::rule(Say say, const std::string& kind, const std::string& path) {
  // Neighbours in one list are one rule.
  const std::string list_path = path.substr(0, path.rfind('['));
  for (Rule& have : rules_) {
    if (have.say == say && have.kind == kind && have.source == list_path) return have;
  }
  Rule out{say,
           kind,
           fmt::format("{} of {}: {}", shown(list_path), from_,
                       say == Say::kAllow ? "allowed" : "denied"),
           {},
           {},
           {},
           {},
           list_path};
  rules_.push_back(std::move(out));
  return rules_.back();
}

std::optional<std::string> ImportDraft::pattern(const std::string& asked, const std::string& path,
                                                Say say, Relative relative) {
  std::string text = asked;
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  const bool bare = text.find('/') == std::string::npos && text != "." && text != "~";
  if (text == "." || text == "./") {
    text = "@workspace";
  } else if (text.starts_with("./")) {
    text = "@workspace" + text.substr(1);
  } else if (text != "~" && !text.starts_with("~/") && !text.starts_with('/')) {
    const bool anywhere = bare && relative == Relative::kAnywhere && text != "**" && text != "*";
    text = (anywhere ? "@workspace/**/" : "@workspace/") + text;
  }
  if (text == "/") text = "";
  // A file, or a directory with all below.
  if (text.find_first_of("*?") == std::string::npos || !text.ends_with("*")) text += "/**";
  std::string full = text;
  for (const auto& [mark, directory] :
       {std::pair<std::string, std::string>{"@workspace", "/w"}, {"~", "/h"}}) {
    if (full.starts_with(mark + "/")) full = directory + full.substr(mark.size());
  }
  const bool known = text.find_first_of("[]{}!\\") == std::string::npos && plain_utf8(text);
  if (!known || !kernel::PathPattern::parse(full)) {
    unsaid(say, path, "'" + asked + "' is no pattern that a policy can say");
    return std::nullopt;
  }
  return text;
}

void ImportDraft::open(const char* verb, Say say, const std::string& text, const std::string& path,
                       Relative relative) {
  if (rules_.size() >= kMaxRules) return unsaid(say, path, "more than 4096 rules");
  const auto found = pattern(text, path, say, relative);
  if (!found) return;
  if (say == Say::kAllow && (*found == "/tmp/**" || *found == "/var/tmp/**" || *found == "~/**"))
    return lossy(path, "'" + text + "' is the sandbox's own here, and always writable");
  Rule& out = rule(say, verb, path);
  if (out.paths.size() >= kMaxListed) return unsaid(say, path, "more than 4000 paths in one list");
  out.verbs = {verb};
  out.paths.push_back(*found);
}

void ImportDraft::read(Say say, const std::string& text, const std::string& path,
                       Relative relative) {
  if (say == Say::kAllow)
    return lossy(path, "'" + text + "': whatever the sandbox shows may be read; nothing is added");
  open("read", say, text, path, relative);
}

void ImportDraft::write(Say say, const std::string& text, const std::string& path,
                        Relative relative) {
  open("write", say, text, path, relative);
}

void ImportDraft::host(Say say, const std::string& asked, const std::string& path) {
  std::string text = asked;
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (text == "*" || text == "**")
    return unsaid(say, path, "'" + asked + "' is any host; name those that are meant");
  if (text.find(':') != std::string::npos && !text.starts_with('[')) text = "[" + text + "]";
  std::vector<std::string> places;
  if (say == Say::kForbid) {
    places = {text + ":*"};
  } else {
    places = {text + ":80", text + ":443"};
  }
  for (const std::string& place : places) {
    if (kernel::EndpointPattern::parse(place)) continue;
    return unsaid(say, path, "'" + asked + "' is no host that a policy can say");
  }
  Rule& out = rule(say, "connect", path);
  if (out.to.size() + 1 >= kMaxListed) return unsaid(say, path, "more than 2000 hosts in one list");
  out.verbs = {"connect"};
  out.to.insert(out.to.end(), places.begin(), places.end());
}

void ImportDraft::unix_socket(const std::string& text, const std::string& path) {
  const auto found = pattern(text, path, Say::kAllow, Relative::kToRoot);
  if (!found) return;
  Rule& out = rule(Say::kAllow, "socket", path);
  if (out.to.size() >= kMaxListed) return lossy(path, "more than 4000 sockets in one list");
  out.verbs = {"connect"};
  out.to.push_back("unix:" + (found->starts_with('/') ? found->substr(0, found->size() - 3) : ""));
  if (!found->starts_with('/') || !kernel::EndpointPattern::parse(out.to.back())) {
    out.to.pop_back();
    lossy(path, "'" + text + "': a socket is named by an absolute path; it is not allowed here");
  }
}

void ImportDraft::command(Say say, const std::vector<std::string>& words, const std::string& path) {
  if (words.empty()) return;
  const std::string& program = words[0];
  const bool good = program.find_first_of("*?[]{}$`\"'\\|&;<>()#~! ") == std::string::npos &&
                    !program.empty() && program[0] != '-' && words.size() <= kMaxListed &&
                    std::all_of(words.begin(), words.end(), plain_utf8);
  if (!good || rules_.size() >= kMaxRules)
    return unsaid(say, path, "'" + program + "' is no program's name");
  std::vector<std::string> paths;
  if (program.find('/') == std::string::npos) {
    for (const char* place : kProgramPlaces) paths.push_back(place + program);
  } else if (auto found = pattern(program, path, say, Relative::kToRoot)) {
    paths.push_back(found->substr(0, found->size() - 3));
  }
  if (paths.empty()) return;
  Rule& out = rule(say, "exec-" + program.substr(program.rfind('/') + 1), path);
  if (out.argv.size() >= kMaxListed || out.paths.size() >= kMaxListed)
    return unsaid(say, path, "more than 4000 commands of one program");
  out.verbs = {"exec"};
  for (const std::string& p : paths) {
    if (std::find(out.paths.begin(), out.paths.end(), p) == out.paths.end()) out.paths.push_back(p);
  }
  std::vector<std::string> argv = words;
  // A denial must hold whatever the caller calls itself; a grant is for the program's own name.
  argv[0] = say == Say::kForbid ? "*" : program.substr(program.rfind('/') + 1);
  out.argv.push_back(std::move(argv));
}

void ImportDraft::any_program(const std::string& path) {
  Rule& out = rule(Say::kAllow, "programs", path);
  out.verbs = {"exec"};
  out.paths = {"/usr/**",   "/bin/**", "/sbin/**",      "/lib/**",
               "/lib64/**", "/opt/**", "@workspace/**", "@private"};
}

void ImportDraft::set_env(const std::string& name, const std::string& value,
                          const std::string& path) {
  if (name.empty() || name.find('=') != std::string::npos || !plain_utf8(name) ||
      !plain_utf8(value))
    return lossy(path, "not a variable that a policy can set");
  for (const auto& [have, ignored] : env_set_) {
    if (have == name) return;
  }
  env_set_.emplace_back(name, value);
}

void ImportDraft::pass_env(const std::string& name, const std::string& path) {
  if (name.empty() || name.find_first_of("=*?") != std::string::npos || !plain_utf8(name) ||
      env_pass_.size() >= kMaxListed)
    return lossy(path, "'" + name + "': variables are named one by one");
  env_pass_.push_back(name);
}

std::string ImportDraft::text() const {
  std::string out = fmt::format(
      "# Imported from {} settings ({}). Read it before you use it: certgate policy analyze, "
      "test.\n",
      from_, shown(place_));
  for (const std::string& point : denials_) out += "# " + point + "\n";
  for (const std::string& point : lossy_) out += "# lossy: " + point + "\n";
  out += fmt::format("name = {}\nextends = [\"base/system\"]\n", toml_text("imported-" + from_));
  out +=
      "\n[[zone]]\nname = \"workspace\"\npaths = [\"@workspace/**\"]\norigin = \"user\"\n"
      "\n[[rule]]\nid = \"hooks\"\n"
      "why = \"git runs these, also outside the sandbox; no setting of other tools says so\"\n"
      "forbid = [\"write\"]\npaths = [\"@workspace/.git/hooks/**\"]\n";
  std::vector<std::string> ids;
  for (const Rule& rule : rules_) {
    const bool allows = rule.say == Say::kAllow;
    if (rule.paths.empty() && rule.to.empty()) continue;
    std::string id = (allows ? "" : "no-") + rule.kind;
    for (int n = 2; std::find(ids.begin(), ids.end(), id) != ids.end(); ++n)
      id = fmt::format("{}{}-{}", allows ? "" : "no-", rule.kind, n);
    ids.push_back(id);
    out += fmt::format("\n[[rule]]\nid = {}\nwhy = {}\n{} = {}\n", toml_text(id),
                       toml_text(rule.why), allows ? "allow" : "forbid", list(rule.verbs));
    if (!rule.paths.empty()) out += fmt::format("paths = {}\n", list(rule.paths));
    std::vector<std::string> argvs;
    for (const auto& argv : rule.argv) argvs.push_back(list(argv));
    if (!argvs.empty()) out += fmt::format("argv = [{}]\n", fmt::join(argvs, ", "));
    if (!rule.to.empty()) out += fmt::format("to = {}\n", list(rule.to));
    if (allows) out += "accept = [\"@trusted\"]\n";
  }
  if (env_set_.empty() && env_pass_.empty()) return out;
  out += "\n[sandbox]\n";
  if (!env_pass_.empty()) out += fmt::format("env = {}\n", list(env_pass_));
  std::vector<std::string> set;
  for (const auto& [name, value] : env_set_)
    set.push_back(toml_text(name) + " = " + toml_text(value));
  if (!set.empty()) out += fmt::format("set_env = {{ {} }}\n", fmt::join(set, ", "));
  return out;
}

Result<Imported> ImportDraft::take() {
  Imported out;
  out.text = text();
  out.lossy = denials_;
  out.lossy.insert(out.lossy.end(), lossy_.begin(), lossy_.end());
  if (const auto valid = compile_policy("imported.toml", out.text, kSomewhere); !valid)
    return fail("the imported policy does not compile: " + valid.error().what);
  return out;
}

Result<Imported> import_policy(std::string_view from, const std::string& text,
                               const std::string& place) {
  ImportDraft draft(std::string(from), place);
  Status read = fail("no importer '" + std::string(from) + "'; known are: " + kImporters);
  if (from == "sandbox-runtime") read = import_sandbox_runtime(text, draft);
  if (from == "claude-code") read = import_claude_code(text, draft);
  if (from == "codex") read = import_codex(text, draft);
  if (!read) return fail(place + ": " + read.error().what);
  return draft.take();
}

}  // namespace certgate::agentd
