#include "agentd/recheck.h"

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "agentd/run_given.h"
#include "supervisor/blob_file.h"
#include "supervisor/lineage.h"
#include "supervisor/recorded_policy.h"
#include "supervisor/tool_sources.h"

namespace certgate::agentd {
namespace {

using kernel::Certificate;
using kernel::Label;
using kernel::Record;
using kernel::RecordKind;

constexpr int64_t kSlackNs = 5'000'000'000;  // of a ttl
constexpr size_t kIdBytes = 16;              // of a token's id, in a record

std::string rule_ids(const Certificate& certificate, const kernel::Policy& policy) {
  std::string out;
  for (const auto& use : certificate.rules()) {
    const std::string& id = policy.rules[use.rule].id;
    if (out != id) out += (out.empty() ? "" : "+") + id;
  }
  return out;
}

kernel::Digest digest_of(const Record& record, const kernel::Effects& effect) {
  kernel::ActionForm form = kernel::action_form(effect);
  // Of the environment only the digest is known, of long arguments too; both are in the record.
  form.detail = record.detail;
  if (!record.args.empty()) std::copy(record.args.begin(), record.args.end(), form.argv.begin());
  return kernel::action_digest(form);
}

bool kept_out(const Record& record, std::string_view part) {
  return std::any_of(record.blobs.begin(), record.blobs.end(), [&](const std::string& entry) {
    kernel::Digest commitment{};
    std::string name;
    return supervisor::split_entry(entry, commitment, name) && name == part;
  });
}

bool same_bytes(const std::vector<uint8_t>& a, const kernel::Digest& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

struct RunCheck::Impl {
  using Answer = std::optional<Fault>;

  explicit Impl(const kernel::RawPublicKey& of_log) : key(of_log) {}

  Answer order(const Record& r);
  Answer begin(const Record& r);
  Answer add_policy(const Record& r);
  Answer ready();
  Answer names_token(const Record& r) const;
  Answer certificate(const Record& r);
  Answer judged(const Record& r, const Label& label) const;
  Answer lineage_of(const Record& r, const Label& label) const;
  Answer decided(const Record& r, kernel::Effects effect, const Label& label);
  Answer raised(const Record& r);
  Answer outcome(const Record& r);
  Answer approval(const Record& r);
  Answer taken_as_recorded(const Record& r, const Label& label);
  Answer given(const Record& r);
  Answer policy_changed(const Record& r);
  Answer say_messages(const Record& r, kernel::Call& call);
  Answer use_approval(const Record& r, const kernel::Effects& effect);
  Answer any(const Record& r);
  void rise(const Label& to, uint64_t seq);
  Answer refusal(const Record& r) const;
  Label secrecy_of(const kernel::Effects& effect) const;
  kernel::Instant time_of() const;

  const kernel::RawPublicKey key;
  std::string run;
  uint64_t seq = 0;
  int64_t wall_ns = 0, boot_ns = 0, start_boot_ns = 0;  // of the record before; of the start
  bool stopped = false;
  std::vector<uint8_t> policy_digest;
  std::string chain, body, token, rules;
  bool has_policy = false;
  bool changed = false;                     // the policy, since the run began
  std::map<std::string, uint64_t> carried;  // what each rule of the one before had allowed
  kernel::Policy policy;
  std::unique_ptr<kernel::Decider> decider;        // of `policy`, once something is to be decided
  std::set<uint64_t> certified;                    // seq
  std::map<uint64_t, std::vector<uint8_t>> asked;  // digest, by the request's seq
  std::map<uint64_t, kernel::Approval> approved;   // not used yet, the same
  kernel::State state;
  supervisor::Lineage lineage;
  Answer broken;
};

RunCheck::RunCheck(const kernel::RawPublicKey& key) : impl_(std::make_unique<Impl>(key)) {}
RunCheck::RunCheck(RunCheck&&) noexcept = default;
RunCheck& RunCheck::operator=(RunCheck&&) noexcept = default;
RunCheck::~RunCheck() = default;

std::string RunCheck::rules() const { return impl_->rules; }

std::optional<Fault> RunCheck::take(const Record& record) {
  if (impl_->broken) return impl_->broken;
  impl_->broken = impl_->any(record);
  return impl_->broken;
}

std::optional<Fault> RunCheck::Impl::any(const Record& r) {
  if (Answer fault = order(r)) return fault;
  Answer fault;
  switch (r.kind) {
    case RecordKind::kStart:
      fault = begin(r);
      break;
    case RecordKind::kToken:
      chain += r.object + "\n";
      break;
    case RecordKind::kPolicy:
      fault = add_policy(r);
      break;
    case RecordKind::kCertificate:
      fault = certificate(r);
      break;
    case RecordKind::kRefusal:
      fault = refusal(r);
      break;
    case RecordKind::kRaise:
      fault = raised(r);
      break;
    case RecordKind::kOutcome:
      fault = outcome(r);
      break;
    case RecordKind::kPolicyChange:
      fault = policy_changed(r);
      break;
    case RecordKind::kGiven:
      fault = given(r);
      break;
    case RecordKind::kExit:
      if (r.exec != 0 && certified.count(r.exec) == 0)
        fault = Fault{"ref", "it is the end of an exec that was not certified"};
      break;
    case RecordKind::kApproval:
      fault = approval(r);
      break;
    case RecordKind::kStop:
      stopped = true;
      if (r.count != r.seq - 1) fault = Fault{"sequence", "the stop counts other records"};
      break;
    default:
      break;
  }
  seq = r.seq;
  wall_ns = r.wall_ns;
  boot_ns = r.boot_ns;
  return fault;
}

std::optional<Fault> RunCheck::Impl::order(const Record& r) {
  const auto say = [&](const std::string& what) {
    return Fault{"sequence", "record " + std::to_string(r.seq) + " " + what};
  };
  if (r.seq != seq + 1) return say("comes after " + std::to_string(seq));
  if ((r.seq == 1) != (r.kind == RecordKind::kStart)) return say("is no start, or a second one");
  if (stopped) return say("comes after the run's stop");
  if (seq != 0 && r.run != run) return say("is of another run");
  // A gap is noted when the log is opened the next time, perhaps after a boot.
  if (r.boot_ns < boot_ns && r.kind != RecordKind::kGap)
    return Fault{"time", say("was made before the one before it").what};
  return {};
}

std::optional<Fault> RunCheck::Impl::begin(const Record& r) {
  run = r.run;
  token = r.token;
  start_boot_ns = r.boot_ns;
  policy_digest = r.digest;
  const auto label = Label::parse(r.origins);
  if (!label || label->text() != r.origins) return Fault{"label", "the run began with no label"};
  state.label = *label;
  lineage = supervisor::Lineage(state.label);
  return {};
}

std::optional<Fault> RunCheck::Impl::add_policy(const Record& r) {
  if (has_policy) return Fault{"policy", "there is more of it than it says"};
  if (r.count > supervisor::kMaxRecordedPolicy || r.body.size() > r.count - body.size())
    return Fault{"policy", "it is larger than it says"};
  body += r.body;
  if (body.size() < r.count) return {};
  auto read = supervisor::read_recorded_policy(body);
  if (!read) return Fault{"policy", read.error().what};
  if (const Status kept = changed ? supervisor::keep_pins(policy, *read) : ok(); !kept)
    return Fault{"policy", kept.error().what};
  policy = *std::move(read);
  if (!same_bytes(policy_digest, policy.digest()))
    return Fault{"policy", "it is not the one whose digest the start names"};
  has_policy = true;
  return {};
}

// Before the first decision: what the run may do at all.
std::optional<Fault> RunCheck::Impl::ready() {
  if (decider) return {};
  if (!has_policy)
    return Fault{"policy", "the log does not hold it: the run is of an earlier version"};
  auto tokens = kernel::verify_chain(chain, key);
  if (!tokens) return Fault{"token", tokens.error().what};
  for (const kernel::Token& one : *tokens) {
    const bool own = changed && one.holder == run;  // made for this run, whatever decides in it
    if (!own && one.policy != kernel::Digest{} && !same_bytes(policy_digest, one.policy))
      return Fault{"token", "token " + one.id.substr(0, kIdBytes) + " is for another policy"};
  }
  if (tokens->back().id.substr(0, kIdBytes) != token)
    return Fault{"token", "the start names another token than the last of the chain"};
  state.used.assign(policy.rules.size(), 0);
  for (size_t i = 0; i < policy.rules.size(); ++i) {
    if (const auto before = carried.find(policy.rules[i].id); before != carried.end())
      state.used[i] = before->second;
  }
  state.tokens.epoch = tokens->front().epoch;
  decider = std::make_unique<kernel::Decider>(policy, *std::move(tokens), run);
  return {};
}

std::optional<Fault> RunCheck::Impl::names_token(const Record& r) const {
  if (r.token == token) return {};
  return Fault{"token", "it names the token " + r.token + ", the run's is " + token};
}

// Decisions come before their records and after the records before them.
kernel::Instant RunCheck::Impl::time_of() const {
  return {wall_ns, std::max<int64_t>(0, boot_ns - start_boot_ns - kSlackNs), boot_ns};
}

std::optional<Fault> RunCheck::Impl::certificate(const Record& r) {
  if (Answer fault = ready()) return fault;
  if (Answer fault = names_token(r)) return fault;
  const auto label = Label::parse(r.origins);
  if (!label || label->text() != r.origins) return Fault{"label", "it has no label"};
  if (kept_out(r, "object") || kept_out(r, "asked")) return taken_as_recorded(r, *label);
  auto effect = recorded_effect(r);
  if (!effect) return Fault{"digest", effect.error().what};
  if (!same_bytes(r.digest, digest_of(r, *effect)))
    return Fault{"digest", "the recorded effect has another digest than the certified one"};
  if (Answer fault = judged(r, *label)) return fault;
  if (Answer fault = lineage_of(r, *label)) return fault;
  if (Answer fault = decided(r, *std::move(effect), *label)) return fault;
  certified.insert(r.seq);
  return {};
}

// An exec, and what is opened to be read and written, is judged under what the object brings too.
std::optional<Fault> RunCheck::Impl::judged(const Record& r, const Label& label) const {
  if (!label.covers(state.label))
    return Fault{"label",
                 "it was judged under " + label.text() + ", the agent's was " + state.label.text()};
  if (label == state.label) return {};
  const auto brought = Label::parse(r.raised);
  if (brought && *brought == label) return {};
  return Fault{"label", "it was judged under " + label.text() + ", which nothing brought in"};
}

std::optional<Fault> RunCheck::Impl::lineage_of(const Record& r, const Label& label) const {
  if (lineage.of(label, r.seq) == r.lineage) return {};
  return Fault{"lineage",
               "an origin of " + label.text() + " came in by another record than it names"};
}

std::optional<Fault> RunCheck::Impl::decided(const Record& r, kernel::Effects effect,
                                             const Label& label) {
  kernel::Call call{std::move(effect), label};
  const auto after = r.raised.empty() ? Result<Label>(label) : Label::parse(r.raised);
  if (!after || (!r.raised.empty() && after->text() != r.raised))
    return Fault{"raise", "the label that it leaves is none"};
  const auto* open = std::get_if<kernel::OpenEffect>(&call.effect);
  if (open != nullptr) call.object = open->read ? *after : Label();
  if (!after->covers(secrecy_of(call.effect)))
    return Fault{"label", "what was read is in a secret zone, and brought no tag in"};
  if (Answer fault = use_approval(r, call.effect)) return fault;
  if (Answer fault = say_messages(r, call)) return fault;
  kernel::Verdict verdict = decider->decide(state, call, time_of());
  if (const auto* refusal = std::get_if<kernel::Refusal>(&verdict)) {
    if (!r.args.empty()) return taken_as_recorded(r, label);
    return Fault{
        "rule",
        "decided again it is refused: " + std::string(kernel::reason_text(refusal->reason)) +
            (refusal->rule.empty() ? "" : " (rule " + refusal->rule + ")") + ": " + refusal->why};
  }
  const auto& again = std::get<Certificate>(verdict);
  if (rule_ids(again, policy) != r.rule)
    return Fault{"rule", "decided again " + rule_ids(again, policy) + " allows it, not " + r.rule};
  if (!(again.decision_label() == label))
    return Fault{"label", "decided again it is judged under " + again.decision_label().text()};
  const bool rises = !(again.raised_to() == state.label);
  if ((rises ? again.raised_to().text() : "") != r.raised)
    return Fault{"raise", "decided again the label is then " + again.raised_to().text()};
  if (again.approval().empty() != (r.ref == 0))
    return Fault{"approval", "decided again it needs none, and names one"};
  if (static_cast<uint8_t>(again.risk().level) != r.risk)
    return Fault{"risk", "decided again it is of another risk"};
  // What an observing run's own policy would have refused has the tool of that refusal.
  if (again.tool() != r.tool && r.grade != kernel::kObservedGrade)
    return Fault{"tool",
                 "decided again it is a call of '" + again.tool() + "', not of '" + r.tool + "'"};
  uint64_t most = UINT64_MAX;
  for (const kernel::MeterUse& use : again.meters()) {
    if (use.budget != 0) most = std::min(most, use.budget - use.used);
  }
  if ((most == UINT64_MAX) != (r.count == 0) || (r.count != 0 && r.count - 1 > most))
    return Fault{"budget", "it leaves more calls than the tokens had"};
  rules.clear();
  for (const kernel::RuleUse& use : again.rules()) {
    const kernel::Rule& rule = policy.rules[use.rule];
    const std::string one = rule.id + " (" + rule.source + ")";
    if (rules.find(one) == std::string::npos) rules += (rules.empty() ? "" : ", ") + one;
  }
  if (rises) rise(again.raised_to(), r.seq);
  kernel::apply(state, again);
  return {};
}

// Another policy from here on; its records follow. Rules keep, by their ids, what they allowed.
std::optional<Fault> RunCheck::Impl::policy_changed(const Record& r) {
  if (!has_policy || r.digest.size() != sizeof(kernel::Digest))
    return Fault{"policy", "it changes to none, or before the first was whole"};
  carried.clear();
  for (size_t i = 0; i < state.used.size(); ++i) carried[policy.rules[i].id] = state.used[i];
  decider.reset();
  policy_digest = r.digest;
  body.clear();
  has_policy = false;
  changed = true;
  return {};
}

// What a tool's program was when the run began.
std::optional<Fault> RunCheck::Impl::given(const Record& r) {
  for (kernel::Tool& tool : policy.tools) {
    if (tool.name != r.tool || tool.pin != kernel::Tool::Pin::kAtStart) continue;
    if (r.sha256.size() != tool.sha256.size() || tool.program != r.object || decider)
      return Fault{"tool", "the tool '" + r.tool + "' was pinned to nothing, or too late"};
    std::copy(r.sha256.begin(), r.sha256.end(), tool.sha256.begin());
  }
  return {};
}

// Of a message of the user the log has the digest, not the words: that they said this at the place
// which the record names is taken from the record.
std::optional<Fault> RunCheck::Impl::say_messages(const Record& r, kernel::Call& call) {
  state.messages.clear();
  const auto* exec = std::get_if<kernel::ExecEffect>(&call.effect);
  for (size_t at = 0; exec != nullptr && at < r.sources.size();) {
    const size_t end = std::min(r.sources.find(' ', at), r.sources.size());
    const std::string one = r.sources.substr(at, end - at);
    at = end + 1;
    if (one.ends_with("=policy")) continue;
    const auto source = supervisor::parse_source(one);
    const bool fits = source && source->argument < exec->argv.size() &&
                      source->message < kMaxMessages && source->end <= kMaxMessageBytes &&
                      source->start <= source->end &&
                      exec->argv[source->argument].size() == source->end - source->start;
    if (!fits) return Fault{"sources", "'" + one + "' is no place in a message of the user"};
    if (state.messages.size() <= source->message) state.messages.resize(source->message + 1);
    std::string& said = state.messages[source->message];
    said.resize(std::max<size_t>(said.size(), source->end));
    said.replace(source->start, source->end - source->start, exec->argv[source->argument]);
    call.sources.push_back(*source);
  }
  return {};
}

// What was asked, and what came of it: an approval is for the digest that was asked about.
std::optional<Fault> RunCheck::Impl::approval(const Record& r) {
  const auto label = Label::parse(r.origins);
  if (!label || r.digest.size() != sizeof(kernel::Digest))
    return Fault{"approval", "it is of no action, or under no label"};
  if (r.ref == 0) {
    asked[r.seq] = r.digest;
    return {};
  }
  const auto request = asked.find(r.ref);
  if (request == asked.end() || request->second != r.digest)
    return Fault{"approval", "it answers a request that was not made, or for another action"};
  if (r.grade != "approved") return {};
  kernel::Approval& one = approved[r.ref];
  one = {kernel::Approval::Answer::kApproved,
         run + "-" + std::to_string(r.ref),
         {},
         *label,
         INT64_MAX};
  std::copy(r.digest.begin(), r.digest.end(), one.digest.begin());
  return {};
}

// Only the one that the certificate names, once. That it was for this action the certified digest
// says, which was compared with the record; what is decided again is an exec without environment.
std::optional<Fault> RunCheck::Impl::use_approval(const Record& r, const kernel::Effects& effect) {
  state.approvals.clear();
  if (r.ref == 0) return {};
  const auto one = approved.find(r.ref);
  if (one == approved.end())
    return Fault{"approval", "it names one that was not given, or was used before"};
  if (!same_bytes(r.digest, one->second.digest))
    return Fault{"approval", "it names one that was given for another action"};
  state.approvals.push_back(one->second);
  state.approvals.back().digest = kernel::action_digest(effect);
  approved.erase(one);
  return {};
}

// What was kept out of the record, or is too long for it, cannot be decided again: its consequences
// are the recorded ones, and whoever asks for it is told.
std::optional<Fault> RunCheck::Impl::taken_as_recorded(const Record& r, const Label& label) {
  if (Answer fault = judged(r, label)) return fault;
  if (Answer fault = lineage_of(r, label)) return fault;
  const auto to = r.raised.empty() ? Result<Label>(state.label) : Label::parse(r.raised);
  if (!to || !to->covers(state.label)) return Fault{"raise", "the label that it leaves is none"};
  if (!(*to == state.label)) rise(*to, r.seq);
  rules = "not decided again: the record does not hold all that the rules are about";
  certified.insert(r.seq);
  return {};
}

// What the policy alone says of what is read, whatever label it had.
Label RunCheck::Impl::secrecy_of(const kernel::Effects& effect) const {
  Label out;
  if (const auto* open = std::get_if<kernel::OpenEffect>(&effect)) {
    const bool device =
        open->kind == kernel::FileKind::kDevice || open->kind == kernel::FileKind::kPipe;
    if (open->read && !open->inside && !device) out = policy.zone_secrecy(open->path);
  } else if (const auto* exec = std::get_if<kernel::ExecEffect>(&effect)) {
    for (const kernel::ExecImage& image : exec->images) {
      if (!image.inside) out = out.join(policy.zone_secrecy(image.path));
    }
  }
  return out;
}

std::optional<Fault> RunCheck::Impl::refusal(const Record& r) const {
  if (Answer fault = names_token(r)) return fault;
  if (r.grade == kernel::kSelfTestGrade) return {};  // of our own process, before the agent's
  const auto label = Label::parse(r.origins);
  if (!label || label->text() != r.origins || !label->covers(state.label))
    return Fault{"label", "a refusal was judged under another label than the agent's"};
  return lineage_of(r, *label);
}

void RunCheck::Impl::rise(const Label& to, uint64_t by) {
  lineage.rise(to, by);
  state.label = to;
}

std::optional<Fault> RunCheck::Impl::raised(const Record& r) {
  const auto to = Label::parse(r.raised);
  if (!to || to->text() != r.raised || r.origins != state.label.text() || !to->covers(state.label))
    return Fault{"raise", "another agent's raise does not begin with this one's label"};
  rise(*to, r.seq);
  return {};
}

std::optional<Fault> RunCheck::Impl::outcome(const Record& r) {
  if (certified.count(r.ref) != 0) return {};
  return Fault{"ref", "the outcome " + std::to_string(r.seq) + " is of no certificate before it"};
}

}  // namespace certgate::agentd
