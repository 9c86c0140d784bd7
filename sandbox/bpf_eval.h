// BPF evaluator: what a classic seccomp program answers for one system call, without the kernel.
//
//   seccomp_data call{};
//   call.arch = AUDIT_ARCH_X86_64;
//   call.nr = SYS_ptrace;
//   CG_TRY(Evaluation answer, run(filter.program, call));
//   answer.action                 // SECCOMP_RET_ERRNO | EPERM
//   answer.read_arguments         // false: the kernel's always-allow bitmap can hold this call
//
// Used to prove a filter: by the unit tests over all numbers and arguments, and by build_filter()
// over the rows of the call table when certgate is built, whatever library made the program.
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <span>

#include "kernel/result.h"
#include "sandbox/filter.h"

namespace certgate::sandbox {

struct Evaluation {
  uint32_t action = 0;          // SECCOMP_RET_* with its data
  bool read_arguments = false;  // looked at anything but the number and the architecture
};

// An error means that the program is not one the kernel would accept (bad opcode, jump or load).
Result<Evaluation> run(std::span<const sock_filter> program, const seccomp_data& call);

// What the kernel does with the whole stack: the strictest action, the youngest filter on a tie.
Result<Evaluation> run(const Filter& filter, const seccomp_data& call);

}  // namespace certgate::sandbox
