#include "sandbox/bpf_eval.h"

#include <array>
#include <cstddef>
#include <cstring>

namespace certgate::sandbox {
namespace {

struct Machine {
  uint32_t a = 0;
  uint32_t x = 0;
  std::array<uint32_t, BPF_MEMWORDS> memory{};
  size_t pc = 0;
  bool read_arguments = false;
};

Error bad(const Machine& machine, const char* what) {
  return fail("BPF instruction " + std::to_string(machine.pc) + ": " + what);
}

// Loads are 32-bit words of seccomp_data at aligned offsets, as seccomp_check_filter demands.
Status load(Machine& machine, const sock_filter& step, const seccomp_data& call) {
  const bool into_x = BPF_CLASS(step.code) == BPF_LDX;
  uint32_t& target = into_x ? machine.x : machine.a;
  const auto mode = BPF_MODE(step.code);
  if (mode == BPF_IMM) {
    target = step.k;
  } else if (mode == BPF_MEM) {
    if (step.k >= BPF_MEMWORDS) return bad(machine, "scratch slot out of range");
    target = machine.memory[step.k];
  } else if (mode == BPF_LEN && BPF_SIZE(step.code) == BPF_W) {
    target = sizeof(seccomp_data);
  } else if (mode == BPF_ABS && !into_x && BPF_SIZE(step.code) == BPF_W) {
    if (step.k % 4 != 0 || step.k > sizeof(seccomp_data) - sizeof target)
      return bad(machine, "load out of range");
    if (step.k >= offsetof(seccomp_data, instruction_pointer)) machine.read_arguments = true;
    std::memcpy(&target, reinterpret_cast<const char*>(&call) + step.k, sizeof target);
  } else {
    return bad(machine, "load that seccomp does not accept");
  }
  return ok();
}

// False in the value: division by zero, which ends a program with 0 (kill the thread).
Result<bool> arithmetic(Machine& machine, const sock_filter& step) {
  const uint32_t operand = BPF_SRC(step.code) == BPF_X ? machine.x : step.k;
  switch (BPF_OP(step.code)) {
    case BPF_ADD:
      machine.a += operand;
      break;
    case BPF_SUB:
      machine.a -= operand;
      break;
    case BPF_MUL:
      machine.a *= operand;
      break;
    case BPF_DIV:
      if (operand == 0) return false;
      machine.a /= operand;
      break;
    case BPF_AND:
      machine.a &= operand;
      break;
    case BPF_OR:
      machine.a |= operand;
      break;
    case BPF_XOR:
      machine.a ^= operand;
      break;
    case BPF_LSH:
      machine.a <<= (operand & 31);
      break;
    case BPF_RSH:
      machine.a >>= (operand & 31);
      break;
    case BPF_NEG:
      machine.a = 0u - machine.a;
      break;
    default:
      return bad(machine, "arithmetic that seccomp does not accept");
  }
  return true;
}

Status jump(Machine& machine, const sock_filter& step) {
  const uint32_t operand = BPF_SRC(step.code) == BPF_X ? machine.x : step.k;
  bool taken = false;
  switch (BPF_OP(step.code)) {
    case BPF_JA:
      machine.pc += step.k;
      return ok();
    case BPF_JEQ:
      taken = machine.a == operand;
      break;
    case BPF_JGT:
      taken = machine.a > operand;
      break;
    case BPF_JGE:
      taken = machine.a >= operand;
      break;
    case BPF_JSET:
      taken = (machine.a & operand) != 0;
      break;
    default:
      return bad(machine, "jump that seccomp does not accept");
  }
  machine.pc += taken ? step.jt : step.jf;
  return ok();
}

Status store(Machine& machine, const sock_filter& step) {
  if (step.k >= BPF_MEMWORDS) return bad(machine, "scratch slot out of range");
  machine.memory[step.k] = BPF_CLASS(step.code) == BPF_STX ? machine.x : machine.a;
  return ok();
}

// ACTION_ONLY of the kernel: compared as a signed number, the smallest is the strictest.
int32_t strictness(uint32_t action) {
  return static_cast<int32_t>(action & SECCOMP_RET_ACTION_FULL);
}

}  // namespace

Result<Evaluation> run(std::span<const sock_filter> program, const seccomp_data& call) {
  if (program.empty() || program.size() > BPF_MAXINSNS)
    return fail("BPF program of a wrong length");
  Machine machine;
  // Jumps only go forward, so every instruction runs at most once and this loop ends.
  for (; machine.pc < program.size(); ++machine.pc) {
    const sock_filter& step = program[machine.pc];
    switch (BPF_CLASS(step.code)) {
      case BPF_LD:
      case BPF_LDX:
        CG_CHECK(load(machine, step, call));
        break;
      case BPF_ST:
      case BPF_STX:
        CG_CHECK(store(machine, step));
        break;
      case BPF_ALU: {
        CG_TRY(const bool defined, arithmetic(machine, step));
        if (!defined) return Evaluation{0, machine.read_arguments};
        break;
      }
      case BPF_JMP:
        CG_CHECK(jump(machine, step));
        break;
      case BPF_MISC:
        if (BPF_MISCOP(step.code) == BPF_TAX) {
          machine.x = machine.a;
        } else if (BPF_MISCOP(step.code) == BPF_TXA) {
          machine.a = machine.x;
        } else {
          return bad(machine, "instruction that seccomp does not accept");
        }
        break;
      default:  // BPF_RET
        return Evaluation{BPF_RVAL(step.code) == BPF_A ? machine.a : step.k,
                          machine.read_arguments};
    }
  }
  return bad(machine, "the program ran past its end");
}

Result<Evaluation> run(const Filter& filter, const seccomp_data& call) {
  CG_TRY(const Evaluation guard, run(filter.guard, call));
  CG_TRY(const Evaluation program, run(filter.program, call));
  Evaluation result = strictness(program.action) < strictness(guard.action) ? program : guard;
  result.read_arguments = guard.read_arguments || program.read_arguments;
  return result;
}

}  // namespace certgate::sandbox
