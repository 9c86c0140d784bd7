#include "supervisor/session.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "kernel/mutant.h"
#include "supervisor/path_walk.h"
#include "supervisor/report.h"
#include "supervisor/tool_sources.h"

namespace certgate::supervisor {
namespace {

int64_t boot_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

std::string rule_ids(const kernel::Certificate& certificate, const kernel::Policy& policy) {
  std::string out;
  for (const auto& use : certificate.rules()) {
    const std::string& id = policy.rules[use.rule].id;
    if (out == id) continue;
    if (!out.empty()) out += '+';
    out += id;
  }
  return out;
}

// Plus 1; 0 = no limit.
uint64_t calls_left(const kernel::Certificate& certificate) {
  uint64_t left = UINT64_MAX;
  for (const kernel::MeterUse& use : certificate.meters()) {
    if (use.budget != 0) left = std::min(left, use.budget - use.used);
  }
  return left == UINT64_MAX ? 0 : left + 1;
}

const std::vector<std::string>* environment_of(const kernel::Call& call) {
  const auto* exec = std::get_if<kernel::ExecEffect>(&call.effect);
  return exec == nullptr ? nullptr : &exec->env;
}

// Another agent's raise, or a file's death, may come while a call waits for the label store.
constexpr int kMaxDecisions = 16;

}  // namespace

Session::Session(kernel::Decider decider, kernel::Label initial, Recorder& recorder,
                 LabelView labels, ReaderTable& readers, Channel& channel, TokenLedger& ledger,
                 Report report, std::optional<kernel::Decider> strict)
    : first_(std::move(decider)),
      strict_(std::move(strict)),
      decider_(&first_),
      recorder_(recorder),
      labels_(std::move(labels)),
      readers_(readers),
      channel_(channel),
      ledger_(ledger),
      report_(report),
      may_ask_(asks(first_.policy())),
      started_ns_(boot_ns()) {
  state_.label = std::move(initial);
  lineage_ = Lineage(state_.label);
  state_.used.resize(first_.policy().rules.size());
}

kernel::Instant Session::now() const {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  const int64_t boot = boot_ns();
  return {int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec, boot - started_ns_, boot};
}

kernel::Label Session::label() const {
  const std::lock_guard lock(mutex_);
  return state_.label;
}

size_t Session::refusals() const {
  const std::lock_guard lock(mutex_);
  return reported_;
}

void Session::fatal(const std::string& what) const {
  if (recorder_.closed()) return;  // the run has ended; whoever is left has lost its caller
  if (fatal_) fatal_(what);
}

Result<kernel::Label> Session::file_label(const kernel::FileIdentity& file, const std::string& path,
                                          Reads reads) const {
  if (reads == Reads::kFromNowOn) readers_.note(file);  // first: see reader_table.h
  CG_TRY(std::optional<kernel::Label> stored, labels_.find(file));
  // Whoever wrote it, and under what policy: what lies there is secret.
  if (stored) return stored->join(decider().policy().zone_secrecy(path));
  return decider().policy().zone_label(path);
}

Session::Lock Session::enter() const {
  Lock lock(mutex_);
  free_.wait(lock, [this] { return !joining_ && !frozen_; });
  return lock;
}

bool Session::make_durable() {
  const Status done = recorder_.make_durable();
  if (!done) fatal(done.error().what);
  return static_cast<bool>(done);
}

// The session's lock is not held while the disk is waited for, so that one wait is for all.
Judged Session::judge(const CallInfo& info, const kernel::Call& call, const Hold& hold,
                      const Mark& mark) {
  Judged out = judge_ordered(info, call, hold, mark);
  const bool strict =
      out.certificate && out.certificate->durability() == kernel::Durability::kStrict;
  if (!strict || info.durable_later || make_durable()) return out;
  return Judged{.certificate = {}, .seq = 0, .hold = 0, .error = EIO};
}

Judged Session::judge(Lock& lock, const CallInfo& info, const kernel::Call& call, const Hold& hold,
                      const Mark& mark) {
  if (hold.kind != Hold::Kind::kNone && held_.size() >= kPruneHeldAt) prune_dead_files();
  if (hold.kind != Hold::Kind::kNone && held_.size() >= kMaxHeld) {
    return refused(info, call,
                   decider().constraint(state_, "more than 4096 files or connections held open"));
  }
  for (int i = 0; i < kMaxDecisions; ++i) {
    kernel::Verdict verdict = decide(call);
    if (auto* refusal = std::get_if<kernel::Refusal>(&verdict)) return ask(info, call, *refusal);
    auto& certificate = std::get<kernel::Certificate>(verdict);
    const uint64_t decided_on = changes_;
    if (const Status joined = join_before(lock, certificate, hold, mark); !joined) {
      if (joined.error().code == EBUSY)
        return refused(info, call, decider().constraint(state_, joined.error().what));
      return failed(info, call, joined.error().what);
    }
    if (changes_ != decided_on) continue;
    const Result<bool> taken = take_meters(certificate);
    if (!taken) return failed(info, call, taken.error().what);
    if (*taken) return certify(info, call, hold, std::move(certificate));
  }
  return refused(info, call,
                 decider().constraint(state_, "other agents change too much meanwhile"));
}

Result<bool> Session::take_meters(const kernel::Certificate& certificate) {
  if (certificate.meters().empty()) return true;
  return ledger_.take(certificate.meters(), boot_ns());
}

kernel::Verdict Session::decide(const kernel::Call& call) {
  ledger_.read(state_.tokens);
  kernel::Verdict verdict = decider().decide(state_, call, now());
  const auto* refusal = std::get_if<kernel::Refusal>(&verdict);
  if (refusal == nullptr || refusal->reason != kernel::Reason::kHeldWritable) return verdict;
  // The kernel judges by what was opened; ask the system which of those are still open.
  prune_dead_files();
  return decider().decide(state_, call, now());
}

Judged Session::certify(const CallInfo& info, const kernel::Call& call, const Hold& hold,
                        kernel::Certificate decided) {
  Judged out;
  out.certificate.emplace(std::move(decided));
  out.policy = &decider().policy();
  const kernel::Certificate& certificate = *out.certificate;
  const std::optional<kernel::Verdict> strict = strictly(call);
  const auto* observed = strict ? std::get_if<kernel::Refusal>(&*strict) : nullptr;
  kernel::Record record = describe(info, call);
  record.kind = kernel::RecordKind::kCertificate;
  record.rule = rule_ids(certificate, decider().policy());
  record.origins = certificate.decision_label().text();
  const bool raises = !(certificate.raised_to() == state_.label);
  if (raises) record.raised = certificate.raised_to().text();
  record.digest.assign(certificate.digest().begin(), certificate.digest().end());
  record.count = calls_left(certificate);
  record.detail = certificate.detail();
  record.lineage = lineage_.of(certificate.decision_label(), kernel::kThisRecord);
  record.ref = request_seq(certificate.approval());
  record.risk = static_cast<uint8_t>(certificate.risk().level);
  record.tool = certificate.tool();
  record.sources = sources_text(decider().policy(), certificate.tool(), call);
  if (observed != nullptr) {
    describe(*observed, record);
    record.grade = kernel::kObservedGrade;
  }
  std::optional<kernel::Record> shown;
  if (observed != nullptr) shown = record;
  const auto seq =
      recorder_.append(std::move(record), kernel::Durability::kOrdered, environment_of(call));
  if (!seq) {
    fatal(seq.error().what);
    return Judged{.certificate = {}, .seq = 0, .hold = 0, .error = EIO};
  }
  out.seq = *seq;
  if (shown) report(*shown, *seq);
  shut(certificate.shut());
  lineage_.rise(certificate.raised_to(), *seq);
  if (raises) ++changes_, note_rise(certificate.raised_to(), *seq, object_text(call.effect));
  kernel::apply(state_, certificate);
  keep(out, hold, call, strict);
  return out;
}

// The lock is given up meanwhile: whoever calls this must look at `changes_` afterwards.
Status Session::join(Lock& lock, const kernel::FileIdentity& file, const kernel::Label& label) {
  CG_TRY(const std::optional<kernel::Label> stored, labels_.find(file));
  if (stored && stored->covers(label)) return ok();
  joining_ = true;
  lock.unlock();
  const Status joined = channel_.join_file(file, label);
  lock.lock();
  free_.wait(lock, [this] { return !frozen_; });
  joining_ = false;
  free_.notify_all();
  return joined;
}

// Before the call is certified: what it will change carries the label, and so does what stays open
// for writing while the label rises. A new file has no reader yet; settle_file gives it its label.
Status Session::join_before(Lock& lock, const kernel::Certificate& certificate, const Hold& hold,
                            const Mark& mark) {
  if (hold.kind == Hold::Kind::kWritableFile && hold.labelled && hold.pin >= 0)
    CG_CHECK(join(lock, hold.file, certificate.object_label()));
  CG_CHECK(join_mark(lock, certificate, mark));
  if (certificate.raised_to() == state_.label) return ok();
  return join_held(lock, certificate.raised_to());
}

Status Session::join_held(Lock& lock, const kernel::Label& label) {
  for (const kernel::FileIdentity& file : held_files()) CG_CHECK(join(lock, file, label));
  return ok();
}

bool Session::spelled_out(const kernel::Certificate& certificate, const std::string& path) const {
  const auto& rules = certificate.rules();
  return std::any_of(rules.begin(), rules.end(), [&](const kernel::RuleUse& use) {
    const kernel::Rule& rule = decider().policy().rules[use.rule];
    return rule.layer == 0 &&  // the others can only narrow
           std::find(rule.verbs.begin(), rule.verbs.end(), kernel::Verb::kWrite) !=
               rule.verbs.end() &&
           rule.spells(path);
  });
}

Status Session::join_mark(Lock& lock, const kernel::Certificate& certificate, const Mark& mark) {
  if (mark.kind == Mark::Kind::kNothing || mutant(Mutant::kNameLabels)) return ok();
  std::string path = mark.path;
  if (mark.kind == Mark::Kind::kNames) {
    if (spelled_out(certificate, path)) return ok();
    path.resize(std::max<size_t>(1, path.rfind('/')));
  }
  CG_TRY(const std::optional<kernel::Label> stored, labels_.find(mark.file));
  const kernel::Label before = stored ? *stored : decider().policy().zone_label(path);
  if (stored && stored->covers(certificate.raised_to())) return ok();
  return join(lock, mark.file, before.join(certificate.raised_to()));
}

std::vector<kernel::FileIdentity> Session::held_files() const {
  std::vector<kernel::FileIdentity> files;
  if (mutant(Mutant::kHeldFiles)) return files;
  for (const Held& held : held_) {
    if (!held.shut && !held.pending && held.labelled && open_for_writing(held.pin.get()))
      files.push_back(held.file);
  }
  return files;
}

void Session::shut(const std::vector<uint32_t>& connections) {
  std::vector<uint32_t> indices = connections;
  std::sort(indices.rbegin(), indices.rend());
  for (const uint32_t index : indices) {
    if (index >= held_.size()) continue;
    if (held_[index].shut && !mutant(Mutant::kShut)) held_[index].shut();
    erase_held(index);  // a pending one finds itself gone when it settles
  }
}

void Session::prune_dead_files() {
  for (size_t i = held_.size(); i-- > 0;) {
    const bool file = state_.held[i].kind == kernel::Held::Kind::kWritableFile;
    if (file && !held_[i].pending && !open_for_writing(held_[i].pin.get())) erase_held(i);
  }
}

void Session::erase_held(size_t index) {
  ++changes_;
  held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(index));
  state_.held.erase(state_.held.begin() + static_cast<std::ptrdiff_t>(index));
  if (strict_) strict_held_.erase(strict_held_.begin() + static_cast<std::ptrdiff_t>(index));
}

Status Session::settle_file(uint64_t hold, int fd, const kernel::FileIdentity& file,
                            const kernel::Label& label, bool labelled) {
  Lock lock = enter();
  // The label may have risen since the decision: the file gets what holds now.
  for (uint64_t before = changes_ + 1; labelled && before != changes_;) {
    before = changes_;
    CG_CHECK(join(lock, file, label.join(state_.label)));
  }
  for (size_t i = 0; i < held_.size(); ++i) {
    if (held_[i].id != hold) continue;
    for (size_t j = 0; j < held_.size(); ++j) {  // one entry per file and rule is enough
      if (j != i && !held_[j].pending && !held_[j].shut && held_[j].file == file &&
          state_.held[j].rule == state_.held[i].rule &&
          state_.held[j].lower == state_.held[i].lower && !strict_) {
        erase_held(i);
        return ok();
      }
    }
    held_[i].file = file;
    held_[i].labelled = labelled;
    if (!held_[i].pin) {
      held_[i].pin.reset(reopen(fd, O_PATH));
    }
    held_[i].pending = false;
    return ok();
  }
  return ok();
}

bool Session::settle_connection(uint64_t hold, std::function<void()> shut) {
  const Lock lock = enter();
  if (!ledger_.live()) return false;
  for (Held& held : held_) {
    if (held.id != hold) continue;
    held.shut = std::move(shut);
    held.pending = false;
    return true;
  }
  return false;
}

void Session::release(uint64_t hold) {
  if (hold == 0) return;
  const Lock lock = enter();
  for (size_t i = 0; i < held_.size(); ++i) {
    if (held_[i].id == hold) return erase_held(i);
  }
}

ReaderTable::Answer Session::prepare_raise(const kernel::Label& label) {
  const Lock lock(mutex_);
  auto raised = decider().raise(state_, label);
  if (std::holds_alternative<kernel::Refusal>(raised)) {
    prune_dead_files();
    raised = decider().raise(state_, label);
  }
  if (std::holds_alternative<kernel::Refusal>(raised)) return {};
  frozen_ = true;
  ReaderTable::Answer answer{true, {}};
  if (!state_.label.covers(label)) answer.held = held_files();
  return answer;
}

void Session::take_raise(const kernel::Label& label, const ReaderTable::Request& request) {
  const Lock lock(mutex_);
  rise(label, request);
  frozen_ = false;
  free_.notify_all();
}

void Session::leave_raise() {
  const Lock lock(mutex_);
  frozen_ = false;
  free_.notify_all();
}

void Session::take_raise_alone(const kernel::Label& label, const ReaderTable::Request& request) {
  leave_raise();
  Lock lock = enter();
  if (const Status joined = join_held(lock, label); !joined) return fatal(joined.error().what);
  rise(label, request);
}

void Session::rise(const kernel::Label& label, const ReaderTable::Request& request) {
  auto raised = decider().raise(state_, label);
  const auto* raise = std::get_if<kernel::Raise>(&raised);
  if (raise == nullptr) return fatal(std::get<kernel::Refusal>(raised).why);
  if (raise->to == state_.label) return;
  kernel::Record record;
  record.kind = kernel::RecordKind::kRaise;
  record.origins = state_.label.text();
  record.raised = raise->to.text();
  record.ino = request.file.ino;
  record.why = "the agent " + request.run + " writes what this one may be reading";
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) return fatal(seq.error().what);
  shut(raise->shut);
  ++changes_;
  lineage_.rise(raise->to, *seq);
  note_rise(raise->to, *seq, "the agent " + request.run);
  state_.label = raise->to;
}

void Session::outcome(uint64_t certificate_seq, const char* call, int pid, int error,
                      const char* grade) {
  kernel::Record record;
  record.kind = kernel::RecordKind::kOutcome;
  record.call = call;
  record.pid = static_cast<uint32_t>(pid);
  record.ref = certificate_seq;
  record.error = static_cast<uint32_t>(error);
  record.grade = grade;
  const auto seq = recorder_.append(std::move(record), kernel::Durability::kOrdered);
  if (!seq) fatal(seq.error().what);
}

}  // namespace certgate::supervisor
