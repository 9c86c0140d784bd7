// The session's part of tools: permits, and what the tool gate asks.
#include <cerrno>
#include <utility>

#include "supervisor/report.h"
#include "supervisor/session.h"
#include "supervisor/tool_sources.h"

namespace certgate::supervisor {
namespace {

constexpr int kMaxRaises = 16;  // decided again because the label changed meanwhile
// The longest wait for an operator; a caller that ends before gives its permit up (withdrawn).
constexpr int64_t kKeptAtMost_ns = kernel::kMaxDeadline_ns + 60'000'000'000;

kernel::Refusal refusal_of(kernel::Reason reason, std::string why, const kernel::Label& label) {
  kernel::Refusal out;
  out.reason = reason;
  out.why = std::move(why);
  out.decision = label;
  return out;
}

}  // namespace

void Session::give_messages(std::vector<std::string> messages) {
  const Lock lock(mutex_);
  state_.messages = std::move(messages);
}

// A permit adds whose words the arguments are; without one they are the agent's.
Judged Session::judge_ordered(const CallInfo& info, const kernel::Call& call, const Hold& hold,
                              const Mark& mark) {
  Lock lock = enter();
  const auto* exec = std::get_if<kernel::ExecEffect>(&call.effect);
  std::optional<Permit> permit;
  if (exec != nullptr) permit = permits_.take(*exec, info.pid, now().boot_ns);
  if (!permit) return judge(lock, info, call, hold, mark);
  kernel::Call bound = call;
  bound.sources = permit->sources;
  CallInfo permitted = info;
  permitted.permit = permit->id;
  Judged out = judge(lock, permitted, bound, hold, mark);
  if (out.asks != 0)
    permits_.keep_for(info.pid, *std::move(permit), now().boot_ns + kKeptAtMost_ns);
  else if (!out.certificate)
    permits_.put_back(*std::move(permit));
  return out;
}

Permitted Session::permit(const CallInfo& info, const kernel::Call& call,
                          const std::string& intent) {
  const Lock lock = enter();
  Permitted out;
  const auto refuse = [&](kernel::Refusal refusal) {
    out.refusal = std::move(refusal);
    out.id = recorder_.run() + "-" + std::to_string(refused(info, call, out.refusal, intent).seq);
    return std::move(out);
  };
  const int64_t now_ns = now().boot_ns;
  if (permits_.full(now_ns))
    return refuse(decider().constraint(state_, "64 permits wait for their exec; use some first"));
  kernel::Verdict verdict = decide(call);
  // A question is for the exec to ask: only then is all of it there that an operator approves.
  auto* refusal = std::get_if<kernel::Refusal>(&verdict);
  if (refusal != nullptr && refusal->reason != kernel::Reason::kApprovalRequired)
    return refuse(std::move(*refusal));
  std::string rule;
  if (refusal != nullptr) {
    out.asks = Asks{refusal->rule, refusal->why};
    out.tool = refusal->tool;
    out.label = refusal->decision.text();
    rule = refusal->rule;
  } else {
    const auto& certificate = std::get<kernel::Certificate>(verdict);
    out.tool = certificate.tool();
    out.label = certificate.decision_label().text();
    rule = decider().policy().rules[certificate.rules()[0].rule].id;
  }
  const auto& exec = std::get<kernel::ExecEffect>(call.effect);
  out.sources = sources_text(decider().policy(), out.tool, call);
  kernel::Record record = describe(info, call);
  record.kind = kernel::RecordKind::kPermit;
  record.rule = std::move(rule);
  record.origins = out.label;
  record.tool = out.tool;
  record.sources = out.sources;
  record.intent = intent;
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) {
    fatal(seq.error().what);
    out.refusal = refusal_of(kernel::Reason::kInternal, "it could not be recorded", state_.label);
    return out;
  }
  out.id = recorder_.run() + "-" + std::to_string(*seq);
  out.permit = Permit{out.id,    exec.images[0].path, exec.images[0].sha256,
                      exec.argv, call.sources,        now_ns + kPermitTtl_ns};
  permits_.add(*out.permit);
  return out;
}

Permitted Session::refuse_tool(const CallInfo& info, const std::string& tool,
                               const std::string& intent, const std::string& fault) {
  const Lock lock = enter();
  Permitted out;
  kernel::ExecEffect nothing;
  nothing.images.push_back({tool, {}, {}});
  out.refusal = fault.empty() ? refusal_of(kernel::Reason::kScopeMissing,
                                           "no tool of this name that can be run", state_.label)
                              : refusal_of(kernel::Reason::kInternal, fault, state_.label);
  out.id = recorder_.run() + "-" +
           std::to_string(refused(info, kernel::Call{nothing, {}}, out.refusal, intent).seq);
  return out;
}

void Session::rise_alone(const kernel::Raise& raise, uint64_t ino, std::string why) {
  kernel::Record record;
  record.kind = kernel::RecordKind::kRaise;
  record.origins = state_.label.text();
  record.raised = raise.to.text();
  record.ino = ino;
  const std::string by = why;
  record.why = std::move(why);
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) return fatal(seq.error().what);
  shut(raise.shut);
  ++changes_;
  lineage_.rise(raise.to, *seq);
  note_rise(raise.to, *seq, by);
  state_.label = raise.to;
}

std::optional<Permitted> Session::add_taint(const CallInfo& info, const kernel::Label& taint) {
  Lock lock = enter();
  const auto refuse = [&](kernel::Refusal refusal) {
    Permitted out;
    kernel::ExecEffect nothing;
    nothing.images.push_back({taint.text(), {}, {}});
    out.refusal = std::move(refusal);
    out.id = recorder_.run() + "-" +
             std::to_string(refused(info, kernel::Call{nothing, {}}, out.refusal).seq);
    return out;
  };
  for (int i = 0; i < kMaxRaises; ++i) {
    if (state_.label.covers(taint)) return std::nullopt;
    auto raised = decider().raise(state_, taint);
    if (std::holds_alternative<kernel::Refusal>(raised)) {
      prune_dead_files();
      raised = decider().raise(state_, taint);
    }
    if (auto* refusal = std::get_if<kernel::Refusal>(&raised)) return refuse(std::move(*refusal));
    const auto& raise = std::get<kernel::Raise>(raised);
    const uint64_t decided_on = changes_;
    if (const Status joined = join_held(lock, raise.to); !joined) {
      if (joined.error().code != EBUSY) fatal(joined.error().what);
      return refuse(decider().constraint(state_, joined.error().what));
    }
    if (changes_ != decided_on) continue;
    rise_alone(raise, 0, "the agent says at the tool gate that it has taken this in");
    return std::nullopt;
  }
  return refuse(decider().constraint(state_, "other agents change too much meanwhile"));
}

}  // namespace certgate::supervisor
