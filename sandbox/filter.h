// The seccomp filter: default-deny, arch checked first, one row per system call (call_table.h).
//
//   CG_TRY(FilterView filter, filter_programs());
//   ... in the agent's first process, after no_new_privs:
//   int listener = install_filter(filter);     // async-signal-safe
//
// Classes: allow (kernel decides), trap (forwarded to the supervisor), errno (refused in the
// kernel), kill (foreign architecture, x32). A call that is in no row gets ENOSYS.
//
// Two programs, because one libseccomp filter can say "this argument is one of these" or "it is
// none of these" but not both without relying on the order of its rules:
//   program  default ENOSYS; the table, with allow-lists of arguments; holds the listener
//   guard    default allow; argument values that are refused, and seccomp(2) itself
// The kernel runs both and takes the strictest answer, and the guard's on a tie (it is the
// younger).
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernel/result.h"
#include "sandbox/notify.h"

namespace certgate::sandbox {

struct Filter {
  std::vector<sock_filter> program;
  std::vector<sock_filter> guard;
};

// The same two programs somewhere else, for a process that may not allocate.
struct FilterView {
  std::span<const sock_filter> program;
  std::span<const sock_filter> guard;
};

// An installed filter's listener, and whether the kernel had WAIT_KILLABLE_RECV for it.
struct Installed {
  int listener = -1;  // or -errno
  Interrupts interrupts = Interrupts::kFatal;
};

enum class CallClass : uint8_t { kAllow, kTrap, kErrno, kUnknown };
// Class of a call whose class does not depend on arguments (kAllow for those with argument tests).
CallClass call_class(int nr);

// Makes both programs with libseccomp and proves them against the call table with the evaluator:
// when certgate is built (make_filter.cc), and in the tests.
Result<Filter> build_filter();

// Those very programs, as they were built in. Only a build of mutants makes them anew.
Result<FilterView> filter_programs();

// Installs the program with seccomp(SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV), where the
// kernel has no such flag (before 5.19) without the latter, then the guard. Returns the listener or
// -errno; after a failure the caller must exit.
Installed install_filter(const FilterView& filter);
inline Installed install_filter(const Filter& filter) {
  return install_filter(FilterView{filter.program, filter.guard});
}

}  // namespace certgate::sandbox
