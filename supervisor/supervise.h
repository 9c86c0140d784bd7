// Supervise: hosts one agent, from launch to its last record. The supervisor process's whole life.
//
// Threads: the caller's (io: relay, resolver, signals, the end), one notify thread (opens, and
// hands the rest on), one tracer thread (exec), the blocking pool (connect, FIFOs), and two that
// carry keys and output when there is a terminal (terminal.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernel/policy.h"
#include "sandbox/cgroup.h"
#include "sandbox/launch.h"
#include "supervisor/session.h"

namespace certgate::supervisor {

// Lent descriptors of home archives (home_archive.h), or -1.
struct HomeArchives {
  int in = -1;   // unpacked before the agent runs; `initial` must cover its label
  int out = -1;  // packed when the agent has ended
};

struct Hosting {
  const kernel::Policy& policy;
  sandbox::Spec spec;
  kernel::Label initial;  // of argv, environment and stdin
  Report report = Report::kText;
  HomeArchives home = {};
  std::optional<uint64_t> timeout_ns;  // then the agent and all it started are ended
  const sandbox::Cgroup& cgroup;       // that the spec's entrances lead to
  uint64_t records_per_second = 10000;
  std::string approve_options = {};  // what `certgate approve` needs beside the id
  // `certgate run --observe`: `policy` allows more than this one, which says what is recorded as
  // observed (session.h).
  const kernel::Policy* observed = nullptr;
  Redaction redaction = {};
};

// Exit statuses of `certgate run` that are not the command's own.
inline constexpr int kExitTimeout = 124;
inline constexpr int kExitFailed = 125;
inline constexpr int kExitRefused = 126;
inline constexpr int kExitNotFound = 127;

// The process must be single-threaded and already have the agent's uid and gid. Returns the exit
// status of the agent (128+N for signal N, 124 when its time was up); an error means that nothing
// of the agent has run.
Result<int> supervise(Hosting hosting, sandbox::UniqueFd channel);

}  // namespace certgate::supervisor
