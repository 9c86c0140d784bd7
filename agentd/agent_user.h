// Agent user: a host uid of its own for one run, and the workspace as that uid sees it. Root only.
//
//   CG_TRY(OwnUser user, OwnUser::take());                       // free again when the run has
//   ended CG_TRY(UniqueFd tree, map_workspace(dir, owner, user.uid()));  // an idmapped mount,
//   detached
//
// Uids come from [kFirstOwnUid, +kOwnUids), gids are equal to them. One is taken by flock of a file
// named after it, which every process of certgate for the run holds, and given
// only while no process of the host has it. In the mapped workspace the owner's files are
// the agent's, and what the agent makes belongs to the owner on the disk; everyone else's stay
// foreign.
#pragma once

#include <sys/types.h>

#include <string>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::agentd {

inline constexpr uid_t kFirstOwnUid = 2'000'000'000;
inline constexpr uid_t kOwnUids = 4096;

class OwnUser {
 public:
  static Result<OwnUser> take(const std::string& dir = "/var/lib/certgate-uids");
  uid_t uid() const { return uid_; }

 private:
  uid_t uid_ = 0;
  sandbox::UniqueFd lock_;
};

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

// Refuses with the cure where the file system or the kernel has no idmapped mounts.
Result<sandbox::UniqueFd> map_workspace(const std::string& workspace, const Owner& owner,
                                        uid_t agent);

}  // namespace certgate::agentd
