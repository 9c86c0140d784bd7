// Descriptors that an exec hands on: those above 2 without close-on-exec.
//
//   before   inherited_descriptors(tid, 1, fds)      what the decision sees
//   at the exec stop, where all that is left was handed on:  leaves_descriptors(pid)
//
// Another thread of the caller may still change the table in between: the second look is what
// holds.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <vector>

namespace certgate::supervisor {

// At most `limit`. 0 or errno.
int inherited_descriptors(pid_t tid, size_t limit, std::vector<int>& out);
// Whether a process in its exec stop has any descriptor above 2; also when that cannot be said.
bool leaves_descriptors(pid_t pid);

}  // namespace certgate::supervisor
