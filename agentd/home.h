// Kept homes: one for each policy, user and label, in the state directory.
//
//   CG_TRY(KeptHome home, KeptHome::take({state_dir, "codex", uid, initial}));   // before the fork
//   initial = initial.join(home.label());       // who is given the home is given what shaped it
//   ... the supervisor unpacks home.in(), runs the agent, packs into home.out() ...
//   CG_CHECK(home.keep());                      // replaces the home of the label the run ended
//   with
//
// A home belongs to the untrusted part of a label (web, agent, file, unknown): runs without any
// share the clean home, and a run that ended with web:a.test leaves the home of web:a.test and no
// trace in the one it started with. The label itself is in the archive, written by the supervisor;
// the agent never sees the directory. A home is held by one run at a time (flock); replacing is one
// rename; a run that was killed leaves the old home.
#pragma once

#include <sys/types.h>

#include <string>

#include "kernel/label.h"
#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::agentd {

struct HomeRequest {
  std::string state_dir;
  std::string policy;
  uid_t uid = 0;
  kernel::Label initial;
};

class KeptHome {
 public:
  static Result<KeptHome> take(const HomeRequest& request);
  KeptHome(KeptHome&&) noexcept = default;
  ~KeptHome();

  const kernel::Label& label() const { return label_; }  // of the home taken; bottom: none yet
  int in() const { return in_.get(); }                   // the archive, or -1
  int out() const { return out_.get(); }                 // where the next one goes
  // The archive in out() becomes the home of its label. An archive that was not finished is thrown
  // away.
  Status keep();

 private:
  KeptHome() = default;
  Status open_part();
  Status open_archive(const std::string& key);
  std::string name(const std::string& key) const;

  std::string policy_;
  uid_t uid_ = 0;
  kernel::Label label_;
  sandbox::UniqueFd dir_, lock_, in_, out_;
  std::string part_;
};

// The part of a label that no policy trusts by default, as canonical text; "" = clean.
std::string home_key(const kernel::Label& label);

}  // namespace certgate::agentd
