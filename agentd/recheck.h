// Recheck: a certificate is checked again from the log alone.
//
//   RunCheck run;                                     // of one run, its records in order
//   for (const kernel::Record& r : records) {
//     if (auto fault = run.take(r)) report(fault->step, fault->what);      // first fault of it
//   }
//
// Nothing but the records is asked: no policy file, no label store, no clock. What each step says:
//   sequence  the run's records are all there, in their order; nothing follows its stop
//   time      none was made before the one before it
//   policy    the recorded policy has the digest that the start names
//   token     the chain is whole, verified with the log's key, is for this run and this policy, and
//             each record names its last token
//   label     the label that was judged is what the run began with and what its records brought in
//   lineage   each origin and tag of it came in by the record that is named
//   digest    the effect, as recorded, has the digest that was certified
//   rule      decided again, under that policy, label and time, this very rule allows it
//   raise     and the label that it leaves is the recorded one
//   budget    what the tokens have left can be so
//   ref       an outcome is of a certificate of this run that came before
//   approval  what was asked was answered for this very action, and is used once
//   tool      decided again it is a call of the same tool; of its variables only the digest is
//   known sources   the places in the user's messages that the record names can be; what was said
//   there
//             is taken from the record, for the log has the messages' digests only
//   risk      decided again it is of this risk
// Where the record holds not all that the rules are about (long arguments, values kept out), the
// certificate's consequences are taken as recorded, and rules() says so.
// The decision is the kernel's own. What a run's records do not hold is what others did: a
// revocation, a new epoch, the calls of runs that share a token, what was held open; and the label
// that a file had when it was read, of which only what it added is there. Times are of the record,
// not the decision: a ttl is held to within five seconds.
//
//   start → tokens → policy → certificates, refusals, outcomes, raises → stop
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kernel/decide.h"
#include "kernel/record.h"
#include "kernel/result.h"

namespace certgate::agentd {

struct Fault {
  const char* step;  // stable: the words above
  std::string what;
};

class RunCheck {
 public:
  // `key`: the log's, which signs the first token of every chain.
  explicit RunCheck(const kernel::RawPublicKey& key);
  RunCheck(RunCheck&&) noexcept;
  RunCheck& operator=(RunCheck&&) noexcept;
  ~RunCheck();

  // The next record of the run. After a fault the run's further certificates have it too.
  std::optional<Fault> take(const kernel::Record& record);
  // Of the certificate that was taken last: "rule id (file:line)", one for each rule.
  std::string rules() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The effect that a certificate's record describes.
Result<kernel::Effects> recorded_effect(const kernel::Record& record);

}  // namespace certgate::agentd
