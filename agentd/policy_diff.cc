#include "agentd/policy_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "agentd/tool_file.h"
#include "kernel/path_cover.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

using kernel::Effect;
using kernel::Label;
using kernel::PathPattern;
using kernel::Rule;
using kernel::Verb;

constexpr size_t kMaxWitnesses = 4096;  // of one direction

// A detail that no policy names, so that it stands for all of its class.
constexpr const char* kSomeone = "someone.example";

enum class Freedom : uint8_t { kNone, kWhenApproved, kAtOnce };

Freedom freedom(const Answer& answer) {
  const auto* refusal = std::get_if<kernel::Refusal>(&answer.verdict);
  if (refusal == nullptr) return Freedom::kAtOnce;
  return refusal->reason == kernel::Reason::kApprovalRequired ? Freedom::kWhenApproved
                                                              : Freedom::kNone;
}

// The operator's own, and that with each further origin that the rule accepts and each tag that it
// is cleared for.
std::vector<Label> labels_of(const Rule& rule) {
  const Label own = *Label::parse("operator");
  std::vector<Label> out{own};
  for (std::string text : rule.accept.texts()) {
    if (text == "operator") continue;
    if (text.ends_with(":*")) text = text.substr(0, text.size() - 1) + kSomeone;
    out.push_back(own.join(*Label::parse(text)));
  }
  for (std::string tag : rule.clearance.texts()) {
    if (tag.ends_with(":*")) tag = tag.substr(0, tag.size() - 1) + kSomeone;
    out.push_back(own.join(*Label::parse(tag)));
  }
  return out;
}

// An argument that a pattern matches.
std::vector<std::string> example(const std::vector<std::string>& patterns) {
  std::vector<std::string> out;
  for (const std::string& pattern : patterns) {
    if (pattern == "**" && &pattern == &patterns.back()) break;
    std::string one;
    for (const char c : pattern) {
      if (c != '*') one += c;
    }
    out.push_back(std::move(one));
  }
  return out;
}

std::string example(const kernel::EndpointPattern& place) {
  if (place.path) {
    const auto path = kernel::path_outside(*place.path, {});
    return path && *path ? "unix:" + (*path)->path : "";
  }
  std::string host = place.host.text;
  if (place.host.subdomains) host = "some" + host.substr(1);
  if (const size_t slash = host.find('/'); place.host.is_address && slash != std::string::npos)
    host.resize(slash);
  if (host.find(':') != std::string::npos && !host.starts_with('[')) host = "[" + host + "]";
  const char* transport = place.transport == kernel::Transport::kUdp ? "udp:" : "";
  return fmt::format("{}{}:{}", transport, host, std::max<int>(place.port_first, 1));
}

// Objects that `rule` speaks of and, where there are such, the other policy grants nobody.
std::map<std::string, std::string> objects_of(const Rule& rule, Verb verb,
                                              const kernel::Policy& other,
                                              const PolicyContext& context) {
  std::map<std::string, std::string> out;  // and the pattern each is of
  if (verb == Verb::kConnect) {
    for (const auto& place : rule.endpoints) out.emplace(example(place), place.text());
    return out;
  }
  std::vector<PathPattern> granted;
  for (const Rule& r : other.rules) {
    const bool has = std::find(r.verbs.begin(), r.verbs.end(), verb) != r.verbs.end();
    if (r.effect == Effect::kAllow && has)
      granted.insert(granted.end(), r.paths.begin(), r.paths.end());
  }
  for (const PathPattern& pattern : rule.paths) {
    const auto add = [&](const Result<std::optional<kernel::PlacedPath>>& found) {
      if (found && *found)
        out.emplace((*found)->inside ? context.home + "/x" : (*found)->path, pattern.text());
    };
    add(kernel::path_outside(pattern, {}));
    add(kernel::path_outside(pattern, granted));
    // What forbid rules of the other policy cut out of it.
    for (const Rule& r : other.rules) {
      if (r.effect != Effect::kForbid) continue;
      for (const PathPattern& hole : r.paths) add(kernel::path_in_both(pattern, hole));
    }
  }
  return out;
}

struct Witness {
  AskedCall call;
  std::string pattern;
};

// One call that fits each tool.
void add_tool_calls(const kernel::Policy& policy, const Rule& rule, const PolicyContext& context,
                    std::vector<Witness>& out) {
  for (const uint32_t index : rule.tools) {
    const kernel::Tool& tool = policy.tools[index];
    for (const Label& label : labels_of(rule)) {
      AskedCall call;
      call.verb = Verb::kExec;
      call.object = tool.program;
      call.argv = example_argv(tool);
      const auto cwd = kernel::path_outside(tool.cwd[0], {});
      call.cwd = cwd && *cwd ? (*cwd)->path : context.workspace;
      call.agent = label;
      call.file = *Label::parse("operator");
      if (out.size() < kMaxWitnesses) out.push_back({std::move(call), "tool " + tool.name});
    }
  }
}

std::vector<Witness> witnesses(const CompiledPolicy& compiled, const CompiledPolicy& other,
                               const PolicyContext& context) {
  std::vector<Witness> out;
  for (const Rule& rule : compiled.policy.rules) {
    if (!rule.grants()) continue;
    for (const Verb verb : rule.verbs) {
      std::vector<std::vector<std::string>> argvs;
      for (const auto& patterns : rule.argvs) argvs.push_back(example(patterns));
      if (verb != Verb::kExec || argvs.empty()) argvs = {{"x"}};
      if (!rule.tools.empty()) add_tool_calls(compiled.policy, rule, context, out);
      for (const auto& [object, pattern] : objects_of(rule, verb, other.policy, context)) {
        for (const Label& label : labels_of(rule)) {
          for (const auto& argv : argvs) {
            AskedCall call;
            call.verb = verb;
            call.object = object;
            if (verb == Verb::kExec) call.argv = argv;
            call.agent = label;
            call.file = *Label::parse("operator");  // the same under both
            out.push_back({std::move(call), pattern});
            if (out.size() >= kMaxWitnesses) return out;
          }
        }
      }
    }
  }
  return out;
}

std::string described(const Witness& witness) {
  const AskedCall& call = witness.call;
  std::string out =
      std::string(kernel::verb_text(call.verb)) + " " + supervisor::escape(call.object);
  for (size_t i = 1; i < call.argv.size(); ++i) out += " " + supervisor::escape(call.argv[i]);
  if (witness.pattern != call.object) out += " (of " + supervisor::escape(witness.pattern) + ")";
  return out;
}

// As a rule would write it.
std::string label_text(const Label& label) {
  std::string out = label.text();
  const std::string_view someone = kSomeone;
  for (size_t at = out.find(someone); at != std::string::npos; at = out.find(someone))
    out.replace(at, someone.size(), "*");
  return out;
}

}  // namespace

Result<std::vector<Change>> differences(const CompiledPolicy& before, const CompiledPolicy& after,
                                        const PolicyContext& context) {
  std::vector<Change> out;
  for (const Direction direction : {Direction::kMayNow, Direction::kNoLonger}) {
    const bool more = direction == Direction::kMayNow;
    for (const Witness& one :
         more ? witnesses(after, before, context) : witnesses(before, after, context)) {
      CG_TRY(const Answer was, ask(before, context, one.call));
      CG_TRY(const Answer is, ask(after, context, one.call));
      const Freedom before_it = freedom(was), after_it = freedom(is);
      if (more ? after_it <= before_it : after_it >= before_it) continue;
      std::string what = more ? "may now " : "may no longer ";
      if (more && after_it == Freedom::kWhenApproved) what += "when an operator approves ";
      if (!more && after_it == Freedom::kWhenApproved) what += "unless an operator approves ";
      what += described(one);
      auto change =
          std::find_if(out.begin(), out.end(), [&](const Change& c) { return c.what == what; });
      if (change == out.end()) {
        out.push_back({direction,
                       what,
                       {},
                       one.call,
                       verdict_line(before.policy, was),
                       verdict_line(after.policy, is)});
        change = out.end() - 1;
      }
      const std::string label = label_text(one.call.agent);
      auto& labels = change->labels;
      if (std::find(labels.begin(), labels.end(), label) == labels.end()) labels.push_back(label);
    }
  }
  return out;
}

}  // namespace certgate::agentd
