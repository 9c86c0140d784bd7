// Confine: what the authority may still do, once it holds the key and the supervisor runs.
//
//   CG_CHECK(confine_authority());       // after the grant, before the first request is read
//
// It serves the log and the label store to a process that may have been taken over by the agent.
// So: files, the one channel and who connects to the control socket, but no other sockets,
// no tracing, no exec, no new process, no new
// executable memory, no change of credentials, no core, no capability but what the end of a run
// needs; a forbidden call kills it, and the agent with it.
#pragma once

#include "kernel/result.h"
#include "sandbox/own_filter.h"

namespace certgate::agentd {

// The calls of the authority, for the filter and for its tests.
sandbox::OwnCalls authority_calls();

Status confine_authority();

}  // namespace certgate::agentd
