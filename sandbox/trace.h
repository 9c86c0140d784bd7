// Trace: one stop of one exec. All functions must be called on the same thread (ptrace's rule).
//
//   CG_CHECK(seize_for_exec(tid));            // before the notification is answered
//   listener.proceed_to_exec(id);
//   ExecStop stop = wait_exec();              // new image loaded, nothing of it has run; or it
//   failed
//   ... verify ...
//   stop.kind == kExeced && genuine ? detach(stop.pid) : kill_traced(stop.pid);
//
// An interrupt is queued before the exec may proceed, so there is exactly one stop: at
// PTRACE_EVENT_EXEC when it succeeds (the interrupt is dropped with the detach), or on the way back
// to user mode when it fails. A tracer that dies takes the stopped task with it (EXITKILL).
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "kernel/result.h"

namespace certgate::sandbox {

struct ExecStop {
  enum class Kind : uint8_t { kExeced, kFailed, kGone } kind = Kind::kGone;
  pid_t pid = -1;  // kExeced: the thread group leader, whichever thread called exec
  int error = 0;   // kFailed: errno of the exec
};

Status seize_for_exec(pid_t tid);
ExecStop wait_exec(pid_t tid);
// Stack pointer of a stopped task.
Result<uint64_t> stack_pointer(pid_t pid);
void detach(pid_t pid);
void kill_traced(pid_t pid);

}  // namespace certgate::sandbox
