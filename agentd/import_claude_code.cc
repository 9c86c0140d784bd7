// Permission settings of Claude Code: rules "Tool" or "Tool(what)" in lists allow, ask and deny, of
// which deny beats ask beats allow. They are about tool calls; here the programs, files and hosts
// behind them are judged, whoever asks.
#include <algorithm>

#include "agentd/import_draft.h"
#include "agentd/json_reader.h"

namespace certgate::agentd {
namespace {

namespace json = boost::json;

struct ToolRule {
  std::string tool, what;
  bool has_what = false;
};

ToolRule parse_rule(const std::string& text) {
  ToolRule out;
  const size_t open = text.find('(');
  out.tool = text.substr(0, open);
  if (open == std::string::npos || !text.ends_with(')')) return out;
  out.what = text.substr(open + 1, text.size() - open - 2);
  out.has_what = true;
  return out;
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    if (end > at) out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

// "git push:*", "git push *", "git push".
void import_command(const ToolRule& rule, Say say, const std::string& path, ImportDraft& draft) {
  std::string text = rule.what;
  const bool any = !rule.has_what || text == "*" || text == ":*";
  if (any && say == Say::kAllow) {
    draft.any_program(path);
    return draft.lossy(path, "any command; here while nothing untrusted has touched the agent");
  }
  if (any) return draft.lossy(path, "what no allow names is refused here anyway");
  bool more = false;
  for (const char* end : {":*", " *"}) {
    if (!text.ends_with(end)) continue;
    text.resize(text.size() - 2);
    more = true;
    break;
  }
  std::vector<std::string> words = words_of(text);
  const bool shell = text.find_first_of("|&;<>()$`\"'\\#\n") != std::string::npos;
  const bool inner = std::any_of(words.begin(), words.end(), [](const std::string& word) {
    return word.find('*') != std::string::npos;
  });
  if (words.empty() || shell) {
    words = {"'" + rule.what + "'"};  // named as what cannot be said
    return draft.command(say, words, path);
  }
  if (inner)
    draft.lossy(path, "'" + rule.what + "': '*' spans words there, and is within one word here");
  if (more) {
    words.emplace_back("**");
  } else {
    draft.lossy(path, "'" + rule.what + "': this program with exactly these arguments");
  }
  draft.command(say, words, path);
}

// "//abs" is from the root, "/x" from the settings' project; a name alone is anywhere.
std::string project_path(const std::string& what) {
  if (what.starts_with("//")) return what.substr(1);
  if (what.starts_with('/')) return "." + what;
  return what;
}

constexpr const char* kWriteTools[] = {"Edit", "Write", "MultiEdit", "NotebookEdit"};
constexpr const char* kReadTools[] = {"Read", "Grep", "Glob", "LS"};

template <size_t N>
bool among(const char* const (&names)[N], const std::string& name) {
  return std::any_of(std::begin(names), std::end(names), [&](const char* n) { return name == n; });
}

void import_rule(const std::string& text, Say say, const std::string& path, ImportDraft& draft) {
  const ToolRule rule = parse_rule(text);
  if (rule.tool == "Bash") return import_command(rule, say, path, draft);
  if (among(kWriteTools, rule.tool)) {
    return draft.write(say, rule.has_what ? project_path(rule.what) : ".", path,
                       Relative::kAnywhere);
  }
  if (among(kReadTools, rule.tool)) {
    return draft.read(say, rule.has_what ? project_path(rule.what) : ".", path,
                      Relative::kAnywhere);
  }
  if (rule.tool == "WebFetch" && rule.what.starts_with("domain:"))
    return draft.host(say, rule.what.substr(7), path);
  if (rule.tool == "WebFetch" || rule.tool == "WebSearch") {
    return draft.lossy(path, "'" + text + "': hosts are named one by one" +
                                 (say == Say::kAllow ? "; none is allowed by this" : ""));
  }
  draft.lossy(path, "'" + text +
                        "': a tool of the agent's own; what it starts, opens and reaches is "
                        "judged instead");
}

Status import_permissions(const json::object& object, ImportDraft& draft) {
  JsonView view(object, "permissions");
  CG_CHECK(view.texts("deny", [&](const std::string& text, const std::string& path) {
    import_rule(text, Say::kForbid, path, draft);
  }));
  CG_CHECK(view.texts("ask", [&](const std::string& text, const std::string& path) {
    draft.lossy(path, "'" + text + "': asked for there, forbidden here");
    import_rule(text, Say::kForbid, path, draft);
  }));
  CG_CHECK(view.texts("allow", [&](const std::string& text, const std::string& path) {
    import_rule(text, Say::kAllow, path, draft);
  }));
  CG_CHECK(
      view.texts("additionalDirectories", [&](const std::string& text, const std::string& path) {
        draft.lossy(path, "'" + text +
                              "': the workspace alone is writable; [sandbox] read_only shows more");
      }));
  for (const std::string& path : view.rest())
    draft.lossy(path, "has no counterpart here: nobody is asked, what no rule allows is refused");
  return ok();
}

}  // namespace

Status import_claude_code(const std::string& text, ImportDraft& draft) {
  CG_TRY(const json::value settings, parse_json(text));
  JsonView top(settings.get_object(), "");
  CG_TRY(const json::object* permissions, top.object("permissions"));
  if (permissions != nullptr) CG_CHECK(import_permissions(*permissions, draft));
  CG_CHECK(top.pairs("env", [&](const std::string& name, const std::string& value,
                                const std::string& path) { draft.set_env(name, value, path); }));
  for (const char* shell : {"bash", "sh", "dash"})
    draft.command(Say::kAllow, {shell, "**"}, "(shell)");
  draft.lossy("(shell)",
              "commands are run by a shell, which may run; what it starts needs a rule of its own");
  for (const std::string& path : top.rest()) draft.lossy(path, "has no counterpart here");
  return ok();
}

}  // namespace certgate::agentd
