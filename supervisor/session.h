// Session: the state of one hosted agent and the one place where a call is judged.
//
//   auto judged = session.judge(info, call, hold);       // decide + record + label joins,
//   atomically if (judged.certificate) perform(std::move(*judged.certificate), pinned); else
//   listener.refuse(id, judged.error);
//
// judge() holds the session lock over decide → record → apply → raise, so that the log's order is
// the order of decisions and a raise is a transaction: when judge() returns a certificate that
// raises the label, every connection whose rule rejects the new label has been shut down and every
// file that is still open for writing carries the new label.
//
// A handle that outlives its call (a file opened for writing, a connection) is held from the moment
// it is judged ("pending"), so that a raise in another thread cannot slip between decision and
// effect:
//   pending → live (settle_*) → gone (release, pruned, shut)
//
// The lock is not held while the label store is asked to join: it may in turn ask other running
// agents, whose own judge() may be waiting for us. Calls of this agent wait until the answer is
// there (`joining_`), a raise from another agent does not; after it the call is decided again.
//   judging → [joining → judging]… → recorded
//   another agent's raise: prepared (`frozen_`: nothing is judged) → taken or left
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernel/decide.h"
#include "kernel/record.h"
#include "sandbox/fd.h"
#include "supervisor/approvals.h"
#include "supervisor/channel.h"
#include "supervisor/label_view.h"
#include "supervisor/lineage.h"
#include "supervisor/permits.h"
#include "supervisor/reader_table.h"
#include "supervisor/recorder.h"
#include "supervisor/token_ledger.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxHeld = kMaxHeldFiles;  // handles of one agent
inline constexpr size_t kPruneHeldAt = 512;        // look for dead ones beyond this
inline constexpr size_t kMaxReloads = 64;          // of one run: none is forgotten while it lasts
inline constexpr size_t kMaxReportedLines = 200;   // refusals printed per run; all are in the log

// Whether who handles the call can let it wait for an operator (approvals.h).
enum class Waits : uint8_t { kNo, kYes };

// What a record says about a call beyond the effect itself.
struct CallInfo {
  int pid = 0;
  const char* call = "";
  std::string asked;  // as the agent wrote it
  Waits waits = Waits::kNo;
  std::string permit{};
  // The caller sees to it itself that a strict certificate is on the disk before its effect
  // (Session::make_durable), on a thread that may wait.
  bool durable_later = false;
};

// What will outlive the call, if anything.
struct Hold {
  enum class Kind : uint8_t { kNone, kWritableFile, kConnection } kind = Kind::kNone;
  int pin = -1;  // O_PATH of an existing file (lent; duplicated)
  kernel::FileIdentity file;
  bool labelled = true;  // false: the file lives and dies with the sandbox
};

// What the call changes in place, whose label therefore rises with the certificate: the object, or
// the names in the directory in which `path` is made, moved or removed. Names that a rule spells
// out say nothing about who chose them and leave the directory as it is.
struct Mark {
  enum class Kind : uint8_t { kNothing, kObject, kNames } kind = Kind::kNothing;
  kernel::FileIdentity file;  // the object or the directory
  std::string path;
};

// Whether the agent may go on reading what it is given, or only learns one thing now.
enum class Reads : uint8_t { kOnce, kFromNowOn };

struct Judged {
  std::optional<kernel::Certificate> certificate;
  uint64_t seq = 0;   // of the certificate's or refusal's record
  uint64_t hold = 0;  // id for settle_* / release, 0 = none
  int error = 0;      // errno for the caller when refused
  uint64_t asks = 0;  // neither: the request that it waits for (Approvals::attach)
  // That the certificate's rules are of; it outlives the call, whatever is loaded meanwhile.
  const kernel::Policy* policy = nullptr;
  const kernel::Rule* rule(size_t i) const { return &policy->rules[certificate->rules()[i].rule]; }
};

// What the tool gate is told: a permit, or why not.
struct Permitted {
  std::optional<Permit> permit;
  std::optional<Asks> asks;  // beside a permit
  kernel::Refusal refusal;
  std::string id;  // of the record
  std::string tool, sources, label;
};

// kSelfTest: refusals are marked so in the log and not printed.
enum class Report : uint8_t { kText, kJson, kSelfTest };

class Session {
 public:
  // With `strict` the run observes (Hosting::observed): `decider` allows more, and what `strict`
  // would have refused is recorded as that. Their policies have the same rules by index, and the
  // decider's last one accepts every label.
  Session(kernel::Decider decider, kernel::Label initial, Recorder& recorder, LabelView labels,
          ReaderTable& readers, Channel& channel, TokenLedger& ledger, Report report,
          std::optional<kernel::Decider> strict = std::nullopt);

  Judged judge(const CallInfo& info, const kernel::Call& call, const Hold& hold,
               const Mark& mark = {});
  // What was judged so far is on the disk; else the agent is ended and this is false.
  bool make_durable();
  // For a call of several parts, before any of them is judged: when this one needs an operator's
  // approval, what judge() would say.
  std::optional<Judged> ask_first(const CallInfo& info, const kernel::Call& call);
  // From now on calls that need an approval wait there.
  void ask_through(Approvals* approvals) { approvals_ = approvals; }
  void answered(const Waiting& waiting, const ApprovalAnswer& answer);
  void withdrawn(const Waiting& waiting);
  // Refuses a form of call that is never performed. Returns the errno for the caller.
  int refuse_constraint(const CallInfo& info, const std::string& object, kernel::Verb verb,
                        const std::string& why);
  // Something that the decision needs cannot be known, as when the label store cannot say what
  // label a file has: refused, whatever the policy would say of it.
  Judged refuse_unknown(const CallInfo& info, const kernel::Call& call, const std::string& why);
  // Records that a name was asked for which no rule could allow.
  void refuse_name(const std::string& name);
  // The outcome leaf of a certificate.
  void outcome(uint64_t certificate_seq, const char* call, int pid, int error, const char* grade);

  // The file exists now: gives it its label and keeps a pin. Must succeed before the fd is handed
  // over. Code EBUSY: see Channel::join_file.
  Status settle_file(uint64_t hold, int fd, const kernel::FileIdentity& file,
                     const kernel::Label& label, bool labelled);
  // `shut` closes the connection for good (both directions) and may be called from any thread,
  // under the session lock. False: a raise has shut it already; do not hand it over.
  bool settle_connection(uint64_t hold, std::function<void()> shut);
  void release(uint64_t hold);
  // Asked again after a call has waited: a token that ended meanwhile ends the call.
  bool tokens_live() const { return ledger_.live(); }

  // The label of an unopened file: stored, else its zone's. From now on whoever taints the file
  // taints this agent, if it goes on reading.
  Result<kernel::Label> file_label(const kernel::FileIdentity& file, const std::string& path,
                                   Reads reads) const;

  // The tool gate's questions (session_tools.cc). Messages are given before the agent starts.
  void give_messages(std::vector<std::string> messages);
  // As the exec would be decided now; nothing is counted or raised. `intent` is only recorded.
  Permitted permit(const CallInfo& info, const kernel::Call& call, const std::string& intent);
  // With `fault`: it is there, but what it would run cannot be judged.
  Permitted refuse_tool(const CallInfo& info, const std::string& tool, const std::string& intent,
                        const std::string& fault = {});
  // What the agent says that it has taken in: a raise, or nothing is taken and the id of a refusal.
  std::optional<Permitted> add_taint(const CallInfo& info, const kernel::Label& taint);

  // Another agent is about to change what this one may be reading. prepare: can the label rise, and
  // what is held open for writing; if it can, nothing is judged until one of the others is called.
  ReaderTable::Answer prepare_raise(const kernel::Label& label);
  void take_raise(const kernel::Label& label, const ReaderTable::Request& request);
  void leave_raise();
  // Nobody said which: the label rises as by a call of our own.
  void take_raise_alone(const kernel::Label& label, const ReaderTable::Request& request);

  // Another policy from now on, or why the old one stays. Compiled before calls wait; the answer is
  // for how long they did, in nanoseconds. Recorded first. Budgets go on by rule id. What is held
  // is judged again by the new policy: a connection that it refuses is shut down, a file that it
  // refuses and that is still open for writing refuses the reload.
  Result<int64_t> reload(kernel::Policy policy);
  // Called under the lock with the policy that decides from now on.
  void on_reload(std::function<void(const kernel::Policy&)> handler);

  kernel::Label label() const;
  uint64_t image_started(int pid, uint64_t seq) { return recorder_.image_started(pid, seq); }
  void wait_for_room() { recorder_.wait_for_room(); }  // see Recorder
  bool crowded() const { return recorder_.crowded(); }  // see Recorder
  size_t refusals() const;                              // printed so far
  // The present one; like its policy, it stays as it is until the run ends.
  const kernel::Decider& decider() const { return *decider_.load(); }
  // Called once when the log or the label store has failed: must end the agent.
  void on_fatal(std::function<void(const std::string&)> handler) { fatal_ = std::move(handler); }
  void fatal(const std::string& what) const;

 private:
  struct Held {
    uint64_t id = 0;
    bool pending = true;
    sandbox::UniqueFd pin;
    kernel::FileIdentity file;
    bool labelled = false;
    kernel::Effects effect;
    std::function<void()> shut;
    std::optional<kernel::Digest> approved;  // the action that an operator approved
  };
  // A policy and who decides by it; where it is, it stays.
  struct Ruling {
    Ruling(kernel::Policy loaded, const kernel::Decider& before)
        : policy(std::move(loaded)), decider(policy, before.chain(), before.holder()) {}
    const kernel::Policy policy;
    const kernel::Decider decider;
  };
  struct Moved {
    std::vector<kernel::Held> held;
    std::vector<uint32_t> shut;
  };

  using Lock = std::unique_lock<std::mutex>;

  Lock enter() const;
  Judged judge_ordered(const CallInfo& info, const kernel::Call& call, const Hold& hold,
                       const Mark& mark);
  Judged judge(Lock& lock, const CallInfo& info, const kernel::Call& call, const Hold& hold,
               const Mark& mark);
  void prune_dead_files();
  kernel::Verdict decide(const kernel::Call& call);
  std::optional<kernel::Verdict> strictly(const kernel::Call& call);
  Result<bool> take_meters(const kernel::Certificate& certificate);
  Judged failed(const CallInfo& info, const kernel::Call& call, const std::string& why);
  Judged certify(const CallInfo& info, const kernel::Call& call, const Hold& hold,
                 kernel::Certificate decided);
  Status can_reload(const kernel::Policy& policy) const;
  Result<Moved> judge_held(const kernel::Decider& by);
  void rise(const kernel::Label& label, const ReaderTable::Request& request);
  void rise_alone(const kernel::Raise& raise, uint64_t ino, std::string why);
  Status join(Lock& lock, const kernel::FileIdentity& file, const kernel::Label& label);
  Status join_before(Lock& lock, const kernel::Certificate& certificate, const Hold& hold,
                     const Mark& mark);
  Status join_held(Lock& lock, const kernel::Label& label);
  Status join_mark(Lock& lock, const kernel::Certificate& certificate, const Mark& mark);
  bool spelled_out(const kernel::Certificate& certificate, const std::string& path) const;
  std::vector<kernel::FileIdentity> held_files() const;
  void shut(const std::vector<uint32_t>& connections);
  void keep(Judged& judged, const Hold& hold, const kernel::Call& call,
            const std::optional<kernel::Verdict>& strict);
  void erase_held(size_t index);
  Judged refused(const CallInfo& info, const kernel::Call& call, const kernel::Refusal& refusal,
                 const std::string& intent = {});
  void report(const kernel::Record& record, uint64_t seq);
  Judged ask(const CallInfo& info, const kernel::Call& call, const kernel::Refusal& refusal);
  void note_approval(const Waiting& waiting, const char* what, const ApprovalAnswer& answer);
  void note_answer(const kernel::Refusal& refusal, kernel::Record& record);
  void note_rise(const kernel::Label& to, uint64_t seq, const std::string& by);
  kernel::Instant now() const;

  const kernel::Decider first_;
  const std::optional<kernel::Decider> strict_;
  std::atomic<const kernel::Decider*> decider_;
  Recorder& recorder_;
  LabelView labels_;
  ReaderTable& readers_;
  Channel& channel_;
  TokenLedger& ledger_;
  const Report report_;
  std::atomic<bool> may_ask_;  // the policy has something to ask
  Approvals* approvals_ = nullptr;
  const int64_t started_ns_;
  std::function<void(const std::string&)> fatal_;
  std::mutex reload_mutex_;                           // one reload at a time; guards the next two
  std::vector<std::unique_ptr<const Ruling>> later_;  // by reload
  std::function<void(const kernel::Policy&)> reloaded_;
  mutable std::mutex mutex_;  // guards all below
  mutable std::condition_variable free_;
  bool joining_ = false;  // a call waits for the label store
  bool frozen_ = false;   // another agent's raise is prepared
  uint64_t changes_ = 0;  // of the label and of what is held
  kernel::State state_;
  Lineage lineage_;         // of the label
  Permits permits_;
  std::vector<std::string> came_in_;       // how each origin did that joined the label
  std::vector<Held> held_;                 // parallel to state_.held
  std::vector<kernel::Held> strict_held_;  // the same, as strict_ would hold them
  uint64_t next_hold_ = 1;
  size_t reported_ = 0;
  std::set<std::string> reported_once_;
};

// Whether the policy ever asks an operator.
bool asks(const kernel::Policy& policy);
// Of "<run>-<seq>"; 0 of nothing.
uint64_t request_seq(const std::string& approval);

// True while some process has the file behind this O_PATH descriptor open for writing (also through
// a shared mapping or a descriptor in flight). Errs on the side of true.
bool open_for_writing(int pin);

}  // namespace certgate::supervisor
