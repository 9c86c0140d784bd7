// Authority: keys, log, label store; the process that never reads agent memory.
//
//   CG_TRY(Authority authority, Authority::open({state_dir, label_dir}));
//   CG_TRY(Run run, authority.begin(request));          // start + token records, segment, grant
//   CG_CHECK(send_grant(channel_fd, run.grant));
//   CG_CHECK(authority.serve(channel_fd, supervisor_pidfd));  // until the supervisor has ended
//   CG_CHECK(authority.finish());                       // seal what is left, sign
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agentd/holder_key.h"
#include "kernel/policy.h"
#include "kernel/record.h"
#include "kernel/result.h"
#include "kernel/token.h"
#include "supervisor/channel.h"
#include "supervisor/redaction.h"

namespace certgate::agentd {

struct AuthorityPaths {
  std::string state_dir;  // key, log, segments (created 0700 when missing)
  std::string label_dir;  // one per agent uid, shared by every state directory
  uid_t label_uid = 0;    // whose it is; root opens and makes it as that user
  gid_t label_gid = 0;
};

// Standing authority that an operator hands a run: a chain of tokens, and the key that holds its
// last one. Without: a token for everything that the policy allows.
struct TokenHand {
  std::string chain;  // envelopes, one a line
  std::optional<HolderKey> key;
};

struct RunRequest {
  std::string command_line;  // escaped, for the start record
  kernel::Digest policy_digest{};
  std::string policy;  // recorded_body() of it
  std::optional<TokenHand> token;
  std::string initial_label;          // canonical text
  std::vector<kernel::Record> given;  // kGiven: object, tool, sha256; recorded at the start
  std::string workspace, home;        // inside, for whoever reads the log
  bool observing = false;             // the policy only looks on
  supervisor::Redaction redaction = {};
  int64_t ttl_ns = 24ll * 3600 * 1000000000;
};

struct Run {
  std::string id;  // 8 characters of [a-z2-7]
  supervisor::Grant grant;
};

class Authority {
 public:
  // Makes what is missing; checks the log against its last signed checkpoint; seals segments that a
  // dead run left behind (with a gap record when their tail is torn).
  static Result<Authority> open(const AuthorityPaths& paths);
  Authority(Authority&&) noexcept;
  ~Authority();

  Result<Run> begin(const RunRequest& request);
  // Runs the event loop: label joins, sealing at least once a second. Returns when the channel is
  // closed and the supervisor (pidfd) has ended. An error means the log or the labels cannot be
  // kept: the caller must end the agent.
  Status serve(int channel, int supervisor_pidfd);
  // disk_full(): the last records are whole and wait in their segment for the next open().
  Status finish();

 private:
  struct Impl;
  explicit Authority(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace certgate::agentd
