#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "kernel/mutant.h"
#include "sandbox/child_plan.h"

// A unix socket keeps the very name that was given to bind(2), and programs read it back; so it
// must be bound by that name, which the agent can lead elsewhere meanwhile. Landlock decides on the
// directory that the kernel has arrived at.
namespace certgate::sandbox {
namespace {

Failure allow_below(int rules, const MountEntry& entry) {
  const UniqueFd place(open(entry.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!place) return fail_step(Step::kSocketNames, entry.path.c_str());
  const landlock_path_beneath_attr rule{LANDLOCK_ACCESS_FS_MAKE_SOCK, place.get()};
  if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
    return fail_step(Step::kSocketNames, entry.path.c_str());
  return {};
}

}  // namespace

Failure confine_socket_names(const MountPlan& plan, SocketNames& names) {
  names = SocketNames::kNotBound;
  landlock_ruleset_attr handled{};
  handled.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_SOCK;
  const UniqueFd rules(static_cast<int>(
      syscall(SYS_landlock_create_ruleset, &handled, sizeof handled.handled_access_fs, 0)));
  if (!rules) {
    // Not built in, switched off at boot, or refused by the seccomp profile of a container.
    if (errno == ENOSYS || errno == EOPNOTSUPP || errno == EPERM) return {};
    return fail_step(Step::kSocketNames);
  }
  for (const MountEntry& entry : plan.entries) {
    if (entry.kind != MountEntry::Kind::kFileSystem || entry.text != "tmpfs") continue;
    // A rule holds for what is mounted below, too.
    if (plan.workspace.starts_with(entry.path) && plan.workspace[entry.path.size()] == '/')
      continue;
    if (const Failure failure = allow_below(rules.get(), entry)) return failure;
  }
  if (!mutant(Mutant::kSocketNames) && syscall(SYS_landlock_restrict_self, rules.get(), 0) != 0)
    return fail_step(Step::kSocketNames);
  names = SocketNames::kBound;
  return {};
}

}  // namespace certgate::sandbox
