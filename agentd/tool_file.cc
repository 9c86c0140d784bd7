#include "agentd/tool_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <memory>

#include "sandbox/fd.h"
#include "sandbox/launch.h"

namespace certgate::agentd {
namespace {

using kernel::AcceptSet;
using kernel::PathPattern;
using kernel::Tool;
using kernel::ToolPart;
using kernel::ToolVariable;
using kernel::ValueSpec;
using kernel::ValueType;

constexpr size_t kMaxPatternText = 128;  // bounds what matching one value costs
constexpr int64_t kMaxValueBytes = kernel::kMaxToolBytes;
constexpr const char* kWordChars = "A-Za-z0-9_.-";
constexpr const char* kUrlChars = "A-Za-z0-9_.~:/?#@!$&()*+,;=%-";
// What `certgate run` gives every agent, and what shells add.
constexpr const char* kUsualVariables[] = {
    "PATH", "HOME", "LANG",  "LANGUAGE", "LC_*", "TERM",   "COLORTERM", "NO_COLOR",
    "TZ",   "USER", "SHELL", "LOGNAME",  "PWD",  "OLDPWD", "SHLVL",     "_"};

// The words of `type`. A word and an address are texts of certain characters.
struct TypeName {
  const char* name;
  ValueType type;
};
constexpr TypeName kTypes[] = {{"text", ValueType::kText},
                               {"word", ValueType::kText},
                               {"url", ValueType::kText},
                               {"integer", ValueType::kInteger},
                               {"path", ValueType::kPath}};

class ToolReader {
 public:
  ToolReader(TomlFile& file, const Expand& expand) : file_(file), expand_(expand) {}

  Tool read(const toml::table& table) {
    TableReader reader(file_, table, "a [[tool]]");
    Tool out;
    reader.text("name", out.name, Need::kRequired);
    reader.text("why", out.why, Need::kRequired);
    reader.text("program", out.program, Need::kRequired);
    read_program(reader, out);
    read_args(reader, out);
    read_env(reader, out);
    std::vector<std::string> cwd;
    if (!reader.texts("cwd", cwd, Need::kOptional)) cwd = {"@workspace/**"};
    std::string fds = "stdio";
    reader.text("fds", fds, Need::kOptional);
    if (fds != "stdio" && fds != "any")
      file_.complain(reader.source("fds"), "'fds' is \"stdio\" or \"any\"");
    out.descriptors = fds == "any" ? Tool::Descriptors::kAny : Tool::Descriptors::kStdio;
    reader.done();
    if (file_.error) return out;
    out.cwd = paths(reader.source("cwd"), cwd);
    out.source = file_.line(table.source());
    if (out.name.empty() || out.parts.size() > kernel::kMaxToolParts ||
        out.env.size() > kernel::kMaxToolParts)
      file_.complain(table.source(), "a tool has a name, and at most 64 arguments and variables");
    return out;
  }

 private:
  void read_program(TableReader& reader, Tool& out) {
    if (file_.error) return;
    out.program = only(reader.source("program"), out.program);
    const auto exact = PathPattern::parse(out.program);
    if (!exact || !out.program.starts_with('/') || !exact->spells(out.program))
      return file_.complain(reader.source("program"),
                            "'program' is one resolved path, without '*' and '?'");
    std::string digest, pin;
    const bool has_digest = reader.text("sha256", digest, Need::kOptional);
    const bool has_pin = reader.text("pin", pin, Need::kOptional);
    if (has_pin && (has_digest || pin != "at-start"))
      return file_.complain(reader.source("pin"), "'pin' is \"at-start\", instead of 'sha256'");
    if (has_pin) out.pin = Tool::Pin::kAtStart;
    if (has_digest && !parse_digest(digest, out.sha256))
      return file_.complain(reader.source("sha256"),
                            "'sha256' is 64 hex digits, as sha256sum says");
    if (has_digest) out.pin = Tool::Pin::kExact;
    if (reader.texts("run_by", out.run_by, Need::kOptional))
      out.run_by = expand_(reader.source("run_by"), out.run_by);
    // argv[0]: the program's name, however it was found.
    ValueSpec own;
    if (reader.texts("argv0", own.one_of, Need::kOptional))
      own.one_of = expand_(reader.source("argv0"), own.one_of);
    else
      own.one_of = {out.program.substr(out.program.rfind('/') + 1), out.program};
    out.parts.push_back({"", std::move(own), false, false, 0});
  }

  void read_args(TableReader& reader, Tool& out) {
    const toml::node* args = reader.take("args", Need::kOptional);
    if (args == nullptr || file_.error) return;
    if (!args->is_array())
      return file_.complain(args->source(), "'args' is a list: literals, lists of them, tables");
    for (const toml::node& node : *args->as_array()) add_part(node, out, 0);
  }

  // "literal", ["one", "of", "these"], { flag, value, optional, repeat } or { any_order = [...] }.
  void add_part(const toml::node& node, Tool& out, uint32_t group) {
    if (file_.error) return;
    ToolPart part;
    part.group = group;
    if (const auto literal = node.value_exact<std::string>()) {
      part.flag = *literal;
      if (literal->empty()) return file_.complain(node.source(), "an empty argument");
    } else if (const toml::array* some = node.as_array()) {
      part.value.emplace().one_of = texts(*some);
    } else if (const toml::table* table = node.as_table()) {
      TableReader reader(file_, *table, "an argument");
      if (const toml::node* members = reader.take("any_order", Need::kOptional)) {
        reader.done();
        if (group != 0 || !members->is_array() || members->as_array()->empty())
          return file_.complain(node.source(), "'any_order' is a list of arguments, not nested");
        ++groups_;
        for (const toml::node& member : *members->as_array()) add_part(member, out, groups_);
        return;
      }
      reader.text("flag", part.flag, Need::kOptional);
      part.optional = flag(reader, "optional");
      part.repeats = flag(reader, "repeat");
      if (const toml::node* value = reader.take("value", Need::kOptional))
        part.value = read_value(*value);
      reader.done();
      if (part.flag.empty() && !part.value)
        file_.complain(node.source(), "an argument says its 'flag', its 'value', or both");
    } else {
      file_.complain(node.source(), "an argument is a string, a list of strings or a table");
    }
    out.parts.push_back(std::move(part));
  }

  ValueSpec read_value(const toml::node& node) {
    ValueSpec out;
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      file_.complain(node.source(), "'value' is a table: { type = \"word\", max = 40 }");
      return out;
    }
    TableReader reader(file_, *table, "a value");
    read_value(reader, out);
    reader.done();
    return out;
  }

  void read_value(TableReader& reader, ValueSpec& out) {
    std::string type = "text";
    std::vector<std::string> within, accept;
    reader.texts("one_of", out.one_of, Need::kOptional);
    reader.text("type", type, Need::kOptional);
    const auto* row = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const TypeName& t) { return type == t.name; });
    if (row == std::end(kTypes))
      return file_.complain(
          reader.source("type"),
          "no such type: '" + type + "'; known are: text, word, url, integer, path");
    out.type = row->type;
    if (type == "word") out.chars = kWordChars;
    if (type == "url") out.chars = kUrlChars;
    reader.text("chars", out.chars, Need::kOptional);
    const bool has_patterns = read_patterns(reader, out);
    const bool has_within = reader.texts("within", within, Need::kOptional);
    out.dash = flag(reader, "dash");
    if (reader.texts("accept", accept, Need::kOptional))
      out.accept = accepting(reader.source("accept"), accept);
    read_range(reader, out);
    if (file_.error) return;
    if (type == "path" ? !has_within : has_within && (type != "url" || has_patterns))
      return file_.complain(reader.source("within"),
                            "'within' says where a path (and only a path or, without 'pattern', a "
                            "url) may lie");
    if (type == "path") out.within = paths(reader.source("within"), within);
    if (type != "url" || has_patterns) return;
    for (const std::string& host : within) out.patterns.push_back("https://" + host + "/*");
    if (within.empty()) out.patterns = {"https://*", "http://*"};
  }

  bool read_patterns(TableReader& reader, ValueSpec& out) {
    const toml::node* node = reader.take("pattern", Need::kOptional);
    if (node == nullptr) return false;
    if (const auto one = node->value_exact<std::string>())
      out.patterns = {*one};
    else
      reader.texts("pattern", out.patterns, Need::kOptional);
    for (const std::string& p : out.patterns) {
      if (p.empty() || p.size() > kMaxPatternText)
        file_.complain(node->source(), "a pattern has 1 to 128 bytes; '*' stands for any bytes");
    }
    return true;
  }

  void read_range(TableReader& reader, ValueSpec& out) {
    const bool integer = out.type == ValueType::kInteger;
    if (integer) out.min = 0;
    if (integer) out.max = std::numeric_limits<int64_t>::max();
    for (const auto& [key, to] : {std::pair<const char*, int64_t*>{"min", &out.min},
                                  std::pair<const char*, int64_t*>{"max", &out.max}}) {
      const toml::node* node = reader.take(key, Need::kOptional);
      if (node == nullptr) continue;
      const auto value = node->value_exact<int64_t>();
      if (!value || (!integer && (*value < 0 || *value > kMaxValueBytes)))
        return file_.complain(node->source(),
                              "'min' and 'max' are whole numbers; of bytes: 0 to 65536");
      *to = *value;
    }
    if (out.min > out.max) file_.complain(reader.source("min"), "'min' is more than 'max'");
  }

  void read_env(TableReader& reader, Tool& out) {
    const toml::node* env = reader.take("env", Need::kOptional);
    if (file_.error) return;
    if (env == nullptr) {
      add_usual(out);
    } else if (!env->is_array()) {
      return file_.complain(env->source(), "'env' is a list of names and tables");
    } else {
      for (const toml::node& node : *env->as_array()) read_variable(node, out);
    }
    const auto own = [](const ToolVariable& v) { return v.name == sandbox::kGateVariable; };
    if (std::none_of(out.env.begin(), out.env.end(), own))
      add_variable(sandbox::kGateVariable, out).value.one_of = {sandbox::kGateSocket};
  }

  void read_variable(const toml::node& node, Tool& out) {
    if (node.value_exact<std::string>() == "@usual") return add_usual(out);
    std::string name;
    ValueSpec value;
    value.min = 0;
    if (const auto text = node.value_exact<std::string>()) {
      name = *text;
      value.dash = true;
      value.max = kMaxValueBytes;
    } else if (const toml::table* table = node.as_table()) {
      TableReader reader(file_, *table, "a variable");
      reader.text("name", name, Need::kRequired);
      if (const toml::node* spec = reader.take("value", Need::kRequired)) value = read_value(*spec);
      reader.done();
    }
    const size_t star = name.find('*');
    if (name.empty() || name.find('=') != std::string::npos ||
        (star != std::string::npos && star + 1 != name.size()))
      return file_.complain(node.source(),
                            "a variable is a name, which '*' may end, or { name, value }");
    out.env.push_back({std::move(name), std::move(value)});
  }

  static void add_usual(Tool& out) {
    for (const char* name : kUsualVariables) add_variable(name, out).value.min = 0;
  }

  static ToolVariable& add_variable(const char* name, Tool& out) {
    ToolVariable& added = out.env.emplace_back();
    added.name = name;
    added.value.dash = true;
    added.value.max = kMaxValueBytes;
    return added;
  }

  static bool parse_digest(const std::string& text, kernel::Digest& out) {
    if (text.size() != 2 * out.size()) return false;
    for (size_t i = 0; i < text.size(); ++i) {
      const size_t digit = std::string_view("0123456789abcdef").find(text[i]);
      if (digit == std::string_view::npos) return false;
      out[i / 2] = static_cast<uint8_t>(out[i / 2] << 4 | digit);
    }
    return true;
  }

  bool flag(TableReader& reader, const char* key) {
    const toml::node* node = reader.take(key, Need::kOptional);
    if (node == nullptr) return false;
    const auto value = node->value_exact<bool>();
    if (!value) file_.complain(node->source(), std::string("'") + key + "' is true or false");
    return value.value_or(false);
  }

  std::vector<std::string> texts(const toml::array& array) {
    std::vector<std::string> out;
    for (const toml::node& node : array) {
      const auto text = node.value_exact<std::string>();
      if (!text) file_.complain(node.source(), "a list of alternatives holds strings");
      out.push_back(text.value_or(""));
    }
    if (out.empty()) file_.complain(array.source(), "a list of alternatives without one");
    return out;
  }

  std::string only(const toml::source_region& at, const std::string& text) {
    const auto all = expand_(at, {text});
    return all.size() == 1 ? all[0] : text;
  }

  std::vector<PathPattern> paths(const toml::source_region& at,
                                 const std::vector<std::string>& items) {
    std::vector<PathPattern> out;
    for (const std::string& text : expand_(at, items)) {
      auto pattern = PathPattern::parse(text);
      if (!pattern) {
        file_.complain(at, pattern.error().what);
      } else if (text == "@private") {
        file_.complain(at, "an argument is only text: whether it is '@private' nobody can say");
      } else {
        out.push_back(*std::move(pattern));
      }
    }
    return out;
  }

  AcceptSet accepting(const toml::source_region& at, const std::vector<std::string>& items) {
    auto parsed = AcceptSet::parse(expand_(at, items));
    if (!parsed) file_.complain(at, parsed.error().what);
    return parsed ? *std::move(parsed) : AcceptSet();
  }

  TomlFile& file_;
  const Expand& expand_;
  uint32_t groups_ = 0;
};

}  // namespace

kernel::Tool read_tool(TomlFile& file, const toml::table& table, const Expand& expand) {
  return ToolReader(file, expand).read(table);
}

Result<kernel::Digest> program_digest(const std::string& path) {
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const sandbox::UniqueFd fd(
      static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how)));
  struct stat s {};
  if (!fd || ::fstat(fd.get(), &s) != 0)
    return fail_errno("read " + path + " (name the file itself, not a link to it)", errno);
  if (!S_ISREG(s.st_mode)) return fail(path + " is not a file", EINVAL);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> hash(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (!hash || EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr) != 1)
    return fail("no SHA-256 in this OpenSSL");
  std::vector<char> block(1 << 16);
  for (;;) {
    const ssize_t got = ::read(fd.get(), block.data(), block.size());
    if (got < 0) return fail_errno("read " + path, errno);
    if (got == 0) break;
    EVP_DigestUpdate(hash.get(), block.data(), static_cast<size_t>(got));
  }
  kernel::Digest out{};
  EVP_DigestFinal_ex(hash.get(), out.data(), nullptr);
  return out;
}

Status pin_tools(kernel::Policy& policy) {
  for (Tool& tool : policy.tools) {
    if (tool.pin != Tool::Pin::kAtStart) continue;
    auto digest = program_digest(tool.program);
    if (!digest)
      return fail(tool.source + ": tool '" + tool.name +
                  "' is pinned at the start: " + digest.error().what);
    tool.sha256 = *digest;
  }
  return ok();
}

}  // namespace certgate::agentd
