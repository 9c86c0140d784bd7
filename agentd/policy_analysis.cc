#include "agentd/policy_analysis.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "kernel/path_cover.h"

namespace certgate::agentd {
namespace {

using kernel::Effect;
using kernel::EndpointPattern;
using kernel::Label;
using kernel::PathPattern;
using kernel::Policy;
using kernel::Rule;
using kernel::Verb;

using Rules = std::vector<const Rule*>;
using Takes = std::function<bool(const Rule&)>;

bool has(const Rule& rule, Verb verb) {
  return std::find(rule.verbs.begin(), rule.verbs.end(), verb) != rule.verbs.end();
}

bool accepts(const Rule& rule, const char* label) {
  return rule.accept.accepts(*Label::parse(label));
}

// Origins that an outsider chooses.
bool accepts_outsiders(const Rule& rule) {
  const auto texts = rule.accept.texts();
  return std::any_of(texts.begin(), texts.end(), [](const std::string& text) {
    return text == "unknown" || text.starts_with("web:") || text.starts_with("agent:") ||
           text.starts_with("file:");
  });
}

bool accepts_no_less(const Rule& wide, const Rule& narrow) {
  std::vector<kernel::Origin> all;
  for (const std::string& text : narrow.accept.texts()) all.push_back(*kernel::Origin::parse(text));
  std::vector<kernel::Origin> tags;
  for (const std::string& text : narrow.clearance.texts())
    tags.push_back(*kernel::Origin::parse_tag(text));
  return wide.accept.accepts(Label::of(std::move(all))) &&
         wide.clearance.accepts(Label::of(std::move(tags)));
}

bool host_within(const kernel::HostPattern& narrow, const kernel::HostPattern& wide) {
  if (narrow.is_address != wide.is_address) return false;
  if (!narrow.is_address) {
    const std::string suffix = wide.subdomains ? wide.text.substr(1) : "";
    if (narrow.text == wide.text) return true;
    return wide.subdomains && narrow.text.size() > suffix.size() + (narrow.subdomains ? 1 : 0) &&
           narrow.text.ends_with(suffix);
  }
  if (narrow.prefix_bits < wide.prefix_bits) return false;
  for (size_t bit = 0; bit < wide.prefix_bits; ++bit) {
    const auto mask = static_cast<uint8_t>(0x80 >> bit % 8);
    if ((narrow.address[bit / 8] ^ wide.address[bit / 8]) & mask) return false;
  }
  return true;
}

bool within(const EndpointPattern& narrow, const EndpointPattern& wide) {
  if (narrow.transport != wide.transport) return false;
  if (narrow.path) {
    const auto outside = kernel::path_outside(*narrow.path, {*wide.path});
    return outside && !*outside;
  }
  return narrow.port_first >= wide.port_first && narrow.port_last <= wide.port_last &&
         host_within(narrow.host, wide.host);
}

// Two that no path can match both leave each other alone; most pairs of a large policy are such.
bool may_meet(const PathPattern& a, const PathPattern& b) {
  const auto fixed = [](const std::string& text) {
    return std::string_view(text).substr(0, std::min(text.find_first_of("*?@"), text.size()));
  };
  const std::string_view x = fixed(a.text()), y = fixed(b.text());
  const size_t shared = std::min(x.size(), y.size());
  return x.substr(0, shared) == y.substr(0, shared) || x.ends_with('/') || y.ends_with('/');
}

// Whether all that `rule` says of `verb` lies within what `others` say of it together.
bool within(const Rule& rule, Verb verb, const Rules& others) {
  if (others.empty()) return false;
  if (verb == Verb::kConnect) {
    return std::all_of(rule.endpoints.begin(), rule.endpoints.end(), [&](const auto& narrow) {
      return std::any_of(others.begin(), others.end(), [&](const Rule* other) {
        return std::any_of(other->endpoints.begin(), other->endpoints.end(),
                           [&](const auto& wide) { return within(narrow, wide); });
      });
    });
  }
  return std::all_of(rule.paths.begin(), rule.paths.end(), [&](const PathPattern& narrow) {
    std::vector<PathPattern> wide;
    for (const Rule* other : others) {
      for (const PathPattern& p : other->paths) {
        if (may_meet(narrow, p)) wide.push_back(p);
      }
    }
    if (wide.empty()) return false;
    const auto outside = kernel::path_outside(narrow, wide);
    return outside && !*outside;
  });
}

bool argv_within(const Rule& narrow, const Rule& wide) {
  if (wide.argvs.empty()) return true;
  return !narrow.argvs.empty() &&
         std::all_of(narrow.argvs.begin(), narrow.argvs.end(), [&](const auto& argv) {
           return std::find(wide.argvs.begin(), wide.argvs.end(), argv) != wide.argvs.end();
         });
}

// Tool rules as if they named their programs, with an argv that only they have: so all that is said
// of paths is said of them too.
Policy by_programs(const Policy& policy) {
  Policy out = policy;
  for (Rule& rule : out.rules) {
    for (const uint32_t tool : rule.tools) {
      rule.paths.push_back(*PathPattern::parse(out.tools[tool].program));
      rule.argvs.push_back({"tool " + out.tools[tool].name});
    }
  }
  return out;
}

Rules choose(const Policy& policy, Verb verb, const Takes& takes) {
  Rules out;
  for (const Rule& rule : policy.rules) {
    if (has(rule, verb) && takes(rule)) out.push_back(&rule);
  }
  return out;
}

std::string ids(const Rules& rules) {
  std::string out;
  for (const Rule* rule : rules) (out += out.empty() ? "" : ", ") += rule->id;
  return out;
}

// Only those that matter, for the reader.
Rules needed(const Rule& rule, Verb verb, Rules others) {
  for (size_t i = others.size(); i-- > 0;) {
    Rules fewer = others;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    if (within(rule, verb, fewer)) others = std::move(fewer);
  }
  return others;
}

// Each says what is wrong with one allow rule, or nothing.
using Check = std::string (*)(const Policy& policy, const Rule& rule);

std::string never(const Policy& policy, const Rule& rule) {
  std::string out;
  for (const Verb verb : rule.verbs) {
    const Rules forbids =
        choose(policy, verb, [](const Rule& r) { return r.effect == Effect::kForbid; });
    if (!within(rule, verb, forbids)) continue;
    out += fmt::format("{}its right to {} is forbidden everywhere, by {}", out.empty() ? "" : "; ",
                       kernel::verb_text(verb), ids(needed(rule, verb, forbids)));
  }
  return out;
}

std::string shadowed(const Policy& policy, const Rule& rule) {
  Rules all;
  for (const Verb verb : rule.verbs) {
    const Rules earlier = choose(policy, verb, [&](const Rule& r) {
      const bool same_peer =
          verb != Verb::kConnect || (r.origin == rule.origin && !r.endpoints.empty() &&
                                     r.endpoints[0].via == rule.endpoints[0].via);
      return r.grants() && &r < &rule && !r.ttl_ns && !r.budget && same_peer &&
             (verb != Verb::kExec || argv_within(rule, r)) && accepts_no_less(r, rule);
    });
    if (!within(rule, verb, earlier)) return "";
    for (const Rule* one : needed(rule, verb, earlier)) {
      if (std::find(all.begin(), all.end(), one) == all.end()) all.push_back(one);
    }
  }
  return "never decides anything: " + ids(all) + " allow or ask for all of it before";
}

std::string nobody(const Policy& /*policy*/, const Rule& rule) {
  if (accepts(rule, "operator")) return "";
  return "no agent can use it: it does not accept \"operator\", and every agent's arguments are of "
         "that origin";
}

std::string inverted(const Policy& policy, const Rule& rule) {
  std::string out;
  for (const Verb verb : {Verb::kExec, Verb::kWrite}) {
    if (!has(rule, verb) || accepts(rule, "operator,user") || !accepts_outsiders(rule)) continue;
    const Rules clean = choose(policy, verb, [&](const Rule& r) {
      return r.grants() && accepts(r, "operator,user") &&
             (verb != Verb::kExec || argv_within(rule, r));
    });
    if (within(rule, verb, clean)) continue;
    out += fmt::format(
        "{}an agent that outsiders influence may {}, one that only its user does "
        "may not",
        out.empty() ? "" : "; ", kernel::verb_text(verb));
  }
  return out;
}

constexpr const char* kLaunchers[] = {"sh",    "bash", "dash",    "zsh",  "busybox", "env",
                                      "xargs", "find", "python3", "perl", "node",    "ruby"};

std::string wide(const Policy& /*policy*/, const Rule& rule) {
  if (!has(rule, Verb::kExec) || !rule.argvs.empty() || !accepts_outsiders(rule)) return "";
  std::string found;
  for (const char* name : kLaunchers) {
    const std::string path = std::string("/usr/bin/") + name;
    const auto is_match = [&](const PathPattern& p) { return p.matches(path, false); };
    if (std::any_of(rule.paths.begin(), rule.paths.end(), is_match))
      (found += found.empty() ? "" : ", ") += name;
  }
  if (found.empty()) return "";
  return found +
         " may run any command line of an agent that outsiders influence; what they start "
         "is judged anew, what they interpret is not";
}

// A page may then ask for the secret and be sent it.
std::string leaks(const Policy& /*policy*/, const Rule& rule) {
  const auto tags = rule.clearance.texts();
  if (tags.empty() || !accepts_outsiders(rule)) return "";
  std::string all;
  for (const std::string& tag : tags) (all += all.empty() ? "" : ", ") += tag;
  return "what is " + all + " may leave by it, also when outsiders influence the agent";
}

// A program with a form is granted without it to nobody who has the form.
std::string formless(const Policy& policy, const Rule& rule) {
  if (rule.tools.empty()) return "";
  const Rules all = choose(policy, Verb::kExec, [&](const Rule& r) {
    return r.effect == Effect::kAllow && r.tools.empty() && r.argvs.empty() &&
           accepts_no_less(r, rule);
  });
  std::string out;
  for (const uint32_t index : rule.tools) {
    const std::string& program = policy.tools[index].program;
    const auto grants = [&](const PathPattern& p) { return p.matches(program, false); };
    for (const Rule* other : all) {
      if (std::any_of(other->paths.begin(), other->paths.end(), grants))
        out += fmt::format("{}{} may run {} with any arguments for the same origins",
                           out.empty() ? "" : "; ", other->id, program);
    }
  }
  return out;
}

// Free text of outsiders for a program that runs what it is told.
std::string loose(const Policy& policy, const Rule& rule) {
  std::string out;
  for (const uint32_t index : rule.tools) {
    const kernel::Tool& tool = policy.tools[index];
    const std::string name = tool.program.substr(tool.program.rfind('/') + 1);
    const bool launcher = std::any_of(
        std::begin(kLaunchers), std::end(kLaunchers),
        [&](const char* l) { return name == l || name.starts_with(std::string(l) + "."); });
    for (const kernel::ToolPart& part : tool.parts) {
      if (!launcher || !part.value || !part.value->one_of.empty()) continue;
      if (part.value->type != kernel::ValueType::kText || !part.value->chars.empty()) continue;
      Rule words = rule;
      if (part.value->accept) words.accept = *part.value->accept;
      if (accepts_outsiders(words))
        return "tool " + tool.name + " hands any text of outsiders to " + name +
               ", which may run it";
    }
  }
  return out;
}

struct Row {
  const char* name;
  Severity severity;
  Check check;
};
constexpr Row kChecks[] = {
    {"never", Severity::kError, never},   {"shadowed", Severity::kNote, shadowed},
    {"nobody", Severity::kError, nobody}, {"inverted", Severity::kError, inverted},
    {"wide", Severity::kNote, wide},      {"formless", Severity::kError, formless},
    {"loose", Severity::kNote, loose},    {"leaks", Severity::kNote, leaks}};

}  // namespace

std::vector<Finding> analyze(const Policy& given) {
  const Policy policy = by_programs(given);
  std::vector<Finding> out;
  for (const Rule& rule : policy.rules) {
    if (!rule.grants()) continue;
    for (const Row& row : kChecks) {
      std::string what = row.check(policy, rule);
      if (!what.empty())
        out.push_back({row.name, row.severity, rule.id, rule.source, std::move(what)});
    }
  }
  return out;
}

}  // namespace certgate::agentd
