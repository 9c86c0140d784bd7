// Confine: what the supervisor itself may still do, once everything it needs is made.
//
//   CG_CHECK(preload_name_services(policy));   // may load code: before
//   CG_CHECK(confine_supervisor());            // all threads, for good
//   CG_CHECK(sandbox::release(box));           // only now does the agent run
//
// A hole in a decoder must not be a hole in the host: no exec, no new process, no new executable
// memory, no namespaces or mounts, no raw, netlink or packet sockets, tracing only to observe. A
// call that only foreign code would make kills the supervisor, and the agent with it.
// What it can still see of the host is in own_root.h.
#pragma once

#include "kernel/policy.h"
#include "kernel/result.h"
#include "sandbox/own_filter.h"

namespace certgate::supervisor {

// The calls of the supervisor, for the filter and for its tests.
sandbox::OwnCalls supervisor_calls();

// Whether some rule allows connections.
bool names_hosts(const kernel::Policy& policy);

// Loads the host's name service modules, where the policy names hosts: libc would load them at the
// first lookup, when no code can be loaded any more. A module that is not there then, or wants what
// the filter refuses, is passed over; where nsswitch.conf names no other, no name is found.
void preload_name_services(const kernel::Policy& policy);

Status confine_supervisor();

}  // namespace certgate::supervisor
