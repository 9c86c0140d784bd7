// The session's side of approvals (approvals.h): what is asked, recorded and remembered.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <time.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "supervisor/report.h"
#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

constexpr int64_t kUsedWithin_ns = 60'000'000'000;  // an approval, by the call that is woken
constexpr size_t kMaxAnswers = 256;                 // remembered
constexpr size_t kMaxShownBytes = 160;
constexpr size_t kMaxCameIn = 32;

int64_t now_ns(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// Every part of the effect that the digest covers and an operator can judge.
struct Fill {
  ApprovalRequest& out;

  void operator()(const kernel::OpenEffect& e) const {
    out.verb = e.write ? (e.read ? "read and write" : "write") : "read";
    out.how = e.how;
    if (!e.how.empty()) return;
    out.how = fmt::format("flags {:#o}", e.flags);
    if (e.create) out.how += fmt::format(", a new file of mode {:#o}", e.mode);
  }
  void operator()(const kernel::ExecEffect& e) const {
    out.verb = kernel::verb_text(kernel::Verb::kExec);
    out.argv = e.argv;
    out.env = e.env;
    out.cwd = e.cwd;
    for (const kernel::ExecImage& image : e.images)
      out.images.push_back(hex(image.sha256) + " " + image.path);
  }
  void operator()(const kernel::ConnectEffect&) const {
    out.verb = kernel::verb_text(kernel::Verb::kConnect);
  }
};

std::string asking_line(const ApprovalRequest& request, const std::string& id,
                        const std::string& options) {
  std::string what = request.verb + ' ' + escape(request.object);
  for (size_t i = 1; i < request.argv.size(); ++i) what += ' ' + escape(request.argv[i]);
  if (what.size() > kMaxShownBytes) {
    size_t cut = kMaxShownBytes;
    while (cut > 0 && (static_cast<unsigned char>(what[cut]) & 0xc0) == 0x80) --cut;
    what = what.substr(0, cut) + " …";
  }
  return fmt::format(
      "certgate: waits for approval: {} (rule {}: {}; risk {}); see: certgate approvals{}; answer: "
      "certgate approve {}{}",
      what, escape(request.rule), escape(request.why), kernel::risk_text(request.risk), options, id,
      options);
}

}  // namespace

bool asks(const kernel::Policy& policy) {
  return std::any_of(policy.risk.begin(), policy.risk.end(),
                     [](kernel::Effect e) { return e == kernel::Effect::kAsk; }) ||
         std::any_of(policy.rules.begin(), policy.rules.end(),
                     [](const kernel::Rule& rule) { return rule.effect == kernel::Effect::kAsk; });
}

uint64_t request_seq(const std::string& approval) {
  uint64_t seq = 0;
  const size_t dash = approval.rfind('-');
  if (dash == std::string::npos) return 0;
  std::from_chars(approval.data() + dash + 1, approval.data() + approval.size(), seq);
  return seq;
}

std::optional<Judged> Session::ask_first(const CallInfo& info, const kernel::Call& call) {
  if (!may_ask_) return std::nullopt;
  const Lock lock = enter();
  const kernel::Verdict verdict = decide(call);
  const auto* refusal = std::get_if<kernel::Refusal>(&verdict);
  if (refusal == nullptr || refusal->reason != kernel::Reason::kApprovalRequired)
    return std::nullopt;
  return ask(info, call, *refusal);
}

Judged Session::ask(const CallInfo& info, const kernel::Call& call,
                    const kernel::Refusal& refusal) {
  if (refusal.reason != kernel::Reason::kApprovalRequired || info.waits == Waits::kNo ||
      approvals_ == nullptr)
    return refused(info, call, refusal);
  Judged out;
  out.asks = approvals_->again(info.pid, refusal.digest, refusal.decision);
  if (out.asks != 0) return out;
  ApprovalRequest request;
  std::visit(Fill{request}, call.effect);
  request.seq = UINT64_MAX;  // the longest
  request.pid = static_cast<uint32_t>(info.pid);
  request.digest = refusal.digest;
  request.risk = refusal.risk;
  request.deadline_ns = now_ns(CLOCK_REALTIME) + static_cast<int64_t>(refusal.deadline_ns);
  request.call = info.call;
  request.object = object_text(call.effect);
  request.rule = refusal.rule;
  request.why = refusal.why;
  request.label = refusal.decision.text();
  request.came_in = came_in_;
  kernel::Refusal not_asked = refusal;
  if (request.encode().size() > kMaxRequestBytes) {
    not_asked.why = "more than 32 KiB of arguments and environment: no operator could be shown all";
    return refused(info, call, not_asked);
  }
  if (approvals_->full()) {
    not_asked.why = "64 calls of this agent wait for an approval already";
    return refused(info, call, not_asked);
  }
  kernel::Record record = describe(info, call);
  record.kind = kernel::RecordKind::kApproval;
  record.grade = "asked";
  record.rule = refusal.rule;
  record.why = refusal.why;
  record.origins = request.label;
  record.digest.assign(refusal.digest.begin(), refusal.digest.end());
  record.risk = static_cast<uint8_t>(refusal.risk);
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) {
    fatal(seq.error().what);
    out.error = EIO;
    return out;
  }
  request.seq = *seq;
  Waiting waiting;
  waiting.seq = *seq;
  waiting.tid = info.pid;
  waiting.digest = refusal.digest;
  waiting.label = refusal.decision;
  waiting.object = request.object;
  waiting.lasts_ns = static_cast<int64_t>(refusal.deadline_ns);
  waiting.deadline_ns = now_ns(CLOCK_BOOTTIME) + waiting.lasts_ns;
  if (const Status sent = approvals_->add(waiting, request); !sent) {
    note_approval(waiting, "withdrawn", {});
    not_asked.why = "nobody could be asked: " + sent.error().what;
    return refused(info, call, not_asked);
  }
  out.asks = *seq;
  if (report_ == Report::kText && reported_ <= kMaxReportedLines) {
    ++reported_;
    print_line(
        asking_line(request, recorder_.run() + "-" + std::to_string(*seq), approvals_->options()));
  }
  return out;
}

void Session::note_approval(const Waiting& waiting, const char* what,
                            const ApprovalAnswer& answer) {
  kernel::Record record;
  record.kind = kernel::RecordKind::kApproval;
  record.grade = what;
  record.ref = waiting.seq;
  record.object = waiting.object;
  record.origins = waiting.label.text();
  record.digest.assign(waiting.digest.begin(), waiting.digest.end());
  record.argument = answer.who;
  record.why = answer.why;
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) fatal(seq.error().what);
}

void Session::answered(const Waiting& waiting, const ApprovalAnswer& answer) {
  using Answer = kernel::Approval::Answer;
  const Lock lock(mutex_);
  const char* what = "expired";
  int64_t lasts_ns = kUsedWithin_ns;
  if (answer.answer == Answer::kApproved) what = "approved";
  if (answer.answer == Answer::kDenied) {
    what = "denied";
    lasts_ns = waiting.lasts_ns;  // who asks again and again is answered without an operator
  }
  note_approval(waiting, what, answer);
  auto& all = state_.approvals;
  const int64_t now = now_ns(CLOCK_BOOTTIME);
  std::erase_if(all, [now](const kernel::Approval& one) { return now >= one.until_ns; });
  if (all.size() >= kMaxAnswers) all.erase(all.begin());
  all.push_back({answer.answer, recorder_.run() + "-" + std::to_string(waiting.seq), waiting.digest,
                 waiting.label, now + lasts_ns});
}

void Session::withdrawn(const Waiting& waiting) {
  const Lock lock(mutex_);
  permits_.drop_kept(waiting.tid);
  note_approval(waiting, "withdrawn", {});
}

// A refusal names the request; the news that nobody answered is told once.
void Session::note_answer(const kernel::Refusal& refusal, kernel::Record& record) {
  record.risk = static_cast<uint8_t>(refusal.risk);
  if (refusal.argument == "risk")
    record.why =
        fmt::format("the policy forbids calls of {} risk", kernel::risk_text(refusal.risk));
  record.ref = request_seq(refusal.approval);
  if (refusal.digest != kernel::Digest{})
    record.digest.assign(refusal.digest.begin(), refusal.digest.end());
  if (refusal.reason != kernel::Reason::kApprovalExpired) return;
  std::erase_if(state_.approvals,
                [&](const kernel::Approval& one) { return one.id == refusal.approval; });
}

void Session::note_rise(const kernel::Label& to, uint64_t seq, const std::string& by) {
  for (const kernel::Origin& origin : to.origins()) {
    if (came_in_.size() >= kMaxCameIn) return;
    if (state_.label.covers(kernel::Label::of({origin}))) continue;
    came_in_.push_back(fmt::format("{} by {}-{} {}", origin.text(), recorder_.run(), seq,
                                   by.substr(0, kMaxShownBytes)));
  }
}

}  // namespace certgate::supervisor
