// Exec proof: what a process stopped at PTRACE_EVENT_EXEC really is.
//
// At that stop the old threads are gone, the new memory is private to the process and none of its
// instructions has run, so what /proc says cannot be changed by anyone inside.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {

struct ExecProof {
  sandbox::UniqueFd exe;  // O_PATH of the running image
  std::vector<std::string> argv, env;
  std::string execfn;                // AT_EXECFN
  uint64_t loader_base = 0;          // AT_BASE, 0 for a static program
  std::vector<uint32_t> uids, gids;  // real, effective (AT_UID, AT_EUID, AT_GID, AT_EGID)
  bool privileged = false;           // AT_SECURE: the kernel saw a change of credentials
};

Result<ExecProof> read_exec_proof(pid_t pid);

// True when the mapping of `pid` at `address` is of the file behind `fd`.
bool maps_file_at(pid_t pid, uint64_t address, int fd);

}  // namespace certgate::supervisor
