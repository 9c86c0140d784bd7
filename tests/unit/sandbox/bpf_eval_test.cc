#include "sandbox/bpf_eval.h"

#include <gtest/gtest.h>
#include <linux/audit.h>

#include <cstddef>
#include <vector>

namespace certgate::sandbox {
namespace {

using Program = std::vector<sock_filter>;

sock_filter statement(unsigned code, uint32_t k) {
  return BPF_STMT(static_cast<uint16_t>(code), k);
}
sock_filter branch(unsigned code, uint32_t k, uint8_t yes, uint8_t no) {
  return BPF_JUMP(static_cast<uint16_t>(code), k, yes, no);
}

uint32_t value_of(const Program& program, const seccomp_data& call = {}) {
  const auto answer = run(program, call);
  EXPECT_TRUE(answer) << (answer ? "" : answer.error().what);
  return answer ? answer->action : 0xbad;
}

TEST(BpfEval, ReturnsConstantAndAccumulator) {
  EXPECT_EQ(value_of({statement(BPF_RET | BPF_K, 42)}), 42u);
  EXPECT_EQ(value_of({statement(BPF_LD | BPF_IMM, 7), statement(BPF_RET | BPF_A, 0)}), 7u);
}

TEST(BpfEval, LoadsWordsOfTheCall) {
  seccomp_data call{};
  call.nr = 5;
  call.arch = AUDIT_ARCH_X86_64;
  call.args[2] = 0x1122334455667788;
  const auto word = [&](size_t offset) {
    return value_of({statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)),
                     statement(BPF_RET | BPF_A, 0)},
                    call);
  };
  EXPECT_EQ(word(offsetof(seccomp_data, nr)), 5u);
  EXPECT_EQ(word(offsetof(seccomp_data, arch)), AUDIT_ARCH_X86_64);
  EXPECT_EQ(word(offsetof(seccomp_data, args) + 16), 0x55667788u);
  EXPECT_EQ(word(offsetof(seccomp_data, args) + 20), 0x11223344u);
}

TEST(BpfEval, TellsWhetherArgumentsWereRead) {
  const auto reads = [](size_t offset) {
    const Program program{statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)),
                          statement(BPF_RET | BPF_K, 0)};
    return run(program, seccomp_data{})->read_arguments;
  };
  EXPECT_FALSE(reads(offsetof(seccomp_data, nr)));
  EXPECT_FALSE(reads(offsetof(seccomp_data, arch)));
  EXPECT_TRUE(reads(offsetof(seccomp_data, instruction_pointer)));
  EXPECT_TRUE(reads(offsetof(seccomp_data, args)));
}

TEST(BpfEval, Arithmetic) {
  const auto compute = [](unsigned operation, uint32_t a, uint32_t k) {
    return value_of({statement(BPF_LD | BPF_IMM, a), statement(BPF_ALU | operation | BPF_K, k),
                     statement(BPF_RET | BPF_A, 0)});
  };
  EXPECT_EQ(compute(BPF_ADD, 0xffffffff, 2), 1u);
  EXPECT_EQ(compute(BPF_SUB, 1, 2), 0xffffffffu);
  EXPECT_EQ(compute(BPF_MUL, 6, 7), 42u);
  EXPECT_EQ(compute(BPF_DIV, 42, 5), 8u);
  EXPECT_EQ(compute(BPF_AND, 0xff00ff, 0x0ff0), 0x0f0u);
  EXPECT_EQ(compute(BPF_OR, 0xf0, 0x0f), 0xffu);
  EXPECT_EQ(compute(BPF_XOR, 0xff, 0x0f), 0xf0u);
  EXPECT_EQ(compute(BPF_LSH, 1, 31), 0x80000000u);
  EXPECT_EQ(compute(BPF_RSH, 0x80000000, 31), 1u);
  EXPECT_EQ(compute(BPF_NEG, 1, 0), 0xffffffffu);
}

TEST(BpfEval, DivisionByZeroKills) {
  EXPECT_EQ(value_of({statement(BPF_LD | BPF_IMM, 1), statement(BPF_LDX | BPF_IMM, 0),
                      statement(BPF_ALU | BPF_DIV | BPF_X, 0),
                      statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)}),
            0u);
}

TEST(BpfEval, Jumps) {
  const auto taken = [](unsigned operation, uint32_t a, uint32_t k) {
    return value_of({statement(BPF_LD | BPF_IMM, a), branch(BPF_JMP | operation | BPF_K, k, 0, 1),
                     statement(BPF_RET | BPF_K, 1), statement(BPF_RET | BPF_K, 0)}) == 1;
  };
  EXPECT_TRUE(taken(BPF_JEQ, 3, 3));
  EXPECT_FALSE(taken(BPF_JEQ, 3, 4));
  EXPECT_TRUE(taken(BPF_JGT, 0x80000000, 1));  // unsigned
  EXPECT_FALSE(taken(BPF_JGT, 1, 1));
  EXPECT_TRUE(taken(BPF_JGE, 1, 1));
  EXPECT_TRUE(taken(BPF_JSET, 6, 2));
  EXPECT_FALSE(taken(BPF_JSET, 4, 2));
  EXPECT_EQ(value_of({statement(BPF_JMP | BPF_JA, 1), statement(BPF_RET | BPF_K, 1),
                      statement(BPF_RET | BPF_K, 2)}),
            2u);
}

TEST(BpfEval, ScratchMemoryAndIndexRegister) {
  EXPECT_EQ(value_of({statement(BPF_LD | BPF_IMM, 9), statement(BPF_ST, 3),
                      statement(BPF_LD | BPF_IMM, 0), statement(BPF_LDX | BPF_MEM, 3),
                      statement(BPF_MISC | BPF_TXA, 0), statement(BPF_RET | BPF_A, 0)}),
            9u);
}

TEST(BpfEval, RefusesWhatTheKernelRefuses) {
  const auto refused = [](const Program& program) { return !run(program, seccomp_data{}); };
  EXPECT_TRUE(refused({}));
  EXPECT_TRUE(refused(Program(BPF_MAXINSNS + 1, statement(BPF_RET | BPF_K, 0))));
  EXPECT_TRUE(refused({statement(BPF_LD | BPF_IMM, 0)}));  // no return
  EXPECT_TRUE(refused({statement(BPF_JMP | BPF_JA, 7), statement(BPF_RET | BPF_K, 0)}));
  EXPECT_TRUE(refused({statement(BPF_LD | BPF_W | BPF_ABS, 2)}));  // unaligned
  EXPECT_TRUE(refused({statement(BPF_LD | BPF_W | BPF_ABS, sizeof(seccomp_data))}));
  EXPECT_TRUE(refused({statement(BPF_LD | BPF_W | BPF_ABS, 0xfffffffc)}));  // + 4 is 0
  EXPECT_TRUE(refused({statement(BPF_LD | BPF_B | BPF_ABS, 0)}));
  EXPECT_TRUE(refused({statement(BPF_LD | BPF_MEM, BPF_MEMWORDS)}));
  EXPECT_TRUE(refused({statement(BPF_ST, BPF_MEMWORDS)}));
  EXPECT_TRUE(refused({statement(BPF_ALU | 0xf0, 0)}));
  EXPECT_TRUE(refused({statement(BPF_MISC | 0x40, 0), statement(BPF_RET | BPF_K, 0)}));
}

TEST(BpfEval, TheStrictestOfTwoProgramsWinsAndTheGuardOnATie) {
  const auto stack = [](uint32_t program, uint32_t guard) {
    const Filter filter{{statement(BPF_RET | BPF_K, program)}, {statement(BPF_RET | BPF_K, guard)}};
    return run(filter, seccomp_data{})->action;
  };
  EXPECT_EQ(stack(SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ALLOW), SECCOMP_RET_USER_NOTIF);
  EXPECT_EQ(stack(SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ERRNO | 1), SECCOMP_RET_ERRNO | 1);
  EXPECT_EQ(stack(SECCOMP_RET_ERRNO | 2, SECCOMP_RET_ERRNO | 1), SECCOMP_RET_ERRNO | 1);
  EXPECT_EQ(stack(SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO | 1), SECCOMP_RET_KILL_PROCESS);
  EXPECT_EQ(stack(SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW), SECCOMP_RET_ALLOW);
}

}  // namespace
}  // namespace certgate::sandbox
