#include "kernel/decide.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "kernel/mutant.h"

namespace certgate::kernel {
namespace {

bool has_verb(const std::vector<Verb>& verbs, Verb verb) {
  return std::find(verbs.begin(), verbs.end(), verb) != verbs.end();
}

bool any_path(const Rule& rule, std::string_view path, bool inside) {
  return std::any_of(rule.paths.begin(), rule.paths.end(),
                     [&](const PathPattern& p) { return p.matches(path, inside); });
}

bool any_argv(const Rule& rule, const std::vector<std::string>& argv) {
  if (rule.argvs.empty()) return true;
  return std::any_of(rule.argvs.begin(), rule.argvs.end(),
                     [&](const auto& p) { return argv_matches(p, argv); });
}

// Origins that the rules of one path may accept and those of another, for good reason, not.
bool untrusted_origins(const Label& label) {
  constexpr OriginClass kUntrusted[] = {OriginClass::kAgent, OriginClass::kFile, OriginClass::kWeb,
                                        OriginClass::kUnknown};
  return std::any_of(std::begin(kUntrusted), std::end(kUntrusted), [&](OriginClass c) {
    return (label.mask() & (1u << static_cast<unsigned>(c))) != 0;
  });
}

// What one rule is asked about: one verb on one part of the effect.
struct Question {
  Verb verb;
  const OpenEffect* open = nullptr;
  const ExecEffect* exec = nullptr;
  size_t image = 0;          // exec: which file of the chain
  bool forbid_only = false;  // exec: a loader needs no right of its own, but may be forbidden
  const ConnectEffect* connect = nullptr;
};

bool matches(const Rule& rule, const Question& q) {
  if (!has_verb(rule.verbs, q.verb)) return false;
  if (q.open != nullptr) {
    if (any_path(rule, q.open->path, q.open->inside)) return true;
    return rule.effect == Effect::kForbid && q.verb == Verb::kWrite && q.open->replaces &&
           std::any_of(rule.paths.begin(), rule.paths.end(),
                       [&](const PathPattern& p) { return p.names_below(q.open->path); });
  }
  if (q.exec != nullptr) {
    // An interpreter is given its arguments by the kernel: its rule is about the file alone.
    const ExecImage& image = q.exec->images[q.image];
    return any_path(rule, image.path, image.inside) &&
           (q.image > 0 || any_argv(rule, q.exec->argv));
  }
  return std::any_of(rule.endpoints.begin(), rule.endpoints.end(), [&](const EndpointPattern& e) {
    return rule.effect == Effect::kForbid ? e.matches(*q.connect) : e.allows(*q.connect);
  });
}

// For an explanation: what the reader of the rule would expect to be covered by it.
bool only_arguments_differ(const Rule& rule, const Question& q) {
  if (q.exec == nullptr || q.image != 0 || rule.argvs.empty()) return false;
  const ExecImage& image = q.exec->images[0];
  return has_verb(rule.verbs, q.verb) && any_path(rule, image.path, image.inside);
}

Asked asked(const Question& q) {
  Asked out{.verb = q.verb, .path = {}, .inside = false, .connect = q.connect};
  if (q.open != nullptr) {
    out.path = q.open->path;
    out.inside = q.open->inside;
  } else if (q.exec != nullptr) {
    out.path = q.exec->images[q.image].path;
    out.inside = q.exec->images[q.image].inside;
  }
  return out;
}

// What one layer says to one question.
struct Answer {
  const Rule* allowing = nullptr;
  size_t index = 0;  // of the allowing rule
  const Tool* tool = nullptr;
  std::optional<Refusal> rejecting, uncleared;
  std::optional<std::pair<Reason, const Rule*>> used_up;
};
using Answers = std::array<Answer, kMaxLayers>;

// Of the tool of one layer that fitted best.
struct Misfit {
  std::optional<Refusal> refusal;
  size_t fitted = 0;  // arguments; another content counts as most
};

}  // namespace

// One decision in progress: what decide() knows besides its arguments.
class Decision {
 public:
  Decision(const Policy& policy, const RuleIndex& index, const TokenChain& chain,
           const State& state, const Call& call, const Instant& now, std::vector<Step>* steps)
      : policy_(policy),
        index_(index),
        chain_(chain),
        state_(state),
        call_(call),
        now_(now),
        steps_(steps) {}

  std::vector<Question> questions() const;
  // The rule of each layer that allows this, or the refusal.
  std::variant<Answers, Refusal> answer(const Question& q, const Label& judged);
  Refusal refusal(Reason reason, const Rule* rule, const Label& judged, std::string why = {}) const;
  Refusal untrusted(const Rule& rule, const Label& judged) const;
  Refusal uncleared_for(const Rule& rule, const Label& judged) const;
  std::optional<Refusal> lost_source(const Label& judged) const;
  Refusal refusal(TokenFault fault) const;
  std::vector<MeterUse> take_meters() { return std::move(meters_); }
  const Rule* asking() const { return asking_; }

 private:
  void find_candidates(const Question& q);
  void note(const Question& q, uint32_t rule, Step::Outcome outcome,
            const Refusal* refused = nullptr);
  void note_near(const Question& q, uint32_t i);
  void weigh(const Question& q, uint32_t i, const Tool* tool, const Label& judged, Answer& answer);
  // The tool of the rule that fits, else null; the first that does not is kept for the refusal.
  const Tool* fitting(const Rule& rule, const Question& q, const Label& judged);
  std::optional<Refusal> foreign_words(const Rule& rule, const Label& judged) const;

  const Policy& policy_;
  const RuleIndex& index_;
  const TokenChain& chain_;
  const State& state_;
  const Call& call_;
  const Instant& now_;
  std::vector<Step>* steps_;
  std::vector<uint32_t> candidates_;  // of the question being answered
  std::vector<MeterUse> meters_;      // of all questions answered
  const Rule* asking_ = nullptr;      // the first ask rule that one of them met
  ToolFit fit_;                       // of the tool tried last
  std::array<Misfit, kMaxLayers> misfits_;
};

void Decision::find_candidates(const Question& q) {
  if (q.connect != nullptr) return index_.for_endpoint(*q.connect, candidates_);
  if (q.exec != nullptr) return index_.for_path(q.verb, q.exec->images[q.image].path, candidates_);
  index_.for_path(q.verb, q.open->path, candidates_);
  if (q.verb != Verb::kWrite || !q.open->replaces) return;
  std::vector<uint32_t> all;
  std::set_union(candidates_.begin(), candidates_.end(), index_.forbidding_write().begin(),
                 index_.forbidding_write().end(), std::back_inserter(all));
  candidates_ = std::move(all);
}

void Decision::note(const Question& q, uint32_t rule, Step::Outcome outcome,
                    const Refusal* refused) {
  if (steps_ == nullptr) return;
  Step step{.verb = q.verb, .image = q.image, .rule = rule, .outcome = outcome};
  if (outcome == Step::Outcome::kRejects || outcome == Step::Outcome::kUncleared)
    step.culprit = refused->origin;
  if (refused != nullptr) step.detail = refused->argument;
  if (refused != nullptr && outcome == Step::Outcome::kArguments) step.detail += " " + refused->why;
  steps_->push_back(std::move(step));
}

std::vector<Question> Decision::questions() const {
  std::vector<Question> out;
  if (const auto* open = std::get_if<OpenEffect>(&call_.effect)) {
    if (open->kind == FileKind::kPipe) return out;  // a stream the agent already holds
    if (open->read || !open->write) out.push_back({.verb = Verb::kRead, .open = open});
    if (open->write) out.push_back({.verb = Verb::kWrite, .open = open});
  } else if (const auto* exec = std::get_if<ExecEffect>(&call_.effect)) {
    out.reserve(exec->images.size());
    for (size_t i = 0; i < exec->images.size(); ++i) {
      out.push_back(
          {.verb = Verb::kExec, .exec = exec, .image = i, .forbid_only = is_loader(*exec, i)});
    }
  } else {
    const auto& connect = std::get<ConnectEffect>(call_.effect);
    // What cannot leave the sandbox needs no right (decide.h).
    if (connect.inside) return out;
    out.push_back({.verb = Verb::kConnect, .connect = &connect});
  }
  return out;
}

Refusal Decision::refusal(Reason reason, const Rule* rule, const Label& judged,
                          std::string why) const {
  Refusal out;
  out.reason = reason;
  if (rule != nullptr) {
    out.rule = rule->id;
    out.why = rule->why;
  }
  if (!why.empty()) out.why = std::move(why);
  out.decision = judged;
  out.risk = risk_of(call_.effect, judged, state_.seen).level;
  return out;
}

Refusal Decision::untrusted(const Rule& rule, const Label& judged) const {
  Refusal out = refusal(Reason::kUntrustedOrigin, &rule, judged);
  // The agent's own label is named first: it is what must change for this and every later call.
  const Origin* own = rule.accept.first_rejected(state_.label);
  out.argument = own != nullptr ? "agent" : "file";
  out.origin = *(own != nullptr ? own : rule.accept.first_rejected(judged));
  return out;
}

Refusal Decision::uncleared_for(const Rule& rule, const Label& judged) const {
  Refusal out = refusal(Reason::kClearanceMissing, &rule, judged);
  out.argument = "agent";
  out.origin = *rule.clearance.first_rejected(judged);
  return out;
}

const Tool* Decision::fitting(const Rule& rule, const Question& q, const Label& judged) {
  Misfit& best = misfits_[rule.layer];
  for (const uint32_t index : rule.tools) {
    const Tool& tool = policy_.tools[index];
    const auto& chain = tool.run_by;
    if (q.image > 0 &&
        std::find(chain.begin(), chain.end(), q.exec->images[q.image].path) == chain.end())
      continue;
    fit_ = fit_tool(tool, *q.exec);
    if (fit_.fit == Fit::kFits) return &tool;
    const bool other = fit_.fit == Fit::kMismatch;
    const size_t fitted = other ? SIZE_MAX : fit_.argv.size();
    if (fit_.fit == Fit::kOtherProgram || (best.refusal && fitted <= best.fitted)) continue;
    best.refusal = refusal(other ? Reason::kToolMismatch : Reason::kSchemaBreakout, &rule, judged,
                           fit_.element + " " + fit_.why);
    best.refusal->argument = fit_.element;
    best.refusal->tool = tool.name;
    best.fitted = fitted;
  }
  return nullptr;
}

// An argument or variable whose origin the tool does not accept. What the policy spells out is its
// own; what is bound to a message is the user's; all else is the agent's.
std::optional<Refusal> Decision::foreign_words(const Rule& rule, const Label& judged) const {
  const Label user = Label::of({{OriginClass::kUser, ""}});
  const size_t arguments = fit_.argv.size();
  for (size_t i = 0; i < arguments + fit_.env.size(); ++i) {
    const ValueSpec* value = i < arguments ? fit_.argv[i] : fit_.env[i - arguments];
    if (value == nullptr) continue;
    const bool bound = std::any_of(call_.sources.begin(), call_.sources.end(),
                                   [&](const auto& s) { return s.argument == i && i < arguments; });
    const AcceptSet& accept = value->accept ? *value->accept : rule.accept;
    const Origin* rejected = accept.first_rejected(bound ? user : judged);
    if (rejected == nullptr) continue;
    Refusal out = refusal(Reason::kUntrustedOrigin, &rule, judged);
    out.argument = (i < arguments ? "argv[" : "env[") +
                   std::to_string(i < arguments ? i : i - arguments) + "]";
    out.origin = *rejected;
    return out;
  }
  return std::nullopt;
}

// An argument that the caller binds is the very bytes that it names, or nothing is allowed.
std::optional<Refusal> Decision::lost_source(const Label& judged) const {
  const auto* exec = std::get_if<ExecEffect>(&call_.effect);
  for (const ArgumentSource& s : call_.sources) {
    if (exec != nullptr && s.argument < exec->argv.size() && s.message < state_.messages.size()) {
      const std::string_view said = state_.messages[s.message];
      if (s.start <= s.end && s.end <= said.size() &&
          said.substr(s.start, s.end - s.start) == exec->argv[s.argument])
        continue;
    }
    Refusal out = refusal(Reason::kProvenanceLoss, nullptr, judged,
                          "the user's message does not say this at the place that was named");
    out.argument = "argv[" + std::to_string(s.argument) + "]";
    return out;
  }
  return std::nullopt;
}

Refusal Decision::refusal(TokenFault fault) const {
  return refusal(fault.reason, nullptr, state_.label, std::move(fault.why));
}

std::variant<Answers, Refusal> Decision::answer(const Question& q, const Label& judged) {
  if (!q.forbid_only) {
    if (auto fault = check_scope(chain_, state_.tokens, now_, asked(q), meters_))
      return refusal(*std::move(fault));
  }
  Answers answers;
  misfits_ = {};
  find_candidates(q);
  for (const uint32_t i : candidates_) {
    const Rule& rule = policy_.rules[i];
    const bool forbids = rule.effect == Effect::kForbid;
    Answer& answer = answers[rule.layer];
    // Once an answer is known only a forbid can still change it.
    if (!forbids && (q.forbid_only || answer.allowing != nullptr)) continue;
    const Tool* tool = rule.tools.empty() || q.exec == nullptr ? nullptr : fitting(rule, q, judged);
    if (tool == nullptr && !matches(rule, q)) {
      note_near(q, i);
      continue;
    }
    if (forbids && mutant(Mutant::kProcessMemory)) continue;
    if (forbids) {
      note(q, i, Step::Outcome::kForbids);
      return refusal(Reason::kForbidden, &rule, judged);
    }
    weigh(q, i, tool, judged, answer);
  }
  for (size_t layer = 0; layer < kMaxLayers && !q.forbid_only; ++layer) {
    Answer& answer = answers[layer];
    if (answer.allowing != nullptr || (index_.layers(q.verb) >> layer & 1) == 0) continue;
    if (answer.used_up) return refusal(answer.used_up->first, answer.used_up->second, judged);
    if (answer.uncleared) return *std::move(answer.uncleared);
    if (answer.rejecting) return *std::move(answer.rejecting);
    if (misfits_[layer].refusal) return *std::move(misfits_[layer].refusal);
    const std::string whose = layer == 0 ? "policy" : std::string("layer ") + layer_text(layer);
    return refusal(Reason::kScopeMissing, nullptr, judged,
                   "no rule of the " + whose + " allows this");
  }
  return answers;
}

// For an explanation: a rule about this file, but not about this call of it.
void Decision::note_near(const Question& q, uint32_t i) {
  const Rule& rule = policy_.rules[i];
  if (steps_ == nullptr) return;
  if (misfits_[rule.layer].refusal && !rule.tools.empty() && fit_.fit != Fit::kOtherProgram)
    note(q, i, Step::Outcome::kArguments, &*misfits_[rule.layer].refusal);
  else if (only_arguments_differ(rule, q))
    note(q, i, Step::Outcome::kArguments);
}

// A granting rule that matches: what it adds to its layer's answer.
void Decision::weigh(const Question& q, uint32_t i, const Tool* tool, const Label& judged,
                     Answer& answer) {
  using Outcome = Step::Outcome;
  const Rule& rule = policy_.rules[i];
  // One that does not accept the label asks all the same: taint must not free a call.
  if (rule.effect == Effect::kAsk && asking_ == nullptr) asking_ = &rule;
  std::optional<Refusal> rejects;
  if (!rule.accept.accepts(judged))
    rejects = untrusted(rule, judged);
  else if (tool != nullptr)
    rejects = foreign_words(rule, judged);
  if (!mutant(Mutant::kAccept) && rejects) {
    note(q, i, Outcome::kRejects, &*rejects);
    if (tool != nullptr) rejects->tool = tool->name;
    if (!answer.rejecting) answer.rejecting = std::move(rejects);
  } else if (q.connect != nullptr && !mutant(Mutant::kClearance) &&
             !rule.clearance.accepts(judged)) {
    rejects = uncleared_for(rule, judged);
    note(q, i, Outcome::kUncleared, &*rejects);
    if (!answer.uncleared) answer.uncleared = std::move(rejects);
  } else if (rule.ttl_ns && now_.run_ns >= static_cast<int64_t>(*rule.ttl_ns)) {
    if (!answer.used_up) answer.used_up.emplace(Reason::kRuleExpired, &rule);
    note(q, i, Outcome::kExpired);
  } else if (rule.budget && i < state_.used.size() && state_.used[i] >= *rule.budget) {
    if (!answer.used_up) answer.used_up.emplace(Reason::kBudgetExhausted, &rule);
    note(q, i, Outcome::kUsedUp);
  } else {
    answer.allowing = &rule;
    answer.index = i;
    answer.tool = tool;
    note(q, i, rule.effect == Effect::kAsk ? Outcome::kAsks : Outcome::kAllows);
  }
}

Decider::Decider(const Policy& policy, TokenChain chain, std::string holder)
    : policy_(policy), index_(policy), chain_(std::move(chain)), holder_(std::move(holder)) {}

Decider::Decider(const Policy& policy, const Token& token)
    : Decider(policy, TokenChain{token}, token.holder) {}

std::optional<Refusal> Decider::ask(const State& state, const Instant& now, const Rule* asking,
                                    Certificate& certificate) const {
  const Effect by_risk = policy_.risk[static_cast<size_t>(certificate.risk_.level)];
  // What needs no rule stays inside the sandbox.
  if (certificate.rules_.empty()) return {};
  const Rule& rule = asking != nullptr ? *asking : policy_.rules[certificate.rules_[0].rule];
  if (stricter(rule.effect, by_risk) == Effect::kAllow) return {};
  Refusal out{Reason::kForbidden, rule.id, rule.why, {}, "risk", certificate.decision_};
  out.risk = certificate.risk_.level;
  out.tool = certificate.tool_;
  if (by_risk == Effect::kForbid) return out;
  out.argument.clear();
  out.digest = certificate.digest_;
  out.deadline_ns = rule.deadline_ns.value_or(kDefaultDeadline_ns);
  out.reason = Reason::kApprovalRequired;
  for (const Approval& one : state.approvals) {
    const bool fits = one.digest == out.digest && one.label.covers(out.decision);
    if (!fits || now.boot_ns >= one.until_ns) continue;
    certificate.approval_ = out.approval = one.id;
    if (one.answer == Approval::Answer::kApproved) return {};
    out.reason = one.answer == Approval::Answer::kDenied ? Reason::kApprovalDenied
                                                         : Reason::kApprovalExpired;
  }
  return out;
}

Verdict Decider::decide(const State& state, const Call& call, const Instant& now,
                        std::vector<Step>* steps) const {
  Decision decision(policy_, index_, chain_, state, call, now, steps);
  const auto* open = std::get_if<OpenEffect>(&call.effect);
  const auto* exec = std::get_if<ExecEffect>(&call.effect);
  const auto* connect = std::get_if<ConnectEffect>(&call.effect);
  if (exec != nullptr && exec->images.empty()) {
    return decision.refusal(Reason::kInternal, nullptr, state.label, "an exec without a file");
  }
  if (auto fault = check_live(chain_, holder_, state.tokens, now))
    return decision.refusal(*std::move(fault));
  const std::vector<Question> questions = decision.questions();

  Certificate cert;
  cert.decision_ = exec != nullptr ? state.label.join(call.object) : state.label;
  if (auto lost = decision.lost_source(cert.decision_)) return *std::move(lost);
  for (const Question& q : questions) {
    // Read and write in one open: the descriptor is used under the label that the read brings.
    if (q.verb == Verb::kWrite && open->read) cert.decision_ = state.label.join(call.object);
    auto answer = decision.answer(q, cert.decision_);
    if (auto* refusal = std::get_if<Refusal>(&answer)) return std::move(*refusal);
    if (q.verb == Verb::kWrite && open->other_names && untrusted_origins(cert.decision_)) {
      return decision.refusal(Reason::kConstraint, nullptr, cert.decision_,
                              "the file has other names, where this label may not write");
    }
    for (const Answer& found : std::get<Answers>(answer)) {
      if (found.allowing == nullptr) continue;  // also a loader that nothing forbids
      if (found.tool != nullptr && q.image == 0 && cert.tool_.empty())
        cert.tool_ = found.tool->name;
      const uint64_t used = found.index < state.used.size() ? state.used[found.index] : 0;
      cert.rules_.push_back({static_cast<uint32_t>(found.index), used + 1});
      cert.durability_ = std::max(cert.durability_, found.allowing->durability);
    }
  }

  cert.raised_ = cert.decision_;
  if (open != nullptr && open->read && !mutant(Mutant::kTaint))
    cert.raised_ = state.label.join(call.object);
  if (connect != nullptr && !questions.empty()) {
    const Rule& rule = policy_.rules[cert.rules_[0].rule];
    // Nobody knows what another process of the host sends.
    const Origin other = connect->transport == Transport::kUnix
                             ? Origin{OriginClass::kUnknown, ""}
                             : Origin{OriginClass::kWeb, connect->host};
    Label peer = Label::of({rule.origin.value_or(other)});
    for (const RuleUse& use : cert.rules_) {  // a lower layer may add an origin, not take one away
      if (policy_.rules[use.rule].origin)
        peer = peer.join(Label::of({*policy_.rules[use.rule].origin}));
    }
    if (!mutant(Mutant::kTaint)) cert.raised_ = state.label.join(peer);
  }
  if (open != nullptr && open->write) cert.object_ = call.object.join(cert.raised_);

  cert.risk_ = risk_of(call.effect, cert.decision_, state.seen);
  auto raised = raise(state, cert.raised_);
  if (auto* refusal = std::get_if<Refusal>(&raised)) {
    refusal->risk = cert.risk_.level;
    return std::move(*refusal);
  }
  cert.shut_ = std::move(std::get<Raise>(raised).shut);
  ActionForm form = action_form(call.effect);
  cert.digest_ = action_digest(form);
  cert.detail_ = std::move(form.detail);
  cert.meters_ = decision.take_meters();
  if (auto asked = ask(state, now, decision.asking(), cert)) return *std::move(asked);
  return cert;
}

}  // namespace certgate::kernel
