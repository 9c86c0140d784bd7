// The BPF evaluator on programs of any bytes: it ends, never leaves the program, and says the same
// twice. And the real filter on any call: foreign architectures die, unknown numbers get ENOSYS.
#include <linux/audit.h>

#include <cerrno>

#include "sandbox/bpf_eval.h"
#include "sandbox/call_table.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate::sandbox;
namespace fuzz = certgate::fuzz;

namespace {

void any_program(fuzz::Bytes in) {
  seccomp_data call{};
  call.nr = static_cast<int>(in.number(2));
  call.arch = in.byte() % 2 ? AUDIT_ARCH_X86_64 : static_cast<uint32_t>(in.number(4));
  for (auto& argument : call.args) argument = in.number();
  std::vector<sock_filter> program;
  while (!in.empty() && program.size() <= BPF_MAXINSNS) {
    sock_filter step{};
    step.code = static_cast<uint16_t>(in.number(2));
    step.jt = in.byte();
    step.jf = in.byte();
    step.k = static_cast<uint32_t>(in.number(4));
    program.push_back(step);
  }
  const auto first = run(program, call);
  const auto second = run(program, call);
  CG_LAW(static_cast<bool>(first) == static_cast<bool>(second));
  if (first) CG_LAW(first->action == second->action);
  // A program that returns before it reads an argument gives one answer for all arguments.
  if (first && !first->read_arguments) {
    for (auto& argument : call.args) argument = ~argument;
    const auto other = run(program, call);
    CG_LAW(other && other->action == first->action);
  }
}

// What a row may be answered with: arguments may make it stricter, never more than allowed.
bool allowed_by_table(int nr, uint32_t action) {
  const uint32_t kind = action & SECCOMP_RET_ACTION_FULL;
  const CallRow* row = find_call(nr);
  if (row == nullptr) return action == (SECCOMP_RET_ERRNO | ENOSYS);
  switch (row->call_class) {
    case CallClass::kErrno:
      return action == (SECCOMP_RET_ERRNO | static_cast<uint32_t>(row->error));
    case CallClass::kTrap:
      return kind == SECCOMP_RET_USER_NOTIF || kind == SECCOMP_RET_ERRNO ||
             kind == SECCOMP_RET_ALLOW;  // an O_PATH open gives no content
    case CallClass::kAllow:
      return kind == SECCOMP_RET_ALLOW || kind == SECCOMP_RET_ERRNO ||
             kind == SECCOMP_RET_USER_NOTIF;
    case CallClass::kUnknown:
      break;
  }
  return false;
}

void real_filter(fuzz::Bytes in) {
  static const auto filter = build_filter();
  CG_LAW(filter);
  seccomp_data call{};
  call.nr = static_cast<int>(in.byte() % 4 ? in.number(2) % 600 : in.number(4));
  const bool native = in.byte() % 4 != 0;
  call.arch = native ? AUDIT_ARCH_X86_64 : static_cast<uint32_t>(in.number(4));
  call.instruction_pointer = in.number();
  for (auto& argument : call.args) argument = in.number();
  const auto answer = run(*filter, call);
  CG_LAW(answer);
  const bool x32 = static_cast<uint32_t>(call.nr) >= 0x40000000u && call.nr != -1;
  if (call.arch != AUDIT_ARCH_X86_64 || x32) {
    CG_LAW(answer->action == SECCOMP_RET_KILL_PROCESS);
    return;
  }
  CG_LAW(allowed_by_table(call.nr, answer->action));
}

}  // namespace

FUZZ_TARGET(bpf) {
  fuzz::Bytes in(data, size);
  if (in.byte() % 2 == 0) {
    any_program(in);
  } else {
    real_filter(in);
  }
  return 0;
}
