// The part of Session that is about its policy: what is held by which rule, what an observing run's
// own policy says, and another policy while the agent runs.
#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <map>
#include <utility>

#include "supervisor/confine.h"
#include "supervisor/recorded_policy.h"
#include "supervisor/report.h"
#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

int64_t steady_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// The rules of the last question, the first layer's first: what is done through the handle later is
// judged by them.
kernel::Held held_by(const kernel::Certificate& certificate, const kernel::Policy& policy) {
  kernel::Held out;
  for (size_t i = certificate.rules().size(); i-- > 0;) {
    out.rule = certificate.rules()[i].rule;
    if (policy.rules[out.rule].layer == 0) break;
    out.lower.push_back(out.rule);
  }
  return out;
}

}  // namespace

// What the policy itself says of a call that an observing run allows.
std::optional<kernel::Verdict> Session::strictly(const kernel::Call& call) {
  if (!strict_) return std::nullopt;
  const auto ask = [&] {
    std::swap(state_.held, strict_held_);
    kernel::Verdict verdict = strict_->decide(state_, call, now());
    std::swap(state_.held, strict_held_);
    return verdict;
  };
  kernel::Verdict verdict = ask();
  const auto* refusal = std::get_if<kernel::Refusal>(&verdict);
  if (refusal == nullptr || refusal->reason != kernel::Reason::kHeldWritable) return verdict;
  prune_dead_files();
  return ask();
}

void Session::keep(Judged& judged, const Hold& hold, const kernel::Call& call,
                   const std::optional<kernel::Verdict>& strict) {
  const kernel::Certificate& certificate = *judged.certificate;
  if (hold.kind == Hold::Kind::kNone || certificate.rules().empty()) return;
  Held held;
  held.id = judged.hold = next_hold_++;
  held.file = hold.file;
  held.labelled = hold.labelled;
  held.effect = call.effect;
  if (!certificate.approval().empty()) held.approved = certificate.digest();
  if (hold.pin >= 0) held.pin.reset(::fcntl(hold.pin, F_DUPFD_CLOEXEC, 0));
  held_.push_back(std::move(held));
  const bool file = hold.kind == Hold::Kind::kWritableFile;
  kernel::Held by = held_by(certificate, decider().policy());
  by.kind = file ? kernel::Held::Kind::kWritableFile : kernel::Held::Kind::kConnection;
  by.object = object_text(call.effect);
  if (strict) {
    const auto* would = std::get_if<kernel::Certificate>(&*strict);
    kernel::Held strictly = would != nullptr ? held_by(*would, strict_->policy()) : kernel::Held{};
    by.rule = static_cast<uint32_t>(decider().policy().rules.size() - 1);
    by.lower.clear();
    strictly.kind = by.kind;
    strictly.object = by.object;
    if (would == nullptr) strictly.rule = by.rule;
    strict_held_.push_back(std::move(strictly));
  }
  state_.held.push_back(std::move(by));
}

void Session::on_reload(std::function<void(const kernel::Policy&)> handler) {
  const std::lock_guard reloading(reload_mutex_);
  reloaded_ = std::move(handler);
}

// What was made at the start for one policy, and cannot be made again.
Status Session::can_reload(const kernel::Policy& policy) const {
  CG_CHECK(kernel::validate(policy));
  const kernel::Policy& old = decider().policy();
  if (strict_) return fail("an observing run keeps its policy; start the agent again");
  if (later_.size() >= kMaxReloads)
    return fail("64 reloads are what one run takes; start it again");
  if (policy.udp_ports() != old.udp_ports())
    return fail("the UDP ports that rules name are opened at the start; start the agent again");
  if (names_hosts(policy) && !names_hosts(first_.policy()))
    return fail("name services are loaded at the start, for policies that connect; start it again");
  const kernel::Digest digest = policy.digest();
  for (const kernel::Token& token : decider().chain()) {
    const bool own = token.holder == decider().holder();  // made for this run, whatever it decides
    if (!own && token.policy != kernel::Digest{} && token.policy != digest)
      return fail("token " + token.id + " was made for another policy");
  }
  return ok();
}

// As if each were asked for now, under the present label; what it used is used already.
Result<Session::Moved> Session::judge_held(const kernel::Decider& by) {
  Moved out;
  kernel::State state;
  state.label = state_.label;
  state.tokens = state_.tokens;
  state.seen = state_.seen;  // else each would be the first of its kind, and riskier
  // An approved one was asked about already; that its approval is used up is no reason to shut it.
  for (const Held& held : held_) {
    if (held.approved)
      state.approvals.push_back(
          {kernel::Approval::Answer::kApproved, {}, *held.approved, state_.label, INT64_MAX});
  }
  for (kernel::TokenState& token : state.tokens.of) token.meters.clear();
  for (size_t i = 0; i < held_.size(); ++i) {
    const kernel::Held& before = state_.held[i];
    const kernel::Verdict verdict = by.decide(state, {held_[i].effect, {}}, now());
    kernel::Held held;
    if (const auto* allowed = std::get_if<kernel::Certificate>(&verdict)) {
      if (!allowed->rules().empty()) held = held_by(*allowed, by.policy());
    } else if (before.kind == kernel::Held::Kind::kConnection) {
      out.shut.push_back(static_cast<uint32_t>(i));
    } else {
      const auto& refusal = std::get<kernel::Refusal>(verdict);
      return fail(escape(before.object) + " is open for writing, which the new policy refuses (" +
                  kernel::reason_text(refusal.reason) +
                  (refusal.rule.empty() ? "" : ", rule " + refusal.rule) + ")");
    }
    held.kind = before.kind;
    held.object = before.object;
    out.held.push_back(std::move(held));
  }
  return out;
}

Result<int64_t> Session::reload(kernel::Policy policy) {
  const std::lock_guard reloading(reload_mutex_);
  CG_CHECK(can_reload(policy));
  CG_CHECK(keep_pins(decider().policy(), policy));
  auto next = std::make_unique<const Ruling>(std::move(policy), decider());
  const kernel::Policy& old = decider().policy();
  std::map<std::string_view, size_t> places;
  for (size_t i = 0; i < old.rules.size(); ++i) places.emplace(old.rules[i].id, i);
  std::vector<size_t> from;  // by the new rule's index: the old one's, or none
  for (const kernel::Rule& rule : next->policy.rules) {
    const auto found = places.find(rule.id);
    from.push_back(found == places.end() ? SIZE_MAX : found->second);
  }
  std::vector<uint64_t> used(from.size());
  kernel::Record record;
  record.kind = kernel::RecordKind::kPolicyChange;
  record.object = hex(old.digest());
  const kernel::Digest digest = next->policy.digest();
  record.digest.assign(digest.begin(), digest.end());

  std::vector<kernel::Record> parts = policy_records(recorded_body(next->policy));

  const Lock lock = enter();
  const int64_t began = steady_ns();
  auto moved = judge_held(next->decider);
  if (!moved) {  // the kernel judges by what was opened; some of it may be closed
    prune_dead_files();
    moved = judge_held(next->decider);
  }
  if (!moved) return fail("the policy stays as it was: " + moved.error().what);
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) {
    fatal(seq.error().what);
    return seq.error();
  }
  for (kernel::Record& part : parts) {
    const auto added = recorder_.append(std::move(part), kernel::Durability::kOrdered);
    if (added) continue;
    fatal(added.error().what);
    return added.error();
  }
  for (size_t i = 0; i < from.size(); ++i)
    used[i] = from[i] < state_.used.size() ? state_.used[from[i]] : 0;
  state_.used.swap(used);
  state_.held.swap(moved->held);
  decider_.store(&next->decider);
  may_ask_.store(asks(next->policy));
  if (reloaded_) reloaded_(next->policy);
  later_.push_back(std::move(next));
  ++changes_;
  shut(moved->shut);
  return steady_ns() - began;
}

}  // namespace certgate::supervisor
