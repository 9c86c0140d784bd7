// The seccomp filter: default-deny, arch checked first, one row per system call.
//
//   CG_TRY(Filter filter, build_filter());
//   ... in the agent's first process, after no_new_privs:
//   int listener = install_filter(filter);     // async-signal-safe
//
// Classes: allow (kernel decides), trap (forwarded to the supervisor), errno (refused in the
// kernel), kill (foreign architecture, x32). A call that is in no row gets ENOSYS.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernel/result.h"

namespace certgate::sandbox {

struct Filter {
  std::vector<sock_filter> program;
};

enum class CallClass : uint8_t { kAllow, kTrap, kErrno, kUnknown };
// Class of a call whose class does not depend on arguments (kAllow for those with argument tests).
CallClass call_class(int nr);

Result<Filter> build_filter();

// seccomp(SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV). Returns the listener or -errno.
int install_filter(const Filter& filter);

}  // namespace certgate::sandbox
