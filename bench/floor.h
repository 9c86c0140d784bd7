// Floor: the least that a notifier in user space can do for one call, as a yardstick.
//
//   open       RECV, copy the path, openat2, ADDFD|SEND
//   reference  the same with ID_VALID, statx and a 300-byte append: the least of an honest supervisor
//   exec       RECV, SEIZE, INTERRUPT, CONTINUE, one stop at PTRACE_EVENT_EXEC, detach
//   connect    RECV, copy the address, pidfd_getfd, connect, SEND
//
// No policy, no log, no proof, and deliberately none of certgate's own primitives: a change to those
// must not move the yardstick. It trusts the traced program, which is ours; it gates nothing.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::bench {

enum class Trap : uint8_t { kNone, kOpen, kOpenReference, kExec, kConnect };

// In the child, before its exec: sets no_new_privs and traps the one kind of call. Returns the
// listener or -errno. Async-signal-safe.
int install_trap(Trap trap);

struct FloorReport {
  bool same_cpu = false;   // the kernel knows SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6)
};

// In the parent: answers calls until `child` has ended, and leaves it to be reaped by the caller.
// `log` is the file that the reference appends to. Uses SIGCHLD and SIGALRM of this process meanwhile.
Result<FloorReport> serve_floor(Trap trap, sandbox::UniqueFd listener, pid_t child, int log);

}  // namespace certgate::bench
