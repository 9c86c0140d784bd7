#include "sandbox/steps.h"

#include <cerrno>
#include <cstring>

namespace certgate::sandbox {
namespace {

constexpr const char* kNoSandbox = "no agent can be started";
constexpr const char* kUsernsCure =
    "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with userns (Ubuntu), "
    "user.max_user_namespaces above 0; in a container, a seccomp profile that allows it";
constexpr const char* kNamespaceCure =
    "raise user.max_*_namespaces; on Ubuntu sysctl kernel.apparmor_restrict_unprivileged_userns=0 "
    "or an AppArmor profile with userns";
constexpr const char* kMountCure =
    "on Ubuntu sysctl kernel.apparmor_restrict_unprivileged_userns=0 or an AppArmor profile with "
    "userns; Linux 5.12 or newer; in a container, a profile that allows the mount calls";
constexpr const char* kReport = "report this with the output of certgate doctor --json";

constexpr StepRow kRows[] = {
    {Step::kClone, "create user and pid namespaces", kNoSandbox, kUsernsCure},
    {Step::kCgroup, "enter the agent's cgroup", kNoSandbox,
     "start certgate where nothing else manages its cgroups (systemd-run --user --scope -p "
     "Delegate=yes)"},
    {Step::kIdMap, "map the agent's uid and gid", kNoSandbox, kUsernsCure},
    {Step::kMountNamespace, "create a mount namespace", kNoSandbox, kNamespaceCure},
    {Step::kNetNamespace, "create a network namespace", kNoSandbox, kNamespaceCure},
    {Step::kIpcNamespace, "create an ipc namespace", kNoSandbox, kNamespaceCure},
    {Step::kUtsNamespace, "create a uts namespace", kNoSandbox, kNamespaceCure},
    {Step::kCgroupNamespace, "create a cgroup namespace", kNoSandbox, kNamespaceCure},
    {Step::kPrivateTree, "make the mounts private", kNoSandbox, kMountCure},
    {Step::kBindSource, "take a host path into the sandbox", kNoSandbox,
     "the path must exist, be reachable by the agent's user and contain no symbolic link; when it "
     "is so: Linux 5.12 or newer, and in a container a profile that allows the mount calls"},
    {Step::kFileSystem, "make a tmpfs or devpts for", kNoSandbox, kMountCure},
    {Step::kProc, "mount a new /proc", kNoSandbox,
     "in a container, unmask /proc (podman --security-opt unmask=ALL, Docker --security-opt "
     "systempaths=unconfined): the kernel allows a new /proc only where the old one is whole"},
    {Step::kRoot, "change to the sandbox's root", kNoSandbox, kMountCure},
    {Step::kMountPoint, "make a mount point", kNoSandbox,
     "the path must not run through a symbolic link or a file"},
    {Step::kAttach, "attach a mount", kNoSandbox, kMountCure},
    {Step::kPrivateFiles, "replace a file of /etc", kNoSandbox,
     "the file must exist on the host (an empty one will do)"},
    {Step::kProcMask, "close a part of /proc", kNoSandbox, kMountCure},
    {Step::kReadOnlyRoot, "make the root read-only", kNoSandbox, kMountCure},
    {Step::kVerifyRoot, "verify the sandbox's mounts", kNoSandbox, kReport},
    {Step::kHostname, "set the host name", kNoSandbox, kReport},
    {Step::kLoopback, "bring the loopback interface up", kNoSandbox, kReport},
    {Step::kRoutes, "route every address to the supervisor", kNoSandbox,
     "the kernel needs CONFIG_IP_MULTIPLE_TABLES or local routes through rtnetlink"},
    {Step::kInit, "start the sandbox's first process", kNoSandbox,
     "raise the limits on processes and open files (ulimit -u, ulimit -n, pids cgroup)"},
    {Step::kTerminal, "make a session and a private terminal", kNoSandbox,
     "ENOSPC: raise kernel.pty.max, or end programs that hold many terminals"},
    {Step::kLimits, "set resource limits", kNoSandbox,
     "ask for limits no higher than the hard limits of the caller (ulimit -H -a)"},
    {Step::kWorkingDirectory, "enter the working directory", kNoSandbox,
     "it must exist inside the sandbox and be searchable by the agent's user"},
    {Step::kNoNewPrivs, "set no_new_privs", kNoSandbox, kReport},
    {Step::kCapabilities, "drop all capabilities", kNoSandbox, kReport},
    {Step::kFilter, "install the seccomp filter (NEW_LISTENER)", kNoSandbox,
     "EINVAL: needs Linux 5.5; EBUSY: another supervisor already listens for "
     "this process (a nested listener), start certgate outside it; in a container, a profile that "
     "allows seccomp(2)"},
    {Step::kListener, "hand the seccomp listener over", kNoSandbox, kReport},
    {Step::kSocketNames, "keep the first process's sockets inside (Landlock)", kNoSandbox, kReport},
    {Step::kHandshake, "finish the set-up", kNoSandbox,
     "look for an OOM kill or a killed process in the kernel log, then try again"},
};

constexpr bool in_order() {
  for (size_t i = 0; i < std::size(kRows); ++i) {
    if (kRows[i].step != static_cast<Step>(i)) return false;
  }
  return std::size(kRows) == static_cast<size_t>(Step::kSteps);
}
static_assert(in_order(), "step_row indexes by the enumerator");

}  // namespace

std::span<const StepRow> step_table() { return kRows; }

const StepRow& step_row(Step step) {
  // A number that came through a socket may be anything.
  const auto index = static_cast<size_t>(step);
  return kRows[index < std::size(kRows) ? index : std::size(kRows) - 1];
}

Failure fail_step(Step step, const char* object, int error) {
  Failure failure;
  failure.error = error != 0 ? error : errno;
  if (failure.error == 0) failure.error = EIO;
  failure.step = step;
  const size_t length = strnlen(object, sizeof failure.object - 1);
  std::memcpy(failure.object, object, length);
  return failure;
}

Error explain(const Failure& failure) {
  const StepRow& row = step_row(failure.step);
  std::string what = row.what;
  const size_t length = strnlen(failure.object, sizeof failure.object);
  if (length > 0) what += " " + std::string(failure.object, length);
  what += ": " + std::string(std::strerror(failure.error)) + "; cure: " + row.cure;
  return fail(std::move(what), failure.error);
}

}  // namespace certgate::sandbox
