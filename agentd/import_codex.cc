// Settings of Codex (config.toml): a sandbox mode, or, where `default_permissions` names one, a
// permission profile: paths with "read", "write" or "deny", domains with "allow" or "deny".
#include <set>

#include "agentd/import_draft.h"
#include "agentd/toml_reader.h"

namespace certgate::agentd {
namespace {

constexpr int kMaxProfiles = 8;  // that extend one another

std::string key_path(const std::string& at, const toml::key& key) {
  const std::string name(key.str());
  return at.empty() ? name : at + "." + name;
}

// Whatever is not taken, named.
void rest(const toml::table& table, const std::string& at, const std::set<std::string>& taken,
          ImportDraft& draft) {
  for (const auto& [key, value] : table) {
    if (!taken.contains(std::string(key.str())))
      draft.lossy(key_path(at, key), "has no counterpart here");
  }
}

Result<std::string> text_of(const toml::node& node, const std::string& path) {
  const auto value = node.value_exact<std::string>();
  if (!value) return fail(path + " is no string");
  return *value;
}

void write_workspace(const std::string& path, ImportDraft& draft) {
  draft.write(Say::kAllow, ".", path, Relative::kToRoot);
  for (const char* own : {".git", ".codex", ".agents"})
    draft.write(Say::kForbid, own, path, Relative::kToRoot);
  draft.lossy(path,
              ".git, .codex and .agents stay read-only, as there; for commits take that rule "
              "out, the hooks stay forbidden");
}

void open_network(const std::string& path, ImportDraft& draft) {
  draft.lossy(path, "any host there; here each is named, and none is allowed by this");
}

Status import_workspace_write(const toml::table& table, ImportDraft& draft) {
  const std::string at = "sandbox_workspace_write";
  if (const toml::node* roots = table.get("writable_roots")) {
    const toml::array* list = roots->as_array();
    if (list == nullptr) return fail(at + ".writable_roots is no list");
    size_t i = 0;
    for (const toml::node& item : *list) {
      const std::string path = at + ".writable_roots[" + std::to_string(i++) + "]";
      CG_TRY(const std::string root, text_of(item, path));
      draft.write(Say::kAllow, root, path, Relative::kToRoot);
    }
  }
  if (const toml::node* network = table.get("network_access"); network != nullptr) {
    if (network->value_exact<bool>().value_or(true)) open_network(at + ".network_access", draft);
  }
  rest(table, at, {"writable_roots", "network_access"}, draft);
  return ok();
}

Status import_mode(const toml::table& top, ImportDraft& draft) {
  const toml::node* node = top.get("sandbox_mode");
  std::string mode = "read-only";
  if (node != nullptr) {
    CG_TRY(mode, text_of(*node, "sandbox_mode"));
  }
  if (mode != "read-only" && mode != "workspace-write" && mode != "danger-full-access")
    return fail("sandbox_mode is none of read-only, workspace-write, danger-full-access");
  if (mode == "workspace-write") write_workspace("sandbox_mode", draft);
  if (mode == "danger-full-access") {
    draft.write(Say::kAllow, ".", "sandbox_mode", Relative::kToRoot);
    draft.lossy("sandbox_mode",
                "full access is not given: the workspace is writable, no host is "
                "reached");
  }
  const toml::node* details = top.get("sandbox_workspace_write");
  if (details == nullptr) return ok();
  if (!details->is_table()) return fail("sandbox_workspace_write is no table");
  if (mode == "workspace-write") return import_workspace_write(*details->as_table(), draft);
  draft.lossy("sandbox_workspace_write", "is for another sandbox_mode");
  return ok();
}

class Profile {
 public:
  Profile(const toml::table& all, ImportDraft& draft) : all_(all), draft_(draft) {}

  Status import(const std::string& name, const std::string& said_at, int depth) {
    if (name == ":read-only") return ok();
    if (name == ":workspace") return write_workspace(said_at, draft_), ok();
    if (name == ":danger-full-access") {
      draft_.write(Say::kAllow, ".", said_at, Relative::kToRoot);
      draft_.lossy(said_at, "full access is not given: the workspace is writable");
      return ok();
    }
    const toml::node* node = all_.get(name);
    const std::string at = "permissions." + name;
    if (node == nullptr || !node->is_table()) return fail(said_at + ": there is no table " + at);
    if (depth == kMaxProfiles) return fail(at + ": profiles extend one another more than 8 deep");
    const toml::table& table = *node->as_table();
    if (const toml::node* extends = table.get("extends")) {
      CG_TRY(const std::string base, text_of(*extends, at + ".extends"));
      CG_CHECK(import(base, at + ".extends", depth + 1));
    }
    if (const toml::node* files = table.get("filesystem")) {
      if (!files->is_table()) return fail(at + ".filesystem is no table");
      CG_CHECK(filesystem(*files->as_table(), at + ".filesystem", ""));
    }
    if (const toml::node* net = table.get("network")) {
      if (!net->is_table()) return fail(at + ".network is no table");
      CG_CHECK(network(*net->as_table(), at + ".network"));
    }
    rest(table, at, {"extends", "filesystem", "network", "description"}, draft_);
    return ok();
  }

 private:
  // `root`: the table's own key, whose paths are below it; empty at the top.
  Status filesystem(const toml::table& table, const std::string& at, const std::string& root) {
    for (const auto& [key, value] : table) {
      const std::string name(key.str()), path = key_path(at, key);
      if (value.is_table() && root.empty()) {
        CG_CHECK(filesystem(*value.as_table(), path, name));
        continue;
      }
      if (!value.is_string()) {
        draft_.lossy(path, "has no counterpart here");
        continue;
      }
      CG_TRY(const std::string access, text_of(value, path));
      if (access != "read" && access != "write" && access != "deny" && access != "none")
        return fail(path + " is none of read, write, deny, none");
      rule(root, name, access, path);
    }
    return ok();
  }

  void rule(const std::string& root, const std::string& name, const std::string& access,
            const std::string& path) {
    std::string text = root.empty() ? name : root;
    const bool roots = text == ":project_roots" || text == ":workspace_roots";
    if (roots) text = ".";
    if (text == ":tmpdir" || text == ":slash_tmp")
      return draft_.lossy(path, "scratch space is the sandbox's own here, and always writable");
    if (text == ":root") text = "/";
    if (text.starts_with(':'))
      return draft_.lossy(path, "'" + text + "': the system's files may be read, nothing is added");
    if (!root.empty() && name != ".") text += (text.ends_with('/') ? "" : "/") + name;
    if (access == "read") return draft_.read(Say::kAllow, text, path, Relative::kToRoot);
    if (access == "write") return draft_.write(Say::kAllow, text, path, Relative::kToRoot);
    draft_.read(Say::kForbid, text, path, Relative::kToRoot);
    draft_.write(Say::kForbid, text, path, Relative::kToRoot);
  }

  Status network(const toml::table& table, const std::string& at) {
    const toml::node* enabled = table.get("enabled");
    const bool on = enabled != nullptr && enabled->value_exact<bool>().value_or(false);
    const toml::table* domains =
        table.get("domains") != nullptr ? table.get("domains")->as_table() : nullptr;
    if (table.get("domains") != nullptr && domains == nullptr)
      return fail(at + ".domains is no table");
    if (on && (domains == nullptr || domains->empty())) open_network(at + ".enabled", draft_);
    if (domains != nullptr) {
      for (const auto& [key, value] : *domains) {
        const std::string path = key_path(at + ".domains", key);
        CG_TRY(const std::string access, text_of(value, path));
        if (access != "allow" && access != "deny") return fail(path + " is neither allow nor deny");
        if (access == "allow" && !on) {
          draft_.lossy(path, "the network is not enabled there: not allowed here");
          continue;
        }
        draft_.host(access == "allow" ? Say::kAllow : Say::kForbid, std::string(key.str()), path);
      }
    }
    rest(table, at, {"enabled", "domains"}, draft_);
    return ok();
  }

  const toml::table& all_;
  ImportDraft& draft_;
};

Status import_environment(const toml::table& table, ImportDraft& draft) {
  const std::string at = "shell_environment_policy";
  if (const toml::node* set = table.get("set")) {
    if (!set->is_table()) return fail(at + ".set is no table");
    for (const auto& [key, value] : *set->as_table()) {
      CG_TRY(const std::string text, text_of(value, key_path(at + ".set", key)));
      draft.set_env(std::string(key.str()), text, key_path(at + ".set", key));
    }
  }
  if (const toml::node* only = table.get("include_only")) {
    const toml::array* list = only->as_array();
    if (list == nullptr) return fail(at + ".include_only is no list");
    for (const toml::node& item : *list) {
      CG_TRY(const std::string name, text_of(item, at + ".include_only"));
      draft.pass_env(name, at + ".include_only");
    }
  }
  rest(table, at, {"set", "include_only"}, draft);
  return ok();
}

}  // namespace

Status import_codex(const std::string& text, ImportDraft& draft) {
  TomlFault fault;
  const auto parsed = parse_toml(text, fault);
  if (!parsed)
    return fail("line " + std::to_string(fault.at.line) + ", column " +
                std::to_string(fault.at.column) + ": " + fault.what);
  const toml::table& top = *parsed;
  const toml::node* chosen = top.get("default_permissions");
  const toml::node* profiles = top.get("permissions");
  if (chosen != nullptr && top.get("sandbox_mode") == nullptr) {
    CG_TRY(const std::string name, text_of(*chosen, "default_permissions"));
    const toml::table none;
    if (profiles != nullptr && !profiles->is_table()) return fail("permissions is no table");
    Profile profile(profiles != nullptr ? *profiles->as_table() : none, draft);
    CG_CHECK(profile.import(name, "default_permissions", 0));
  } else {
    if (chosen != nullptr) draft.lossy("default_permissions", "sandbox_mode is what counts there");
    CG_CHECK(import_mode(top, draft));
  }
  if (const toml::node* environment = top.get("shell_environment_policy")) {
    if (!environment->is_table()) return fail("shell_environment_policy is no table");
    CG_CHECK(import_environment(*environment->as_table(), draft));
  }
  draft.any_program("(programs)");
  draft.lossy("(programs)",
              "every program may run there; here while nothing untrusted has touched the agent");
  rest(top, "",
       {"default_permissions", "permissions", "sandbox_mode", "sandbox_workspace_write",
        "shell_environment_policy"},
       draft);
  return ok();
}

}  // namespace certgate::agentd
