#include "agentd/policy_file.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <unordered_set>

#include "agentd/limits_file.h"
#include "agentd/policy_catalogue.h"
#include "agentd/redact_file.h"
#include "agentd/risk_file.h"
#include "agentd/rule_file.h"
#include "agentd/rule_order.h"
#include "agentd/rule_pieces.h"
#include "agentd/sandbox_file.h"
#include "agentd/toml_reader.h"
#include "agentd/tool_file.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Rule;
using Texts = boost::container::small_vector<std::string_view, 8>;

constexpr size_t kMaxExtendsDepth = 8;
constexpr size_t kMaxSetDepth = 16;
constexpr size_t kMaxExpanded = 65536;
constexpr size_t kMaxTools = 1024;

bool plain(std::string_view item) { return item.empty() || (item[0] != '@' && item[0] != '~'); }

// One compilation: the top file and everything it extends.
class Compiler {
 public:
  Compiler(const PolicyContext& context, size_t piece_bytes)
      : context_(context), piece_bytes_(piece_bytes) {}
  // Goes on with what the layers above have made.
  Compiler(const PolicyContext& context, size_t piece_bytes, CompiledPolicy above, Layer layer)
      : context_(context),
        piece_bytes_(piece_bytes),
        layer_(layer),
        out_(std::move(above)),
        layer_begin_(out_.policy.rules.size()) {}

  Status add_file(const fs::path& path, size_t depth);
  Status add_text(const fs::path& path, const std::string& text, size_t depth);
  CompiledPolicy take() { return std::move(out_); }
  bool has_cut() const { return has_cut_; }

 private:
  Status add_tables(TomlFile& file, const toml::table& table, const RuleCut* cut, size_t depth);
  void add_sets(TomlFile& file, const toml::node* node);
  void add_zones(TomlFile& file, const toml::node* node);
  void add_rules(TomlFile& file, const toml::node* node, const RuleCut* cut);
  void add_pieces(TomlFile& file, const RuleCut& cut);
  void add_tools(TomlFile& file, const toml::node* node);
  void read_tools(TomlFile& file, TableReader& reader, Rule& rule);
  void add_rule(TomlFile& file, const toml::table& table);
  void read_endpoints(TomlFile& file, TableReader& reader, Rule& rule);
  // Replaces "@set" by its members, "@workspace" and "~" by directories.
  std::vector<std::string> expand(TomlFile& file, const toml::source_region& at,
                                  std::vector<std::string> items, size_t depth = 0);
  std::string expand_directory(std::string text) const;
  // The same without a copy where there is nothing to replace; else views into `out`.
  Texts expand(TomlFile& file, const toml::source_region& at, const Texts& items,
               std::vector<std::string>& out);
  std::vector<kernel::PathPattern> paths(TomlFile& file, const toml::source_region& at,
                                         const Texts& items);

  const PolicyContext& context_;
  const size_t piece_bytes_;
  bool has_cut_ = false;  // some file: what is wrong with it must be told by reading it whole
  const Layer layer_ = Layer::kVendor;
  CompiledPolicy out_;
  const size_t layer_begin_ = 0;  // the layer's first rule
  std::map<std::string, std::vector<std::string>> sets_;
  std::unordered_set<std::string> ids_;  // of rules
  std::vector<fs::path> seen_;
};

// Each table of an array of tables ([[name]]).
template <typename F>
void each_table(TomlFile& file, const toml::node* node, const char* name, F&& f) {
  if (node == nullptr) return;
  const toml::array* array = node->as_array();
  if (array == nullptr || !array->is_array_of_tables()) {
    return file.complain(node->source(),
                         std::string("'") + name + "' must be written as [[" + name + "]] tables");
  }
  for (const toml::node& item : *array) f(*item.as_table());
}

std::string Compiler::expand_directory(std::string text) const {
  const std::pair<std::string_view, const std::string&> kMarks[] = {
      {"@workspace", context_.workspace}, {"~", context_.home}};
  for (const auto& [mark, dir] : kMarks) {
    if (!text.starts_with(mark)) continue;
    if (text.size() == mark.size() || text[mark.size()] == '/')
      return text.replace(0, mark.size(), dir);
  }
  return text;
}

std::vector<std::string> Compiler::expand(TomlFile& file, const toml::source_region& at,
                                          std::vector<std::string> items, size_t depth) {
  if (std::all_of(items.begin(), items.end(), plain)) return items;
  std::vector<std::string> out;
  if (depth > kMaxSetDepth) {
    file.complain(at, "sets nested more than 16 deep; does one contain itself?");
    return out;
  }
  for (std::string& item : items) {
    const bool built_in =
        item == "@private" || item == "@workspace" || item.starts_with("@workspace/");
    if (!item.starts_with("@") || built_in) {
      out.push_back(expand_directory(std::move(item)));
      continue;
    }
    const auto it = sets_.find(item.substr(1));
    if (it == sets_.end()) {
      file.complain(at, "unknown set '" + item +
                            "'; define it under [sets], here or in a file this one extends");
      return out;
    }
    for (std::string& member : expand(file, at, it->second, depth + 1))
      out.push_back(std::move(member));
    if (out.size() > kMaxExpanded) {
      file.complain(at, "more than 65,536 members after expanding sets");
      return out;
    }
  }
  return out;
}

Texts Compiler::expand(TomlFile& file, const toml::source_region& at, const Texts& items,
                       std::vector<std::string>& out) {
  if (std::all_of(items.begin(), items.end(), plain)) return items;
  out = expand(file, at, std::vector<std::string>(items.begin(), items.end()));
  return {out.begin(), out.end()};
}

std::vector<kernel::PathPattern> Compiler::paths(TomlFile& file, const toml::source_region& at,
                                                 const Texts& items) {
  std::vector<kernel::PathPattern> out;
  std::vector<std::string> expanded;
  const Texts texts = expand(file, at, items, expanded);
  out.reserve(texts.size());
  for (const std::string_view text : texts) {
    auto pattern = kernel::PathPattern::parse(text);
    if (!pattern) {
      file.complain(at, pattern.error().what);
      return out;
    }
    out.push_back(*std::move(pattern));
  }
  return out;
}

void Compiler::add_sets(TomlFile& file, const toml::node* node) {
  if (node == nullptr) return;
  const toml::table* table = node->as_table();
  if (table == nullptr) return file.complain(node->source(), "'sets' must be a table: [sets]");
  TableReader reader(file, *table, "[sets]");
  for (const auto& [key, value] : *table) {
    const std::string name(key.str());
    std::vector<std::string> members;
    if (!reader.texts(name, members, Need::kRequired)) return;
    if (name == "workspace" || name == "private")
      return file.complain(key.source(), "the sets 'workspace' and 'private' are built in");
    if (!sets_.emplace(name, std::move(members)).second) {
      return file.complain(key.source(), "the set '" + name + "' is defined twice");
    }
  }
}

void Compiler::add_zones(TomlFile& file, const toml::node* node) {
  each_table(file, node, "zone", [&](const toml::table& table) {
    TableReader reader(file, table, "a [[zone]]");
    std::string name, origin_text;
    Texts items;
    std::vector<std::string> tags;
    reader.text("name", name, Need::kRequired);
    const bool has_origin = reader.text("origin", origin_text, Need::kOptional);
    const bool has_secrecy = reader.texts("secrecy", tags, Need::kOptional);
    reader.texts("paths", items, Need::kRequired);
    reader.done();
    if (file.error) return;
    if (!has_origin && !has_secrecy)
      return file.complain(table.source(), "a zone says an 'origin', a 'secrecy' or both");
    kernel::Zone zone{name, {}, {}, file.line(table.source())};
    if (has_origin) {
      auto origin = kernel::Origin::parse(origin_text);
      if (!origin) return file.complain(reader.source("origin"), origin.error().what);
      zone.origin = *std::move(origin);
    }
    for (const std::string& name_of_tag : tags) {
      auto tag = kernel::Origin::parse_tag("secret:" + name_of_tag);
      if (!tag) return file.complain(reader.source("secrecy"), tag.error().what);
      zone.secrecy = zone.secrecy.join(kernel::Label::of({*std::move(tag)}));
    }
    for (kernel::PathPattern& p : paths(file, reader.source("paths"), items)) {
      zone.pattern = std::move(p);
      out_.policy.zones.push_back(zone);
    }
  });
}

void Compiler::read_endpoints(TomlFile& file, TableReader& reader, Rule& rule) {
  Texts to;
  std::vector<std::string> expanded;
  std::string via, origin;
  const bool has_to = reader.texts("to", to, Need::kOptional);
  const bool has_via = reader.text("via", via, Need::kOptional);
  const bool has_origin = reader.text("origin", origin, Need::kOptional);
  if (file.error) return;
  if (has_to) to = expand(file, reader.source("to"), to, expanded);
  rule.endpoints.reserve(to.size());
  for (const std::string_view text : to) {
    auto endpoint = kernel::EndpointPattern::parse(text);
    if (!endpoint) return file.complain(reader.source("to"), endpoint.error().what);
    if (has_via && endpoint->path)
      return file.complain(reader.source("via"), "'via' is for hosts, not for unix sockets");
    if (has_via) endpoint->via = via;
    rule.endpoints.push_back(*std::move(endpoint));
  }
  if (has_via) {
    auto target = kernel::EndpointPattern::parse(via);
    const bool exact = target && target->transport == kernel::Transport::kTcp &&
                       target->host.is_address && target->host.prefix_bits == 128 &&
                       target->port_first == target->port_last;
    if (!has_to || !exact)
      return file.complain(reader.source("via"),
                           "'via' must be one address:port on the host, beside 'to'");
  }
  if (has_origin) {
    auto parsed = kernel::Origin::parse(origin);
    if (!parsed) return file.complain(reader.source("origin"), parsed.error().what);
    rule.origin = *std::move(parsed);
  }
}

void Compiler::add_tools(TomlFile& file, const toml::node* node) {
  each_table(file, node, "tool", [&](const toml::table& table) {
    if (file.error) return;
    kernel::Tool tool = read_tool(
        file, table, [&](const auto& at, const auto& items) { return expand(file, at, items); });
    for (const kernel::Tool& other : out_.policy.tools) {
      if (other.name == tool.name)
        file.complain(table.source(),
                      "the tool '" + tool.name + "' is already defined at " + other.source);
    }
    if (out_.policy.tools.size() >= kMaxTools)
      file.complain(table.source(), "more than 1,024 tools");
    if (!file.error) out_.policy.tools.push_back(std::move(tool));
  });
}

void Compiler::read_tools(TomlFile& file, TableReader& reader, Rule& rule) {
  std::vector<std::string> names;
  if (!reader.texts("tools", names, Need::kOptional)) return;
  const auto& known = out_.policy.tools;
  for (const std::string& name : expand(file, reader.source("tools"), names)) {
    const auto it = std::find_if(known.begin(), known.end(),
                                 [&](const kernel::Tool& tool) { return tool.name == name; });
    if (it == known.end())
      return file.complain(reader.source("tools"),
                           "no tool '" + name +
                               "'; define it as a [[tool]], here or in a file "
                               "this one extends");
    rule.tools.push_back(static_cast<uint32_t>(it - known.begin()));
  }
}

void Compiler::add_rule(TomlFile& file, const toml::table& table) {
  TableReader reader(file, table, "a [[rule]]");
  Rule rule;
  Texts items;
  std::vector<std::string> accept, clearance;
  reader.text("id", rule.id, Need::kRequired);
  reader.text("why", rule.why, Need::kRequired);
  read_verbs(file, reader, rule);
  const bool has_paths = reader.texts("paths", items, Need::kOptional);
  reader.text_lists("argv", rule.argvs);
  read_tools(file, reader, rule);
  read_endpoints(file, reader, rule);
  const bool has_accept = reader.texts("accept", accept, Need::kOptional);
  const bool has_clearance = reader.texts("clearance", clearance, Need::kOptional);
  read_terms(file, reader, rule);
  reader.done();
  if (file.error) return;
  if (rule.grants() != has_accept) {
    return file.complain(reader.source("accept"),
                         "rule '" + rule.id + "': " +
                             (rule.grants() ? "an allow or ask rule says which origins it accepts: "
                                              "accept = [\"operator\", \"user\"]"
                                            : "a forbid rule takes no 'accept'"));
  }
  if (has_paths) rule.paths = paths(file, reader.source("paths"), items);
  auto parsed = kernel::AcceptSet::parse(expand(file, reader.source("accept"), std::move(accept)));
  if (!parsed) return file.complain(reader.source("accept"), parsed.error().what);
  rule.accept = *std::move(parsed);
  if (has_clearance) {
    const auto& at = reader.source("clearance");
    auto cleared = kernel::AcceptSet::parse(expand(file, at, std::move(clearance)),
                                            kernel::AcceptSet::Of::kTags);
    if (!cleared) return file.complain(at, cleared.error().what);
    rule.clearance = *std::move(cleared);
  }
  rule.source = file.line(table.source());
  rule.layer = static_cast<uint8_t>(layer_);
  if (layer_ != Layer::kVendor) rule.id = kernel::layer_text(rule.layer) + (":" + rule.id);
  if (!ids_.insert(rule.id).second) {
    const auto& rules = out_.policy.rules;
    const auto other = std::find_if(rules.begin(), rules.end(),
                                    [&](const Rule& one) { return one.id == rule.id; });
    return file.complain(reader.source("id"),
                         "rule id '" + rule.id + "' is already used" +
                             (other == rules.end() ? "" : " at " + other->source));
  }
  if (auto valid = kernel::validate(rule); !valid)
    return file.complain(table.source(), valid.error().what);
  if (out_.policy.rules.size() >= kernel::kMaxRules)
    return file.complain(table.source(), "more than 20,000 rules");
  out_.policy.rules.push_back(std::move(rule));
}

void Compiler::add_pieces(TomlFile& file, const RuleCut& cut) {
  const size_t kept = std::exchange(file.lines_kept, 0), left_out = file.lines_left_out;
  for (const RulePiece& piece : cut.pieces) {
    if (file.error) break;
    TomlFault fault;
    const auto table = parse_toml(piece.text, fault);
    if (!table || table->size() != 1) {
      file.error = fail(file.path + ": not of pieces");
      break;
    }
    file.lines_left_out = piece.lines_before;
    each_table(file, table->get("rule"), "rule", [&](const toml::table& rule) {
      if (!file.error) add_rule(file, rule);
    });
  }
  file.lines_kept = kept;
  file.lines_left_out = left_out;
}

void Compiler::add_rules(TomlFile& file, const toml::node* node, const RuleCut* cut) {
  const size_t own = out_.policy.rules.size();
  if (node != nullptr && node->is_array()) {
    const size_t count = cut != nullptr ? cut->rules : node->as_array()->size();
    const size_t all = std::min(own + count, kernel::kMaxRules);
    out_.policy.rules.reserve(all);
    ids_.reserve(all);
  }
  if (cut != nullptr) add_pieces(file, *cut);
  each_table(file, node, "rule", [&](const toml::table& table) {
    if (!file.error) add_rule(file, table);
  });
  if (!file.error) put_in_order(out_.policy.rules, layer_begin_, own);
}

Status Compiler::add_file(const fs::path& path, size_t depth) {
  if (std::find(seen_.begin(), seen_.end(), path) != seen_.end())
    return ok();  // a diamond adds once
  seen_.push_back(path);
  CG_TRY(const std::string text, read_policy_text(path.string()));
  return add_text(path, text, depth);
}

Status Compiler::add_text(const fs::path& path, const std::string& text, size_t depth) {
  TomlFile file{path.string(), std::nullopt};
  if (layer_ == Layer::kVendor) out_.sources.emplace_back(path.string(), text);
  const std::optional<RuleCut> cut = cut_rules(text, piece_bytes_);
  if (cut) {
    has_cut_ = true;
    file.lines_kept = cut->head_lines;
    file.lines_left_out = cut->piece_lines;
  }
  TomlFault fault;
  const auto table = parse_toml(cut ? cut->rest : text, fault);
  if (!table) return fail(file.place(fault) + ": " + fault.what);
  if (cut && !cut->holds(*table)) return fail(file.path + ": not of pieces");
  return add_tables(file, *table, cut ? &*cut : nullptr, depth);
}

Status Compiler::add_tables(TomlFile& file, const toml::table& table, const RuleCut* cut,
                            size_t depth) {
  TableReader reader(file, table, "a policy");
  std::string name;
  std::vector<std::string> extends;
  reader.text("name", name, Need::kRequired);
  reader.texts("extends", extends, Need::kOptional);
  const toml::node* sets = reader.take("sets", Need::kOptional);
  const toml::node* zones = reader.take("zone", Need::kOptional);
  const toml::node* tools = reader.take("tool", Need::kOptional);
  const toml::node* rules = reader.take("rule", Need::kOptional);
  const toml::node* sandbox = reader.take("sandbox", Need::kOptional);
  const toml::node* limits = reader.take("limits", Need::kOptional);
  const toml::node* risk = reader.take("risk", Need::kOptional);
  const toml::node* redact = reader.take("redact", Need::kOptional);
  reader.done();
  const bool below = layer_ != Layer::kVendor;
  if (below && (zones != nullptr || sandbox != nullptr)) {
    file.complain((zones != nullptr ? zones : sandbox)->source(),
                  "a layer that only narrows has no [[zone]] and no [sandbox]; put them into the "
                  "policy that --policy names");
  }
  if (layer_ == Layer::kProject && !extends.empty()) {
    file.complain(reader.source("extends"),
                  "a project's file extends no other; write its rules out, or extend in the policy "
                  "that --policy names");
  }
  if (file.error) return *file.error;
  if (depth > kMaxExtendsDepth) return fail(file.path + ": 'extends' nested more than 8 deep");
  for (const std::string& base : extends) {
    const fs::path found = find_extended(file.path, base);
    if (found.empty()) {
      file.complain(reader.source("extends"),
                    "no policy '" + base + "' beside this file, above it or in the catalogue");
      return *file.error;
    }
    CG_CHECK(add_file(found, depth + 1));
  }
  if (depth == 0 && !below) out_.policy.name = name;
  add_sets(file, sets);
  add_zones(file, zones);
  add_tools(file, tools);
  add_rules(file, rules, cut);
  read_sandbox(
      file, sandbox, [&](const std::string& directory) { return expand_directory(directory); },
      out_);
  read_limits(file, limits, out_.limits);
  read_risk(file, risk, out_.policy.risk);
  read_redaction(file, redact, out_.redact);
  return file.error ? Status(*file.error) : ok();
}

// `make` gives a compiler for pieces of that size, `add` what it compiles.
template <typename Make, typename Add>
Result<CompiledPolicy> compile(size_t piece_bytes, const Make& make, const Add& add) {
  Compiler compiler = make(piece_bytes);
  Status added = add(compiler);
  if (!added && compiler.has_cut()) return compile(SIZE_MAX, make, add);
  CG_CHECK(added);
  // The trees of the pieces leave small holes among the rules; whoever allocates next would fill
  // them.
  if (compiler.has_cut()) ::malloc_trim(size_t{1} << 20);
  CompiledPolicy out = compiler.take();
  CG_CHECK(kernel::validate(out.policy));
  return out;
}

}  // namespace

Result<CompiledPolicy> load_policy(const std::string& path, const PolicyContext& context) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error)
    return fail("policy " + path + ": " + error.message() +
                "; name an existing file with --policy");
  CG_TRY(CompiledPolicy out,
         compile(
             kPieceBytes, [&](size_t bytes) { return Compiler(context, bytes); },
             [&](Compiler& compiler) { return compiler.add_file(real, 0); }));
  out.layer_files.push_back(real.string());
  return out;
}

Result<CompiledPolicy> compile_policy(const std::string& path, const std::string& text,
                                      const PolicyContext& context, size_t piece_bytes) {
  std::error_code error;
  const fs::path place = fs::weakly_canonical(path, error);
  CG_TRY(CompiledPolicy out,
         compile(
             piece_bytes, [&](size_t bytes) { return Compiler(context, bytes); },
             [&](Compiler& compiler) { return compiler.add_text(place, text, 0); }));
  out.layer_files.push_back(path);
  return out;
}

Status add_layer(CompiledPolicy& to, Layer layer, const std::string& path, const std::string& text,
                 const PolicyContext& context) {
  CG_TRY(CompiledPolicy out,
         compile(
             kPieceBytes, [&](size_t bytes) { return Compiler(context, bytes, to, layer); },
             [&](Compiler& compiler) { return compiler.add_text(path, text, 0); }));
  out.layer_files.resize(static_cast<size_t>(layer));  // one that is not there has no name
  out.layer_files.push_back(path);
  to = std::move(out);
  return ok();
}

}  // namespace certgate::agentd
