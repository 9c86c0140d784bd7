// Own root: what the supervisor's process can still see of the host's files, once the sandbox is
// made: /proc and what names are looked up with. Not the operator's home, the key, the log, the
// labels or the workspace; the agent's files it reaches through the sandbox's root alone.
//
//   const Status entered = enter_own_namespaces();   // single-threaded, before launch()
//   CG_TRY(Sandbox box, launch(spec));               // says why, where namespaces are refused
//   CG_CHECK(entered);
//   CG_CHECK(enter_own_root());                      // still single-threaded
//   CG_CHECK(give_up_privileges());                  // now nothing leads back
//
// The user namespace is what closes the ways around: of a process outside it, of the same user or
// not, no memory, descriptor, root or working directory can be reached, since that takes a
// capability there. It is the parent of the sandbox's own, so that the supervisor, whose uid made
// that one, may trace and read in it without any capability here.
//
// State: host's view → own namespaces → own root → (no capability) for good
#pragma once

#include "kernel/result.h"

namespace certgate::supervisor {

// User and mount namespaces of our own, with uid and gid mapped to themselves.
Status enter_own_namespaces();

// Replaces the root by one with only what the supervisor needs, read-only. After an error the
// caller must end.
Status enter_own_root();

}  // namespace certgate::supervisor
