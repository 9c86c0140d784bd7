#include "agentd/policy_learn.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "agentd/learn_paths.h"
#include "agentd/observe.h"
#include "agentd/policy_text.h"

namespace certgate::agentd {
namespace {

using kernel::Label;
using kernel::Origin;
using kernel::OriginClass;
using kernel::Record;
using kernel::Rule;
using kernel::Verb;

constexpr size_t kMaxSubcommands = 12;
constexpr size_t kMaxKeptRefusals = 1000;

// What the calls of one rule have in common.
struct Group {
  size_t calls = 0;
  std::string example;  // id of the first
  std::set<std::string> origins;
  std::set<std::vector<std::string>> commands;  // exec: argv[0] and its sub-command
  bool any_arguments = false;
  bool run_as_interpreter = false;
  const Rule* model = nullptr;  // connect: the rule that allowed it, for `via` and `origin`

  void count(const Record& record, const Label& label) {
    if (calls++ == 0) example = record.id();
    for (const Origin& origin : label.origins()) origins.insert(origin.text());
  }
};

// The first origin that no learned rule accepts.
std::optional<std::string> unacceptable(const Label& label, const LearnOptions& options) {
  for (const Origin& origin : label.origins()) {
    const bool trusted = origin.cls == OriginClass::kOperator || origin.cls == OriginClass::kUser ||
                         origin.cls == OriginClass::kPolicy || origin.cls == OriginClass::kModel ||
                         origin.cls == OriginClass::kTool;
    if (!trusted && !(options.accept_web && origin.cls == OriginClass::kWeb)) return origin.text();
  }
  return std::nullopt;
}

bool is_word(const std::string& text) {
  return !text.empty() && text[0] >= 'a' && text[0] <= 'z' && text.size() <= 32 &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

std::string leaf(const std::string& path) {
  std::string out = path.substr(path.rfind('/') + 1);
  return out.empty() || out == "**" || out == "*" ? leaf(path.substr(0, path.rfind('/'))) : out;
}

std::string id_part(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '-' || c == '_';
    out += plain ? c : '-';
  }
  return out.substr(0, 48);
}

class Learner {
 public:
  Learner(const RecordedRun& run, const CompiledPolicy& observed, const CompiledPolicy& base,
          const LearnOptions& options)
      : run_(run),
        observed_(observed),
        base_(base),
        options_(options),
        by_observed_(observed.policy),
        by_base_(base.policy) {}

  Result<Proposal> proposal();

 private:
  Status add(const Record& record);
  void add_exec(const Record& record, const kernel::ExecEffect& exec, const Label& label);
  void add_connect(const Record& record, const kernel::Call& call, const Label& label);
  Rule& rule(const std::string& id, Verb verb, const Group& group, const std::string& why);
  void exec_rules();
  Status path_rules(Verb verb);
  Status connect_rules();
  std::string text() const;

  const RecordedRun& run_;
  const CompiledPolicy& observed_;
  const CompiledPolicy& base_;
  const LearnOptions& options_;
  const CallDecider by_observed_, by_base_;
  Proposal out_;
  std::map<std::string, Group> programs_;
  std::map<Verb, std::map<std::string, Group>> paths_;         // read and write, by path
  std::set<std::string> went_;                                 // names that were moved or removed
  std::map<std::string, std::map<std::string, Group>> hosts_;  // by host, then by endpoint
  CompiledPolicy made_;
};

void Learner::add_exec(const Record& record, const kernel::ExecEffect& exec, const Label& label) {
  for (size_t i = 0; i < exec.images.size(); ++i) {
    const kernel::ExecImage& image = exec.images[i];
    const bool loader = i > 0 && i + 1 == exec.images.size() &&
                        image.path.compare(image.path.rfind('/') + 1, 3, "ld-") == 0;
    if (loader) continue;
    Group& group = programs_[image.inside ? "@private" : literal(image.path)];
    group.count(record, label);
    if (i > 0) {
      group.run_as_interpreter = true;
      continue;
    }
    const std::vector<std::string>& argv = exec.argv;
    // A record holds at most so much of an argument.
    const bool command = !image.inside && !argv.empty() &&
                         argv[0].size() < kernel::kMaxRecordArgBytes &&
                         (argv.size() == 1 || is_word(argv[1]));
    if (!command) {
      group.any_arguments = true;
    } else if (argv.size() == 1) {
      group.commands.insert({literal(argv[0])});
    } else {
      group.commands.insert({literal(argv[0]), argv[1], "**"});
    }
  }
}

void Learner::add_connect(const Record& record, const kernel::Call& call, const Label& label) {
  const auto& connect = std::get<kernel::ConnectEffect>(call.effect);
  const std::string host = connect.transport == kernel::Transport::kUnix ? "unix" : connect.host;
  Group& group = hosts_[host][record.object];
  group.count(record, label);
  const Answer now = by_observed_.decide(call, label, {});
  if (const auto* allowed = std::get_if<kernel::Certificate>(&now.verdict)) {
    if (!allowed->rules().empty()) group.model = &observed_.policy.rules[allowed->rules()[0].rule];
  }
}

Status Learner::add(const Record& record) {
  if (!is_judged(record)) return ok();
  if (record.kind == kernel::RecordKind::kRefusal) {
    out_.refused.push_back(record.id());
    return ok();
  }
  CG_TRY(kernel::Call call, recorded_call(record, run_.context));
  CG_TRY(const Label label, Label::parse(record.origins));
  const Answer as_is = by_base_.decide(call, label, {});
  if (std::holds_alternative<kernel::Certificate>(as_is.verdict)) {
    ++out_.calls;
    return ok();
  }
  if (const auto origin = unacceptable(label, options_)) {
    ++out_.left_out[*origin];
    return ok();
  }
  ++out_.calls;
  if (const auto* exec = std::get_if<kernel::ExecEffect>(&call.effect)) {
    add_exec(record, *exec, label);
  } else if (std::holds_alternative<kernel::ConnectEffect>(call.effect)) {
    add_connect(record, call, label);
  } else {
    const auto verb = static_cast<Verb>(record.verb - 1);
    paths_[verb][record.object].count(record, label);
    const auto& open = std::get<kernel::OpenEffect>(call.effect);
    kernel::Call reading{kernel::OpenEffect{open}, {}};
    std::get<kernel::OpenEffect>(reading.effect).write = false;
    const Answer reads = by_base_.decide(reading, label, {});
    if (verb == Verb::kWrite && open.read && std::holds_alternative<kernel::Refusal>(reads.verdict))
      paths_[Verb::kRead][record.object].count(record, label);
    for (const char* leaving : {"rename", "unlink"}) {
      if (record.call.starts_with(leaving)) went_.insert(record.object);
    }
  }
  return ok();
}

Rule& Learner::rule(const std::string& id, Verb verb, const Group& group, const std::string& why) {
  Rule out;
  out.id = id;
  for (int n = 2; std::any_of(made_.policy.rules.begin(), made_.policy.rules.end(),
                              [&](const Rule& other) { return other.id == out.id; });
       ++n)
    out.id = fmt::format("{}-{}", id, n);
  out.why = why;
  out.verbs = {verb};
  std::set<std::string> accept = group.origins;
  accept.insert({"operator", "user"});
  out.accept = *kernel::AcceptSet::parse({accept.begin(), accept.end()});
  out.source = fmt::format("{} call{}, the first is {}", group.calls, group.calls == 1 ? "" : "s",
                           group.example);
  made_.policy.rules.push_back(std::move(out));
  return made_.policy.rules.back();
}

void Learner::exec_rules() {
  for (const auto& [program, group] : programs_) {
    const auto pattern = kernel::PathPattern::parse(program);
    if (!pattern) continue;
    const std::string name = program == "@private" ? "private" : leaf(program);
    Rule& made = rule("exec-" + id_part(name), Verb::kExec, group,
                      fmt::format("the run started {}{}", id_part(name),
                                  group.run_as_interpreter ? ", also for a script's #! line" : ""));
    made.paths.push_back(*pattern);
    if (group.any_arguments || group.commands.size() > kMaxSubcommands) continue;
    made.argvs.assign(group.commands.begin(), group.commands.end());
  }
}

Status Learner::path_rules(Verb verb) {
  std::vector<std::string> seen;
  for (const auto& [path, group] : paths_[verb]) seen.push_back(path);
  for (const PathGroup& group : group_paths(seen, went_, run_.context, options_.together)) {
    Group all;
    for (const std::string& member : group.members) {
      const Group& one = paths_[verb][member];
      if (all.calls == 0) all.example = one.example;
      all.calls += one.calls;
      all.origins.insert(one.origins.begin(), one.origins.end());
    }
    Rule& made =
        rule(fmt::format("{}-{}", kernel::verb_text(verb), id_part(leaf(group.name))), verb, all,
             fmt::format("the run {} {} file{} here", verb == Verb::kRead ? "read" : "wrote",
                         group.members.size(), group.members.size() == 1 ? "" : "s"));
    for (const std::string& text : group.patterns) {
      CG_TRY(kernel::PathPattern pattern, kernel::PathPattern::parse(text));
      made.paths.push_back(std::move(pattern));
    }
  }
  return ok();
}

Status Learner::connect_rules() {
  for (const auto& [host, endpoints] : hosts_) {
    // Endpoints of one host that lead to different places, or are of different origins, stay apart.
    std::map<std::string, std::vector<std::string>> alike;
    for (const auto& [endpoint, group] : endpoints) {
      const Rule* model = group.model;
      std::string key = model != nullptr && model->origin ? model->origin->text() : "";
      if (model != nullptr && !model->endpoints.empty())
        key += " " + model->endpoints[0].via.value_or("");
      alike[key].push_back(endpoint);
    }
    for (const auto& [key, texts] : alike) {
      Group all;
      for (const std::string& text : texts) {
        const Group& one = endpoints.at(text);
        if (all.calls == 0) all.example = one.example;
        all.calls += one.calls;
        all.origins.insert(one.origins.begin(), one.origins.end());
        all.model = one.model;
      }
      Rule& made =
          rule("connect-" + id_part(host), Verb::kConnect, all, "the run connected to " + host);
      for (const std::string& text : texts) {
        CG_TRY(kernel::EndpointPattern endpoint, kernel::EndpointPattern::parse(text));
        if (all.model != nullptr && !all.model->endpoints.empty())
          endpoint.via = all.model->endpoints[0].via;
        made.endpoints.push_back(std::move(endpoint));
      }
      if (all.model != nullptr) made.origin = all.model->origin;
    }
  }
  return ok();
}

// Directories as a policy names them, so that the proposal is good for another workspace.
std::string Learner::text() const {
  std::string out = effective_text(made_);
  const std::pair<std::string, const char*> places[] = {{run_.context.workspace, "@workspace"},
                                                        {run_.context.home, "~"}};
  for (const auto& [directory, mark] : places) {
    for (const char end : {'/', '"'}) {
      const std::string before = '"' + directory + end, after = std::string("\"") + mark + end;
      for (size_t at = 0; (at = out.find(before, at)) != std::string::npos; at += after.size())
        out.replace(at, before.size(), after);
    }
  }
  const size_t line = out.find('\n') + 1;  // after name
  return fmt::format(
      "# Proposed by `certgate policy learn` from the run {}: {} calls. Read it before you use "
      "it:\n"
      "# every rule says what it covers. Hold it to the run with `certgate policy learn "
      "--replay`.\n"
      "{}extends = [\"base/system\"]\n{}",
      run_.start.run, out_.calls, out.substr(0, line), out.substr(line));
}

Result<Proposal> Learner::proposal() {
  for (const Record& record : run_.calls) CG_CHECK(add(record));
  made_ = observed_;
  made_.policy.name = "learned-" + run_.start.run;
  const auto in_base = [&](const auto& one, const auto& all) {
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& b) { return b.source == one.source; });
  };
  std::erase_if(made_.policy.zones, [&](const auto& z) { return in_base(z, base_.policy.zones); });
  std::erase_if(made_.policy.rules, [&](const Rule& r) {
    return r.effect != kernel::Effect::kForbid || r.layer != 0 || in_base(r, base_.policy.rules);
  });
  exec_rules();
  for (const Verb verb : {Verb::kRead, Verb::kWrite}) CG_CHECK(path_rules(verb));
  CG_CHECK(connect_rules());
  out_.text = text();
  return std::move(out_);
}

}  // namespace

Result<Proposal> propose(const RecordedRun& run, const CompiledPolicy& observed,
                         const CompiledPolicy& base, const LearnOptions& options) {
  return Learner(run, observed, base, options).proposal();
}

Result<Replay> replay(const CompiledPolicy& policy, const RecordedRun& run) {
  Replay out;
  std::vector<uint64_t> used(policy.policy.rules.size());
  // One decider for all: building the index for every call would take longer than the run did.
  const CallDecider decider(policy.policy);
  for (const Record& record : run.calls) {
    if (record.kind != kernel::RecordKind::kCertificate || !is_judged(record)) continue;
    CG_TRY(kernel::Call call, recorded_call(record, run.context));
    CG_TRY(const Label label, Label::parse(record.origins));
    Answer answer = decider.decide(std::move(call), label, used);
    if (const auto* allowed = std::get_if<kernel::Certificate>(&answer.verdict)) {
      ++out.allowed;
      for (const kernel::RuleUse& use : allowed->rules()) used[use.rule] = use.used;
    } else if (++out.refusals <= kMaxKeptRefusals) {
      out.refused.emplace_back(record, std::move(answer));
    }
  }
  return out;
}

}  // namespace certgate::agentd
