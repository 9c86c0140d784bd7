// Every interleaving of callers that must be approved, an agent that rewrites what it asked for, a
// label that rises and an operator, over the kernel's own decide() and apply(). The steps are those
// of supervisor/session_ask.cc and approvals.cc; each variant leaves one of them out.
#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

enum class Variant : uint8_t {
  kNone,
  kNotDecodedAgain,  // after the answer the call goes on as memory says now, not judged anew
  kNotUsedUp,        // a certificate leaves its approval
  kAnyLabel,         // an approval does not say under which label it was given
  kAnyAction,        // an approval is for whatever its caller asks for when it comes
  kDenialIsNothing,  // a denied call waits on
};

constexpr const char* kPaths[] = {"/w/shown", "/w/other"};

Call call_on(size_t path) {
  OpenEffect effect;
  effect.path = kPaths[path];
  effect.write = true;
  return {effect, {}};
}

Policy policy() {
  Policy out;
  Rule rule;
  rule.id = "ask";
  rule.effect = Effect::kAsk;
  rule.verbs = {Verb::kWrite};
  rule.paths = {PathPattern::parse("/w/**").value()};
  rule.accept = AcceptSet::parse({"user", "web:*"}).value();
  out.rules.push_back(rule);
  return out;
}

Token token() {
  Token out;
  out.holder = "run";
  out.expires_ns = 1000;
  out.scopes = every_scope();
  return out;
}

enum class Step : uint8_t { kDecode, kJudge, kWaiting, kPerform, kDone };

struct Caller {
  Step step = Step::kDecode;
  size_t memory = 0;  // which path its argument names now
  size_t pinned = 0;  // which one was decoded
  Label asked_under;
  size_t rounds = 0;
  bool answered = false, performed = false, refused = false;
};

struct Grant {
  size_t path = 0;
  Label label;
};

struct World {
  State state;
  std::vector<Caller> callers;
  std::vector<Grant> granted;  // by the operator
  std::vector<Grant> effects;  // that happened, under which label they were certified
  size_t approvals_left = 1;   // then the operator says no
  bool changed = false, raised = false;
  size_t ids = 0;
};

class Checker {
 public:
  Checker(size_t callers, size_t approvals, Variant variant)
      : variant_(variant), policy_(policy()), decider_(policy_, token()) {
    start_.state.label = Label::parse("user").value();
    start_.state.used.resize(1);
    start_.callers.resize(callers);
    start_.approvals_left = approvals;
  }
  std::string explore() {
    visit(start_);
    return broken_;
  }
  size_t states() const { return seen_.size(); }

 private:
  void law(bool holds, const std::string& what) {
    if (!holds && broken_.empty()) broken_ = what;
  }

  void visit(const World& w) {
    if (!broken_.empty() || !seen_.insert(key(w)).second) return;
    bool moved = false;
    const auto go = [&](auto step) {
      World next = w;
      if (!step(next)) return;
      moved = true;
      check(next);
      visit(next);
    };
    for (size_t c = 0; c < w.callers.size(); ++c) {
      go([&](World& next) { return step(next, c); });
      go([&](World& next) { return answer(next, c); });
    }
    go([&](World& next) { return change(next); });
    go([&](World& next) { return raise(next); });
    if (moved) return;
    for (const Caller& caller : w.callers)
      law(caller.step == Step::kDone, "a caller waits for ever");
  }

  // judge() is one step: it holds the session's lock.
  bool step(World& w, size_t c) {
    Caller& caller = w.callers[c];
    switch (caller.step) {
      case Step::kDecode:
        caller.pinned = caller.memory;
        caller.step = Step::kJudge;
        return true;
      case Step::kJudge:
        judge(w, caller);
        return true;
      case Step::kWaiting:
        if (!caller.answered) return false;
        caller.answered = false;
        if (variant_ == Variant::kNotDecodedAgain) {
          std::erase_if(w.state.approvals, [&](const Approval& a) {
            return a.digest == action_digest(call_on(caller.pinned).effect);
          });
          caller.pinned = caller.memory;
          w.effects.push_back({caller.pinned, w.state.label});
          caller.step = Step::kPerform;
        } else {
          caller.step = Step::kDecode;
        }
        return true;
      case Step::kPerform:
        caller.performed = true;
        caller.step = Step::kDone;
        return true;
      case Step::kDone:
        return false;
    }
    return false;
  }

  void judge(World& w, Caller& caller) {
    const Verdict verdict = decider_.decide(w.state, call_on(caller.pinned), {1, 1, 1});
    if (const auto* refusal = std::get_if<Refusal>(&verdict)) {
      if (refusal->reason != Reason::kApprovalRequired) {
        caller.refused = true;
        caller.step = Step::kDone;
        return;
      }
      caller.asked_under = refusal->decision;
      caller.step = Step::kWaiting;
      law(++caller.rounds < 8, "a caller asks for ever");
      return;
    }
    const auto& certificate = std::get<Certificate>(verdict);
    w.effects.push_back({caller.pinned, certificate.decision_label()});
    if (variant_ != Variant::kNotUsedUp) apply(w.state, certificate);
    caller.step = Step::kPerform;
  }

  bool answer(World& w, size_t c) {
    Caller& caller = w.callers[c];
    if (caller.step != Step::kWaiting || caller.answered) return false;
    const bool yes = w.approvals_left > 0;
    Approval approval;
    approval.answer = yes ? Approval::Answer::kApproved : Approval::Answer::kDenied;
    approval.id = std::to_string(++w.ids);
    approval.label =
        variant_ == Variant::kAnyLabel ? Label::parse("user,web:x").value() : caller.asked_under;
    const size_t shown = caller.pinned;
    const size_t meant = variant_ == Variant::kAnyAction ? caller.memory : shown;
    approval.digest = action_digest(call_on(meant).effect);
    approval.until_ns = 1000;
    if (yes) {
      --w.approvals_left;
      w.granted.push_back({shown, caller.asked_under});
    }
    if (!yes && variant_ == Variant::kDenialIsNothing) return false;
    w.state.approvals.push_back(std::move(approval));
    caller.answered = true;
    return true;
  }

  bool change(World& w) const {
    if (w.changed || w.callers[0].step == Step::kDone) return false;
    w.changed = true;
    w.callers[0].memory = 1;
    return true;
  }

  bool raise(World& w) const {
    if (w.raised) return false;
    w.raised = true;
    w.state.label = w.state.label.join(Label::parse("web:x").value());
    return true;
  }

  // Each effect has an approval of its own: of that path, under no less than its label.
  void check(const World& w) {
    std::vector<Grant> left = w.granted;
    for (const Grant& effect : w.effects) {
      const auto of_path = [&](const Grant& g) { return g.path == effect.path; };
      law(std::any_of(w.granted.begin(), w.granted.end(), of_path),
          "an effect that nobody was shown");
      law(std::any_of(w.granted.begin(), w.granted.end(),
                      [&](const Grant& g) { return of_path(g) && g.label.covers(effect.label); }),
          "an effect under a label that nobody was shown");
      const auto at = std::find_if(left.begin(), left.end(), of_path);
      law(at != left.end(), "an approval is used twice");
      if (at != left.end()) left.erase(at);
    }
  }

  static std::string key(const World& w) {
    std::ostringstream out;
    out << w.changed << w.raised << w.approvals_left << w.state.label.text() << ';';
    for (const Caller& c : w.callers)
      out << static_cast<int>(c.step) << c.memory << c.pinned << c.answered << c.performed
          << c.refused << c.rounds << c.asked_under.text() << ';';
    for (const Approval& a : w.state.approvals)
      out << static_cast<int>(a.answer) << a.id << static_cast<int>(a.digest[0]) << a.label.text();
    for (const auto* list : {&w.granted, &w.effects}) {
      out << '|';
      for (const Grant& g : *list) out << g.path << g.label.text() << ',';
    }
    return out.str();
  }

  const Variant variant_;
  const Policy policy_;
  const Decider decider_;
  World start_;
  std::set<std::string> seen_;
  std::string broken_;
};

TEST(ApprovalRaces, NoInterleavingBreaksALaw) {
  for (const size_t approvals : {0u, 1u, 2u, 3u}) {
    Checker checker(approvals == 1 ? 3 : 2, approvals, Variant::kNone);
    EXPECT_EQ(checker.explore(), "") << approvals;
    EXPECT_GT(checker.states(), 100u);
  }
}

TEST(ApprovalRaces, EachStepIsNeeded) {
  struct Row {
    Variant variant;
    size_t callers;
    const char* breaks;
  };
  const Row kRows[] = {
      {Variant::kNotDecodedAgain, 1, "an effect that nobody was shown"},
      {Variant::kNotUsedUp, 2, "an approval is used twice"},
      {Variant::kAnyLabel, 2, "an effect under a label that nobody was shown"},
      {Variant::kAnyAction, 1, "an effect that nobody was shown"},
      {Variant::kDenialIsNothing, 2, "a caller waits for ever"},
  };
  for (const Row& row : kRows) {
    Checker checker(row.callers, 1, row.variant);
    EXPECT_EQ(checker.explore(), row.breaks) << static_cast<int>(row.variant);
  }
}

}  // namespace
}  // namespace certgate::kernel
