// The part of Session that refuses: how a refusal is recorded, and how it is told.
#include <cerrno>
#include <utility>

#include "supervisor/report.h"
#include "supervisor/session.h"

namespace certgate::supervisor {

Judged Session::refused(const CallInfo& info, const kernel::Call& call,
                        const kernel::Refusal& refusal, const std::string& intent) {
  Judged out;
  out.error = refusal.reason == kernel::Reason::kInternal ? EIO : EACCES;
  kernel::Record record = describe(info, call);
  record.kind = kernel::RecordKind::kRefusal;
  record.rule = refusal.rule;
  record.origins = refusal.decision.text();
  describe(refusal, record);
  record.lineage = lineage_.of(refusal.decision, kernel::kThisRecord);
  record.intent = intent;
  note_answer(refusal, record);
  record.error = static_cast<uint32_t>(out.error);
  if (report_ == Report::kSelfTest) record.grade = kernel::kSelfTestGrade;
  const kernel::Record copy = record;
  const auto* exec = std::get_if<kernel::ExecEffect>(&call.effect);
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered,
                                    exec == nullptr ? nullptr : &exec->env);
  if (!seq) {
    fatal(seq.error().what);
    return out;
  }
  out.seq = *seq;
  report(copy, *seq);
  return out;
}

int Session::refuse_constraint(const CallInfo& info, const std::string& object, kernel::Verb verb,
                               const std::string& why) {
  const std::lock_guard lock(mutex_);
  kernel::Call call;
  if (verb == kernel::Verb::kConnect) {
    kernel::ConnectEffect effect;
    effect.transport = kernel::Transport::kUnix;
    effect.path = object;
    call.effect = effect;
  } else if (verb == kernel::Verb::kExec) {
    kernel::ExecEffect effect;
    effect.images.push_back({object, {}, {}});
    call.effect = effect;
  } else {
    kernel::OpenEffect effect;
    effect.path = object;
    effect.write = verb == kernel::Verb::kWrite;
    effect.read = !effect.write;
    call.effect = effect;
  }
  return refused(info, call, decider().constraint(state_, why)).error;
}

Judged Session::refuse_unknown(const CallInfo& info, const kernel::Call& call,
                               const std::string& why) {
  const std::lock_guard lock(mutex_);
  kernel::Refusal refusal = decider().constraint(state_, why);
  refusal.reason = kernel::Reason::kInternal;
  return refused(info, call, refusal);
}

// What we rest on has failed: the call is refused and the agent ends.
Judged Session::failed(const CallInfo& info, const kernel::Call& call, const std::string& why) {
  kernel::Refusal refusal = decider().constraint(state_, why);
  refusal.reason = kernel::Reason::kInternal;
  const Judged out = refused(info, call, refusal);
  fatal(why);
  return Judged{.certificate = {}, .seq = out.seq, .hold = 0, .error = out.error};
}

void Session::refuse_name(const std::string& name) {
  const std::lock_guard lock(mutex_);
  kernel::Record record;
  record.kind = kernel::RecordKind::kRefusal;
  record.call = "resolve";
  record.verb = static_cast<uint8_t>(kernel::Verb::kConnect) + 1;
  record.object = name;
  record.reason = kernel::reason_text(kernel::Reason::kScopeMissing);
  record.origins = state_.label.text();
  record.lineage = lineage_.of(state_.label, 0);
  record.argument = "name";
  record.why = "no connect rule names this host";
  record.error = ENOENT;
  const kernel::Record copy = record;
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) return fatal(seq.error().what);
  report(copy, *seq);
}

void Session::report(const kernel::Record& record, uint64_t seq) {
  if (report_ == Report::kSelfTest) {
    ++reported_;
    return;
  }
  kernel::Record shown = record;
  shown.run = recorder_.run();
  shown.seq = seq;
  // A program that retries in a loop must not drown the operator; the log has every one.
  if (reported_ > kMaxReportedLines) return;
  const std::string key =
      shown.call + '\0' + shown.object + '\0' + shown.reason + '\0' + shown.rule;
  if (!reported_once_.insert(key).second) return;
  if (reported_++ == kMaxReportedLines) {
    print_line("certgate: further refusals are not printed; see: certgate audit list");
    return;
  }
  print_line(report_ == Report::kJson ? refusal_json(shown) : refusal_line(shown));
}

}  // namespace certgate::supervisor
