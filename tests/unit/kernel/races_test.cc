// Every interleaving of callers, an operator who ends tokens and another agent's raise, over the
// kernel's own decide(), raise() and apply(). Around them the steps of supervisor/session.cc (one
// lock a run, from snapshot to record; effects outside it) and supervisor/token_ledger.cc (one step
// for each access to what runs share) are spelled out as a program of steps, so that each of them
// can be left out or moved: each such variant must break a law here.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "kernel/decide.h"

namespace certgate::kernel {
namespace {

// What is done otherwise than in the product.
enum class Variant : uint8_t {
  kNone,
  kRootFirst,     // a chain's meters are taken the other way round
  kNoTake,        // a decision's count is stored, not taken
  kNoSecondLook,  // a call that waited does not ask again whether its token lives
  kCachedEpoch,   // the epoch is read when the run starts
  kLateHold,      // a write is held when it is performed, not when it is certified
  kRecordAfter,   // the record comes after the effect
  kNoFreeze,      // a raise does not wait for who is deciding
  kNeverAgain,    // a decision that could not take its count is performed all the same
};

constexpr const char* kPath = "/w/f";

Token token(const std::string& holder, uint64_t budget) {
  Token out;
  out.id = std::string(32, holder[0]);
  out.holder = holder;
  out.expires_ns = 1'000'000;
  out.budget = budget;
  out.scopes = every_scope();
  return out;
}

Policy policy() {
  Policy out;
  Rule rule;
  rule.id = "clean-only";
  rule.verbs = {Verb::kWrite};
  rule.paths = {PathPattern::parse("/w/**").value()};
  rule.accept = AcceptSet::parse({"operator", "user"}).value();
  out.rules.push_back(rule);
  return out;
}

Call write_call() {
  OpenEffect effect;
  effect.path = kPath;
  effect.write = true;
  return {effect, {}};
}

struct Scenario {
  // Each run's chain: the first token is one for all, the second one of these.
  uint64_t first_budget = 1;
  std::vector<uint64_t> second_budgets;
  std::vector<size_t> runs;     // which second token each run has
  std::vector<size_t> callers;  // which run each caller belongs to
  bool waits = false;           // calls wait before their effect, as on a FIFO
  bool operator_revokes = false, operator_rotates = false;
  bool raise_first_run = false;
};

enum class Step : uint8_t {
  kLock,
  kRead,
  kDecide,
  kTake,
  kGiveBack,
  kRecord,
  kWait,
  kLook,
  kPerform,
  kDone
};

struct Caller {
  Step step = Step::kLock;
  TokenStates snapshot;
  std::vector<MeterUse> uses;  // in the order in which they are taken
  size_t taken = 0;
  bool recorded = false, performed = false, refused = false;
  bool read_after_end = false, woke_after_end = false;
};

struct Run {
  State state;
  int locked_by = -1;
  bool frozen = false;
  size_t writing = 0;  // effects that are there
};

struct World {
  uint64_t epoch = 1, cached_epoch = 1;
  bool revoked = false, rotated = false, raised = false, raise_refused = false;
  int operator_step = 0, raise_step = 0;
  std::vector<uint64_t> used;  // [0] the first token's, [1 + i] a second one's
  std::vector<Run> runs;
  std::vector<Caller> callers;
};

class Checker {
 public:
  Checker(Scenario scenario, Variant variant)
      : scenario_(std::move(scenario)), variant_(variant), policy_(policy()) {
    for (const size_t second : scenario_.runs) {
      TokenChain chain{token("a", scenario_.first_budget),
                       token("run", scenario_.second_budgets[second])};
      deciders_.emplace_back(policy_, std::move(chain), "run");
    }
  }

  // The first law that some interleaving breaks; empty when none does.
  std::string explore() {
    World start;
    start.used.resize(1 + scenario_.second_budgets.size());
    start.runs.resize(scenario_.runs.size());
    start.callers.resize(scenario_.callers.size());
    for (Run& run : start.runs) {
      run.state.label = Label::parse("operator,user").value();
      run.state.used.resize(policy_.rules.size());
    }
    visit(start);
    return broken_;
  }
  size_t states() const { return seen_.size(); }

 private:
  Run& run_of(World& w, size_t caller) const { return w.runs[scenario_.callers[caller]]; }
  uint64_t& meter(World& w, size_t caller, const MeterUse& use) const {
    return w.used[use.token == 0 ? 0 : second_of(caller)];
  }
  size_t second_of(size_t caller) const { return 1 + scenario_.runs[scenario_.callers[caller]]; }
  void law(bool holds, const std::string& what) {
    if (!holds && broken_.empty()) broken_ = what;
  }

  void visit(const World& w) {
    if (!broken_.empty() || !seen_.insert(key(w)).second) return;
    bool moved = false;
    for (size_t c = 0; c < w.callers.size(); ++c) {
      World next = w;
      if (!step_caller(next, c)) continue;
      moved = true;
      check(next);
      visit(next);
    }
    for (const auto& other : {&Checker::step_operator, &Checker::step_raise}) {
      World next = w;
      if (!(this->*other)(next)) continue;
      moved = true;
      check(next);
      visit(next);
    }
    if (!moved) check_end(w);
  }

  bool step_caller(World& w, size_t c) {
    Caller& caller = w.callers[c];
    Run& run = run_of(w, c);
    switch (caller.step) {
      case Step::kLock:
        if (run.locked_by >= 0 || run.frozen) return false;
        run.locked_by = static_cast<int>(c);
        caller.step = Step::kRead;
        return true;
      case Step::kRead:
        read(w, c);
        caller.step = Step::kDecide;
        return true;
      case Step::kDecide:
        return decide(w, c), true;
      case Step::kTake:
        return take(w, c), true;
      case Step::kGiveBack:
        return give_back(w, c), true;
      case Step::kRecord:
        if (variant_ != Variant::kRecordAfter) caller.recorded = true;
        if (variant_ != Variant::kLateHold)
          run.state.held.push_back({Held::Kind::kWritableFile, 0, kPath});
        run.locked_by = -1;
        caller.step = scenario_.waits ? Step::kWait : Step::kPerform;
        return true;
      case Step::kWait:
        caller.woke_after_end = w.revoked || w.rotated;
        caller.step = variant_ == Variant::kNoSecondLook ? Step::kPerform : Step::kLook;
        return true;
      case Step::kLook:
        caller.refused = w.revoked || w.rotated;
        caller.step = caller.refused ? Step::kDone : Step::kPerform;
        return true;
      case Step::kPerform:
        return perform(w, c), true;
      case Step::kDone:
        return false;
    }
    return false;
  }

  void read(World& w, size_t c) const {
    const uint64_t epoch = variant_ == Variant::kCachedEpoch ? w.cached_epoch : w.epoch;
    w.callers[c].snapshot = {epoch,
                             {{w.revoked, {{w.used[0], 0}}}, {false, {{w.used[second_of(c)], 0}}}}};
    w.callers[c].read_after_end = w.revoked || w.rotated;
  }

  void decide(World& w, size_t c) {
    Caller& caller = w.callers[c];
    Run& run = run_of(w, c);
    run.state.tokens = caller.snapshot;
    Verdict verdict = deciders_[scenario_.callers[c]].decide(run.state, write_call(), {});
    if (std::holds_alternative<Refusal>(verdict)) {
      caller.refused = true;
      caller.step = Step::kDone;
      run.locked_by = -1;
      return;
    }
    law(!caller.read_after_end, "a call is allowed that was decided after its token's end");
    const Certificate& certificate = std::get<Certificate>(verdict);
    caller.uses = certificate.meters();
    if (variant_ == Variant::kRootFirst) std::reverse(caller.uses.begin(), caller.uses.end());
    caller.taken = 0;
    caller.step = caller.uses.empty() ? Step::kRecord : Step::kTake;
  }

  void take(World& w, size_t c) const {
    Caller& caller = w.callers[c];
    const MeterUse& use = caller.uses[caller.taken];
    uint64_t& used = meter(w, c, use);
    if (variant_ == Variant::kNoTake) {
      used = use.used;
    } else if (used < use.budget) {
      ++used;
    } else if (variant_ == Variant::kNeverAgain) {
      caller.step = Step::kRecord;
      return;
    } else {
      caller.step = caller.taken > 0 ? Step::kGiveBack : Step::kRead;
      return;
    }
    if (++caller.taken == caller.uses.size()) caller.step = Step::kRecord;
  }

  void give_back(World& w, size_t c) const {
    Caller& caller = w.callers[c];
    --meter(w, c, caller.uses[--caller.taken]);
    if (caller.taken == 0) caller.step = Step::kRead;
  }

  void perform(World& w, size_t c) {
    Caller& caller = w.callers[c];
    Run& run = run_of(w, c);
    law(caller.recorded, "an effect without a record");
    if (variant_ == Variant::kLateHold)
      run.state.held.push_back({Held::Kind::kWritableFile, 0, kPath});
    caller.performed = true;
    ++run.writing;
    caller.step = Step::kDone;
    law(!caller.woke_after_end, "a call that waited is performed after its token's end");
  }

  bool step_operator(World& w) {
    if (w.operator_step != 0 || !(scenario_.operator_revokes || scenario_.operator_rotates))
      return false;
    w.operator_step = 1;
    if (scenario_.operator_revokes) w.revoked = true;
    if (scenario_.operator_rotates) {
      w.rotated = true;
      ++w.epoch;
    }
    return true;
  }

  // Another agent taints what the first run may be reading: prepare (can it?), then take.
  bool step_raise(World& w) {
    if (!scenario_.raise_first_run) return false;
    Run& run = w.runs[0];
    const Label tainted = Label::parse("operator,user,web:page.test").value();
    if (w.raise_step == 0) {
      if (run.locked_by >= 0 && variant_ != Variant::kNoFreeze) return false;
      w.raise_refused = std::holds_alternative<Refusal>(deciders_[0].raise(run.state, tainted));
      run.frozen = !w.raise_refused && variant_ != Variant::kNoFreeze;
      w.raise_step = w.raise_refused ? 2 : 1;
      return true;
    }
    if (w.raise_step != 1) return false;
    run.state.label = run.state.label.join(tainted);
    run.frozen = false;
    w.raised = true;
    w.raise_step = 2;
    return true;
  }

  void check(const World& w) {
    uint64_t all = 0;
    std::vector<uint64_t> of_second(scenario_.second_budgets.size());
    for (size_t c = 0; c < w.callers.size(); ++c) {
      if (!w.callers[c].performed) continue;
      ++all;
      ++of_second[second_of(c) - 1];
    }
    law(all <= scenario_.first_budget, "more calls than the budget");
    for (size_t i = 0; i < of_second.size(); ++i)
      law(of_second[i] <= scenario_.second_budgets[i],
          "more calls than the budget of a token further on");
    const bool tainted = w.raised && w.runs[0].writing > 0;
    law(!tainted, "a clean-only file is written by an agent that is tainted");
  }

  // Nothing can move: whoever was refused was refused for a reason that is true.
  void check_end(const World& w) {
    uint64_t performed = 0;
    for (const Caller& caller : w.callers) {
      law(caller.step == Step::kDone, "a caller waits for ever");
      performed += caller.performed ? 1 : 0;
    }
    if (scenario_.operator_revokes || scenario_.operator_rotates || scenario_.raise_first_run)
      return;
    std::vector<uint64_t> wanted(scenario_.second_budgets.size());
    for (size_t c = 0; c < w.callers.size(); ++c) ++wanted[second_of(c) - 1];
    uint64_t possible = 0;
    for (size_t i = 0; i < wanted.size(); ++i)
      possible += std::min(wanted[i], scenario_.second_budgets[i]);
    law(performed == std::min(possible, scenario_.first_budget), "a call of the budget is lost");
  }

  std::string key(const World& w) const {
    std::ostringstream out;
    out << w.epoch << w.revoked << w.rotated << w.raised << w.operator_step << w.raise_step << ';';
    for (const uint64_t used : w.used) out << used << ',';
    for (const Run& run : w.runs)
      out << run.locked_by << run.frozen << run.writing << run.state.held.size()
          << run.state.label.text() << ';';
    for (const Caller& c : w.callers) {
      out << static_cast<int>(c.step) << c.taken << c.recorded << c.performed << c.refused
          << c.read_after_end << c.woke_after_end << ':' << c.snapshot.epoch;
      for (const TokenState& t : c.snapshot.of) out << t.revoked << t.meters[0].used;
      for (const MeterUse& use : c.uses) out << use.token << use.used;
      out << ';';
    }
    return out.str();
  }

  const Scenario scenario_;
  const Variant variant_;
  const Policy policy_;
  std::vector<Decider> deciders_;
  std::set<std::string> seen_;
  std::string broken_;
};

std::string broken(const Scenario& scenario, Variant variant, size_t* states = nullptr) {
  Checker checker(scenario, variant);
  std::string out = checker.explore();
  if (states != nullptr) *states = checker.states();
  return out;
}

// Four callers in three runs; two of the runs share their second token.
const Scenario kBudget{
    .first_budget = 2, .second_budgets = {1, 5}, .runs = {0, 0, 1}, .callers = {0, 1, 2, 2}};
const Scenario kOneToken{
    .first_budget = 2, .second_budgets = {9}, .runs = {0, 0, 0}, .callers = {0, 0, 1, 2}};
const Scenario kRevoked{.first_budget = 9,
                        .second_budgets = {9},
                        .runs = {0, 0},
                        .callers = {0, 0, 1},
                        .waits = true,
                        .operator_revokes = true};
const Scenario kRotated{.first_budget = 2,
                        .second_budgets = {9},
                        .runs = {0, 0},
                        .callers = {0, 1, 1},
                        .waits = true,
                        .operator_rotates = true};
const Scenario kRaised{.first_budget = 9,
                       .second_budgets = {9},
                       .runs = {0, 0},
                       .callers = {0, 0, 1},
                       .waits = true,
                       .raise_first_run = true};
const Scenario kAll{.first_budget = 2,
                    .second_budgets = {1, 9},
                    .runs = {0, 1},
                    .callers = {0, 1, 1},
                    .waits = true,
                    .operator_revokes = true,
                    .raise_first_run = true};

TEST(Races, NoInterleavingBreaksALaw) {
  size_t all = 0;
  for (const Scenario& scenario : {kBudget, kOneToken, kRevoked, kRotated, kRaised, kAll}) {
    size_t states = 0;
    EXPECT_EQ(broken(scenario, Variant::kNone, &states), "");
    EXPECT_GT(states, 500u);
    all += states;
  }
  RecordProperty("states", static_cast<int>(all));
}

TEST(Races, EachStepIsNeeded) {
  struct Row {
    Variant variant;
    const Scenario& scenario;
    const char* breaks;
  };
  const Row kRows[] = {
      {Variant::kRootFirst, kBudget, "a call of the budget is lost"},
      {Variant::kNoTake, kOneToken, "more calls than the budget"},
      {Variant::kNeverAgain, kOneToken, "more calls than the budget"},
      {Variant::kNoSecondLook, kRevoked, "a call that waited is performed after its token's end"},
      {Variant::kCachedEpoch, kRotated, "a call is allowed that was decided after its token's end"},
      {Variant::kLateHold, kRaised, "a clean-only file is written by an agent that is tainted"},
      {Variant::kNoFreeze, kRaised, "a clean-only file is written by an agent that is tainted"},
      {Variant::kRecordAfter, kBudget, "an effect without a record"},
  };
  for (const Row& row : kRows)
    EXPECT_EQ(broken(row.scenario, row.variant), row.breaks) << static_cast<int>(row.variant);
}

}  // namespace
}  // namespace certgate::kernel
