#include "sandbox/filter.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <linux/fscrypt.h>
#include <linux/fsverity.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <memory>
#include <span>

#include "kernel/mutant.h"
#include "sandbox/bpf_eval.h"
#include "sandbox/call_table.h"
#include "sandbox/fd.h"

namespace certgate::sandbox {
namespace {

constexpr uint32_t kWord = 0xffffffff;  // int arguments: the kernel ignores the high half, so do we
constexpr uint32_t kTypeMask = 0xf;  // SOCK_TYPE_MASK: the rest is SOCK_CLOEXEC and SOCK_NONBLOCK
constexpr uint32_t kWaitKillable = 1u << 5;  // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, Linux 5.19
constexpr uint32_t kX32Bit = 0x40000000;
// ext4's own numbers for FS_IOC_SETVERSION; no header of the kernel's has them.
constexpr uint32_t kExt4SetVersion = _IOW('f', 4, long);
constexpr uint32_t kExt4SetVersion32 = _IOW('f', 4, int);

struct ContextDeleter {
  void operator()(void* context) const { seccomp_release(context); }
};
using Context = std::unique_ptr<void, ContextDeleter>;

// One masked comparison of the low half of an argument.
struct Test {
  unsigned arg;
  uint32_t mask;
  uint32_t value;
};
using Tests = std::vector<Test>;

struct ValueRule {
  int nr;
  Test test;
};

constexpr uint32_t kNamespaceFlags[] = {CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                                        CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET};

// Values that are refused with EPERM whatever the other arguments are.
constexpr ValueRule kRefusedValues[] = {
    // Input injection into the operator's terminal, and line disciplines with parsers of their own.
    {SYS_ioctl, {1, kWord, TIOCSTI}},
    {SYS_ioctl, {1, kWord, TIOCLINUX}},
    {SYS_ioctl, {1, kWord, TIOCSETD}},
    // Type '!': answering seccomp notifications.
    {SYS_ioctl, {1, 0xff00, 0x2100}},
    // Changes of a file or a directory that a descriptor open for reading is enough for. Of the
    // type
    // of btrfs's own ioctls the ones that clone ranges are everybody's, and need a writable target.
    {SYS_ioctl, {1, kWord, FS_IOC_SETFLAGS}},
    {SYS_ioctl, {1, kWord, FS_IOC32_SETFLAGS}},
    {SYS_ioctl, {1, kWord, FS_IOC_SETVERSION}},
    {SYS_ioctl, {1, kWord, FS_IOC32_SETVERSION}},
    {SYS_ioctl, {1, kWord, kExt4SetVersion}},
    {SYS_ioctl, {1, kWord, kExt4SetVersion32}},
    {SYS_ioctl, {1, kWord, FS_IOC_FSSETXATTR}},
    {SYS_ioctl, {1, kWord, FS_IOC_ENABLE_VERITY}},
    {SYS_ioctl, {1, kWord, FS_IOC_SET_ENCRYPTION_POLICY}},
    {SYS_ioctl, {1, kWord, BTRFS_IOC_SNAP_CREATE}},
    {SYS_ioctl, {1, kWord, BTRFS_IOC_SNAP_CREATE_V2}},
    {SYS_ioctl, {1, kWord, BTRFS_IOC_SUBVOL_CREATE}},
    {SYS_ioctl, {1, kWord, BTRFS_IOC_SUBVOL_CREATE_V2}},
    {SYS_ioctl, {1, kWord, BTRFS_IOC_SNAP_DESTROY}},
    {SYS_ioctl, {1, kWord, BTRFS_IOC_SNAP_DESTROY_V2}},
    {SYS_ioctl, {1, kWord, BTRFS_IOC_SUBVOL_SETFLAGS}},
    // Limits of init: who starves it stops the sockets that it makes for the supervisor.
    {SYS_prlimit64, {0, kWord, 1}},
    // Whoever opens a leased file waits, and that would be the supervisor.
    {SYS_fcntl, {1, kWord, F_SETLEASE}},
    // Moving argv, environ and exe under the proof at exec; inviting tracers; a second dispatcher
    // of system calls; perf; another filter.
    {SYS_prctl, {0, kWord, PR_SET_MM}},
    {SYS_prctl, {0, kWord, PR_SET_PTRACER}},
    {SYS_prctl, {0, kWord, PR_SET_SYSCALL_USER_DISPATCH}},
    {SYS_prctl, {0, kWord, PR_TASK_PERF_EVENTS_DISABLE}},
    {SYS_prctl, {0, kWord, PR_TASK_PERF_EVENTS_ENABLE}},
    {SYS_prctl, {0, kWord, PR_SET_SECCOMP}},
    // A child that no tracer follows escapes the proof at exec.
    {SYS_clone, {0, CLONE_UNTRACED, CLONE_UNTRACED}},
    // TCP fast open connects inside a send.
    {SYS_sendto, {3, MSG_FASTOPEN, MSG_FASTOPEN}},
    {SYS_sendmsg, {2, MSG_FASTOPEN, MSG_FASTOPEN}},
    {SYS_sendmmsg, {3, MSG_FASTOPEN, MSG_FASTOPEN}},
};

// Calls that the program allows only for listed values; anything else falls to its ENOSYS, and the
// guard turns that into the errno that programs expect.
struct Family {
  uint32_t domain;
  std::array<uint32_t, 2> types;
  bool first_protocol_only;  // only protocol 0
};
constexpr Family kSocketFamilies[] = {
    // Datagram unix sockets stay out: a connected end may still send to any bound path.
    {AF_UNIX, {SOCK_STREAM, SOCK_SEQPACKET}, false},
    {AF_INET, {SOCK_STREAM, SOCK_DGRAM}, false},
    {AF_INET6, {SOCK_STREAM, SOCK_DGRAM}, false},
    {AF_NETLINK, {SOCK_RAW, SOCK_DGRAM}, true},  // protocol 0 is NETLINK_ROUTE
};
constexpr uint32_t kPairDomains[] = {AF_UNIX};
constexpr uint32_t kPersonalities[] = {0, 0xffffffff};  // the plain one, and the query

Status add(const Context& context, uint32_t action, int nr, const Tests& tests) {
  std::array<scmp_arg_cmp, 6> compares{};
  if (tests.size() > compares.size()) return fail("seccomp filter: too many tests in one rule");
  for (size_t i = 0; i < tests.size(); ++i) {
    compares[i] = {tests[i].arg, SCMP_CMP_MASKED_EQ, tests[i].mask, tests[i].value};
  }
  const int error = seccomp_rule_add_array(context.get(), action, nr,
                                           static_cast<unsigned>(tests.size()), compares.data());
  if (error == 0) return ok();
  return fail_errno(
      "seccomp filter: rule for " + std::string(call_name(nr)) + "; cure: libseccomp 2.5 or newer",
      -error);
}

// Appends masked values that together match exactly the words whose bits under `mask` are none of
// `values`, no two of them the same word. Walks the bits from the top; a prefix that no value has
// is one result.
void others(uint32_t mask, uint32_t values_mask, uint32_t prefix, std::span<const uint32_t> values,
            std::vector<std::pair<uint32_t, uint32_t>>& out) {
  bool shared = false;
  for (const uint32_t value : values) shared |= (value & values_mask) == prefix;
  if (!shared) {
    out.emplace_back(values_mask, prefix);
    return;
  }
  const uint32_t rest = mask & ~values_mask;
  if (rest == 0) return;
  uint32_t bit = 0x80000000;
  while ((bit & rest) == 0) bit >>= 1;
  others(mask, values_mask | bit, prefix, values, out);
  others(mask, values_mask | bit, prefix | bit, values, out);
}

Status refuse_others(const Context& guard, int error, int nr, Tests tests, unsigned arg,
                     uint32_t mask, std::span<const uint32_t> values) {
  std::vector<std::pair<uint32_t, uint32_t>> cubes;
  others(mask, 0, 0, values, cubes);
  tests.emplace_back();
  for (const auto& [cube_mask, cube_value] : cubes) {
    tests.back() = {arg, cube_mask, cube_value};
    CG_CHECK(add(guard, SCMP_ACT_ERRNO(static_cast<uint32_t>(error)), nr, tests));
  }
  return ok();
}

bool has_allow_list(int nr) {
  return nr == SYS_socket || nr == SYS_socketpair || nr == SYS_personality;
}

Status add_allow_lists(const Context& program) {
  for (const Family& family : kSocketFamilies) {
    for (const uint32_t type : family.types) {
      Tests tests{{0, kWord, family.domain}, {1, kTypeMask, type}};
      if (family.first_protocol_only) tests.push_back({2, kWord, 0});
      CG_CHECK(add(program, SCMP_ACT_ALLOW, SYS_socket, tests));
    }
  }
  for (const uint32_t type : kSocketFamilies[0].types) {
    CG_CHECK(
        add(program, SCMP_ACT_ALLOW, SYS_socketpair, {{0, kWord, AF_UNIX}, {1, kTypeMask, type}}));
  }
  for (const uint32_t value : kPersonalities) {
    CG_CHECK(add(program, SCMP_ACT_ALLOW, SYS_personality, {{0, kWord, value}}));
  }
  return ok();
}

Status add_guard_of_allow_lists(const Context& guard) {
  std::vector<uint32_t> domains;
  for (const Family& family : kSocketFamilies) {
    domains.push_back(family.domain);
    const Tests domain{{0, kWord, family.domain}};
    CG_CHECK(refuse_others(guard, EPERM, SYS_socket, domain, 1, kTypeMask, family.types));
    for (uint32_t bit = 1; family.first_protocol_only && bit != 0; bit <<= 1) {
      CG_CHECK(add(guard, SCMP_ACT_ERRNO(EPERM), SYS_socket,
                   {{0, kWord, family.domain}, {2, bit, bit}}));
    }
  }
  CG_CHECK(refuse_others(guard, EAFNOSUPPORT, SYS_socket, {}, 0, kWord, domains));
  CG_CHECK(refuse_others(guard, EPERM, SYS_socketpair, {}, 0, kWord, kPairDomains));
  CG_CHECK(refuse_others(guard, EPERM, SYS_socketpair, {{0, kWord, AF_UNIX}}, 1, kTypeMask,
                         kSocketFamilies[0].types));
  return refuse_others(guard, EPERM, SYS_personality, {}, 0, kWord, kPersonalities);
}

// An O_PATH descriptor gives no content and ADDFD cannot inject one, so the kernel makes it itself.
// The flags are in a register; those of openat2 are in memory, so it always traps.
Status add_open(const Context& program, int nr, unsigned flags_arg) {
  CG_CHECK(add(program, SCMP_ACT_ALLOW, nr, {{flags_arg, O_PATH, O_PATH}}));
  return add(program, SCMP_ACT_NOTIFY, nr, {{flags_arg, O_PATH, 0}});
}

bool left_unjudged(int nr) {
  return (mutant(Mutant::kUnjudgedOpen) && nr == SYS_openat) ||
         (mutant(Mutant::kUnjudgedExec) && nr == SYS_execve) ||
         (mutant(Mutant::kUnjudgedConnect) && nr == SYS_connect);
}

Status add_program(const Context& program) {
  for (const CallRow& row : call_table()) {
    if (has_allow_list(row.nr)) continue;
    if ((mutant(Mutant::kFilterTable) && row.call_class == CallClass::kErrno) ||
        left_unjudged(row.nr)) {
      CG_CHECK(add(program, SCMP_ACT_ALLOW, row.nr, {}));
      continue;
    }
    if (row.nr == SYS_open || row.nr == SYS_openat) {
      CG_CHECK(add_open(program, row.nr, row.nr == SYS_open ? 1 : 2));
    } else if (row.call_class == CallClass::kTrap) {
      CG_CHECK(add(program, SCMP_ACT_NOTIFY, row.nr, {}));
    } else if (row.call_class == CallClass::kAllow || row.nr == SYS_seccomp) {
      // seccomp(2) has to load the guard; the guard then refuses it.
      CG_CHECK(add(program, SCMP_ACT_ALLOW, row.nr, {}));
    } else if (row.error != ENOSYS) {  // ENOSYS is the default already
      CG_CHECK(add(program, SCMP_ACT_ERRNO(static_cast<uint32_t>(row.error)), row.nr, {}));
    }
  }
  return add_allow_lists(program);
}

Status add_guard(const Context& guard) {
  if (mutant(Mutant::kFilterGuard)) return ok();
  for (const ValueRule& rule : kRefusedValues) {
    CG_CHECK(add(guard, SCMP_ACT_ERRNO(EPERM), rule.nr, {rule.test}));
  }
  for (const uint32_t flag : kNamespaceFlags) {
    CG_CHECK(add(guard, SCMP_ACT_ERRNO(EPERM), SYS_clone, {{0, flag, flag}}));
  }
  CG_CHECK(add(guard, SCMP_ACT_ERRNO(EPERM), SYS_seccomp, {}));
  return add_guard_of_allow_lists(guard);
}

Result<Context> make_context(uint32_t default_action) {
  // Without this the library asks the running kernel and may refuse SCMP_ACT_NOTIFY under an outer
  // filter; whether the kernel takes the program is found out when it is loaded.
  seccomp_api_set(5);
  Context context(seccomp_init(default_action));
  if (context == nullptr) return fail("seccomp filter: libseccomp has no memory");
  const uint32_t foreign = mutant(Mutant::kForeignAbi) ? SCMP_ACT_ALLOW : SCMP_ACT_KILL_PROCESS;
  int error = seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, foreign);
  // A binary tree over the numbers: nine comparisons reach any of them.
  if (error == 0) error = seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2);
  if (error != 0) return fail_errno("seccomp filter: libseccomp 2.5 or newer is needed", -error);
  return context;
}

Result<std::vector<sock_filter>> export_program(const Context& context) {
  UniqueFd file(memfd_create("certgate-filter", MFD_CLOEXEC));
  if (!file) return fail_errno("memfd_create", errno);
  if (const int error = seccomp_export_bpf(context.get(), file.get()); error != 0) {
    return fail_errno("seccomp filter: export", -error);
  }
  struct stat size {};
  if (fstat(file.get(), &size) != 0) return fail_errno("seccomp filter: size", errno);
  const auto bytes = static_cast<size_t>(size.st_size);
  std::vector<sock_filter> program(bytes / sizeof(sock_filter));
  if (bytes % sizeof(sock_filter) != 0 || program.empty() || program.size() > BPF_MAXINSNS) {
    return fail("seccomp filter: libseccomp made a program of " + std::to_string(bytes) + " bytes");
  }
  const ssize_t got = pread(file.get(), program.data(), bytes, 0);
  if (got != static_cast<ssize_t>(bytes)) return fail_errno("seccomp filter: read back", errno);
  return program;
}

uint32_t expected_action(const CallRow& row) {
  if (row.call_class == CallClass::kAllow) return SECCOMP_RET_ALLOW;
  if (row.call_class == CallClass::kTrap) return SECCOMP_RET_USER_NOTIF;
  return SECCOMP_RET_ERRNO | static_cast<uint32_t>(row.error);
}

Status expect(const Filter& filter, const seccomp_data& call, uint32_t action) {
  CG_TRY(const Evaluation answer, run(filter, call));
  if (answer.action == action) return ok();
  return fail("seccomp filter: " + std::string(call_name(call.nr)) + " would get action " +
              std::to_string(answer.action) + ", not " + std::to_string(action) +
              "; cure: report this with the version of libseccomp");
}

seccomp_data native(int nr) {
  seccomp_data call{};
  call.arch = AUDIT_ARCH_X86_64;
  call.nr = nr;
  return call;
}

// The library may make something else than what it was asked for: prove what it made.
Status prove(const Filter& filter) {
  if (mutant(Mutant::kForeignAbi) || mutant(Mutant::kFilterTable) || mutant(Mutant::kFilterGuard) ||
      left_unjudged(SYS_openat) || left_unjudged(SYS_execve) || left_unjudged(SYS_connect)) {
    return ok();
  }
  for (const CallRow& row : call_table()) {
    seccomp_data call = native(row.nr);
    if (row.nr == SYS_socket || row.nr == SYS_socketpair)
      call.args[0] = AF_UNIX, call.args[1] = SOCK_STREAM;
    CG_CHECK(expect(filter, call, expected_action(row)));
    call.nr = static_cast<int>(static_cast<uint32_t>(row.nr) | kX32Bit);
    CG_CHECK(expect(filter, call, SECCOMP_RET_KILL_PROCESS));
    call.nr = row.nr;
    call.arch = AUDIT_ARCH_I386;
    CG_CHECK(expect(filter, call, SECCOMP_RET_KILL_PROCESS));
  }
  constexpr uint64_t kDirty = 0xdeadbeef00000000;  // a high half that a 64-bit comparison would see
  for (const ValueRule& rule : kRefusedValues) {
    seccomp_data call = native(rule.nr);
    call.args[rule.test.arg] = kDirty | rule.test.value;
    CG_CHECK(expect(filter, call, SECCOMP_RET_ERRNO | EPERM));
  }
  for (const uint32_t flag : kNamespaceFlags) {
    seccomp_data call = native(SYS_clone);
    call.args[0] = kDirty | flag;
    CG_CHECK(expect(filter, call, SECCOMP_RET_ERRNO | EPERM));
  }
  return ok();
}

}  // namespace

Result<Filter> build_filter() {
  CG_TRY(const Context program, make_context(SCMP_ACT_ERRNO(ENOSYS)));
  CG_CHECK(add_program(program));
  CG_TRY(const Context guard, make_context(SCMP_ACT_ALLOW));
  CG_CHECK(add_guard(guard));
  Filter filter;
  CG_TRY(filter.program, export_program(program));
  CG_TRY(filter.guard, export_program(guard));
  CG_CHECK(prove(filter));
  return filter;
}

Installed install_filter(const FilterView& filter) {
  // The kernel's interface takes a pointer to non-const and only reads it.
  sock_fprog program{static_cast<unsigned short>(filter.program.size()),
                     const_cast<sock_filter*>(filter.program.data())};
  sock_fprog guard{static_cast<unsigned short>(filter.guard.size()),
                   const_cast<sock_filter*>(filter.guard.data())};
  constexpr unsigned kListen = SECCOMP_FILTER_FLAG_NEW_LISTENER;
  long listener = -1;
  errno = EINVAL;
  if (!mutant(Mutant::kWaitKillable))
    listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, kListen | kWaitKillable, &program);
  Installed out;
  if (listener < 0 && errno == EINVAL) {
    out.interrupts = Interrupts::kHandled;
    listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, kListen, &program);
  }
  out.listener = listener < 0 ? -errno : static_cast<int>(listener);
  if (listener >= 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &guard) != 0) {
    out.listener = -errno;
    close(static_cast<int>(listener));
  }
  return out;
}

}  // namespace certgate::sandbox
