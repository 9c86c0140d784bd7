// Run plan: everything `certgate run` decides before it starts anything.
//
//   CG_TRY(RunPlan plan, make_run_plan(options));    // reads, checks, compiles; changes nothing
//
// Who the agent runs as: the caller, or, when that is root, the owner of the workspace or a host
// uid of its own; never uid 0. Such a uid is the one thing that is taken here.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "agentd/agent_user.h"
#include "agentd/policy_file.h"
#include "kernel/label.h"
#include "kernel/record.h"
#include "kernel/result.h"
#include "sandbox/launch.h"

namespace certgate::agentd {

struct RunOptions {
  std::string policy = "default";
  std::string workspace;  // empty = the current directory
  std::string state;      // empty = the default state directory
  std::optional<std::string> stdin_origin;
  bool json = false;
  std::optional<uint64_t> timeout_ns;       // of the whole run
  bool own_user = false;                    // a host uid of its own (agent_user.h)
  std::string token, token_key;             // files, see authority.h
  std::vector<std::string> messages;        // files with words of the user
  std::optional<std::string> admin_policy;  // see policy_layers.h
  bool observe = false;                     // see observe.h
  std::string require_signed;               // see policy_bundle.h
  std::vector<std::string> command;
};

struct RunPlan {
  uid_t uid = 0;
  gid_t gid = 0;
  bool drop = false;  // started by root: become uid first
  Owner owner;        // of the workspace: whose labels and homes these are
  std::optional<OwnUser> own_user;
  sandbox::UniqueFd workspace_tree;
  std::string state_dir, label_dir;
  CompiledPolicy policy;                 // what decides
  std::optional<kernel::Policy> strict;  // observing: what would have decided
  sandbox::Spec spec;
  kernel::Label initial;
  std::string command_line;  // escaped
  std::vector<kernel::Record> given;  // messages and pinned tools, for the log
};

Result<RunPlan> make_run_plan(const RunOptions& options);

}  // namespace certgate::agentd
