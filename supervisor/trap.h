// Trap: what every handler of trapped calls shares. Built once per run, before the first call.
#pragma once

#include <sys/types.h>

#include <set>
#include <string>

#include "sandbox/notify.h"
#include "supervisor/path_walk.h"
#include "supervisor/session.h"
#include "supervisor/terminal.h"

namespace certgate::supervisor {

class ExitWatch;

// File systems that are born and die with the sandbox: what is there was put there by this agent,
// so its label can be no higher than the agent's own, and no label needs storing.
struct PrivatePlaces {
  std::set<dev_t> devs;
  bool contains(dev_t dev) const { return devs.contains(dev); }
};

// The operator's stdin, stdout and stderr: reopening one of them gives nothing the agent lacks.
struct InheritedStdio {
  struct Stream {
    dev_t dev = 0;
    ino_t ino = 0;
    bool open = false, readable = false, writable = false;
  };
  Stream streams[3];
  // `left_out`: bit N = the agent does not have our descriptor N.
  static InheritedStdio of_this_process(unsigned left_out);
  bool covers(const ObjectFacts& facts, bool read, bool write) const;
};

struct Trap {
  const sandbox::Listener& listener;
  Session& session;
  const PathWalk& walk;
  PrivatePlaces places;
  InheritedStdio stdio;
  uid_t uid = 0;  // of the agent and of us
  gid_t gid = 0;
  AgentTerminal terminal;
  Approvals* approvals = nullptr;
  ExitWatch* exits = nullptr;

  // What was not certified: refused, or left to wait for an operator.
  void decline(const sandbox::TrappedCall& call, const Judged& judged) const;

  // The base of a relative path: the caller's cwd (AT_FDCWD) or one of its descriptors, pinned.
  // 0 or errno; `out` stays empty for an absolute path.
  static int base_of(int tid, int dirfd, const std::string& path, sandbox::UniqueFd& out);
  // A descriptor of ours for the very object behind the caller's. 0 or errno.
  static int descriptor_of(int tid, int fd, sandbox::UniqueFd& out);
};

}  // namespace certgate::supervisor
