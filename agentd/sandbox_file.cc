#include "agentd/sandbox_file.h"

#include <utility>

namespace certgate::agentd {
namespace {

class SandboxReader {
 public:
  SandboxReader(TomlFile& file, const ExpandDirectory& expand, CompiledPolicy& out)
      : file_(file), expand_(expand), out_(out) {}
  void read(const toml::node* node);

 private:
  void add_home(TableReader& reader);
  void add_home_file(const toml::node& at, const std::string& source, const std::string& target);

  TomlFile& file_;
  const ExpandDirectory& expand_;
  CompiledPolicy& out_;
};

void SandboxReader::add_home_file(const toml::node& at, const std::string& source,
                                  const std::string& target) {
  const bool plain = source.find_first_of("*?") == std::string::npos &&
                     target.find_first_of("*?") == std::string::npos;
  if (!target.starts_with("~/") || !(source.starts_with("~/") || source.starts_with("/")) ||
      !plain) {
    return file_.complain(at.source(),
                          "a home file is \"~/path\", or in a table \"/host/path\" = \"~/path\", "
                          "without '*' and '?'");
  }
  const std::string inside = expand_(target);
  auto pattern = kernel::PathPattern::parse(inside + "/**");
  if (!pattern) return file_.complain(at.source(), pattern.error().what);
  // What the operator gives is of origin operator, unless the file has a label of its own.
  out_.policy.zones.push_back(
      {"home-files", *std::move(pattern), kernel::Origin{kernel::OriginClass::kOperator, ""}, ""});
  out_.home_files.push_back({source, inside, target, file_.place(at.source())});
}

void SandboxReader::add_home(TableReader& reader) {
  std::string home;
  if (reader.text("home", home, Need::kOptional)) {
    if (home != "fresh" && home != "kept")
      return file_.complain(reader.source("home"), "'home' is \"fresh\" or \"kept\"");
    out_.home = home == "kept" ? HomePolicy::kKept : HomePolicy::kFresh;
  }
  const toml::node* files = reader.take("home_files", Need::kOptional);
  if (files == nullptr) return;
  if (const toml::table* table = files->as_table()) {
    for (const auto& [key, value] : *table) {
      const auto target = value.value_exact<std::string>();
      add_home_file(value, std::string(key.str()), target.value_or(""));
    }
    return;
  }
  std::vector<std::string> list;
  reader.texts("home_files", list, Need::kOptional);
  for (const std::string& path : list) add_home_file(*files, path, path);
}

void SandboxReader::read(const toml::node* node) {
  const toml::table* table = node->as_table();
  if (table == nullptr)
    return file_.complain(node->source(), "'sandbox' must be a table: [sandbox]");
  TableReader reader(file_, *table, "[sandbox]");
  std::vector<std::string> read_only;
  reader.texts("read_only", read_only, Need::kOptional);
  reader.texts("env", out_.env_pass, Need::kOptional);
  const toml::node* set_env = reader.take("set_env", Need::kOptional);
  add_home(reader);
  reader.done();
  for (const std::string& path : read_only) {
    const std::string full = expand_(path);
    if (!full.starts_with("/"))
      return file_.complain(reader.source("read_only"), "'" + path + "' is not an absolute path");
    out_.read_only.push_back(full);
  }
  if (set_env == nullptr) return;
  if (!set_env->is_table())
    return file_.complain(set_env->source(), "'set_env' must be a table of strings");
  TableReader variables(file_, *set_env->as_table(), "set_env");
  for (const auto& [key, value] : *set_env->as_table()) {
    const std::string name(key.str());
    std::string text;
    if (name.empty() || name.find('=') != std::string::npos)
      return file_.complain(key.source(), "not a variable name");
    if (variables.text(name.c_str(), text, Need::kRequired))
      out_.env_set.emplace_back(name, expand_(text));
  }
}

}  // namespace

void read_sandbox(TomlFile& file, const toml::node* node, const ExpandDirectory& expand,
                  CompiledPolicy& out) {
  if (node != nullptr) SandboxReader(file, expand, out).read(node);
}

}  // namespace certgate::agentd
