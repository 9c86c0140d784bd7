#include <cap-ng.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "sandbox/child_plan.h"

namespace certgate::sandbox {
namespace {

bool holds_none() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  for (const auto& half : data) {
    if ((half.effective | half.permitted | half.inheritable) != 0) return false;
  }
  for (unsigned long cap = 0; cap <= CAP_LAST_CAP; ++cap) {
    if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1) return false;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, cap, 0, 0) == 1) return false;
  }
  return true;
}

}  // namespace

Failure drop_capabilities() {
  capng_setpid(0);  // the library remembers the pid it was loaded in; 0 is the caller
  capng_clear(CAPNG_SELECT_ALL);
  errno = 0;
  if (capng_apply(CAPNG_SELECT_ALL) != 0)
    return fail_step(Step::kCapabilities, "", errno != 0 ? errno : EPERM);
  if (!holds_none()) return fail_step(Step::kCapabilities, "(some are still there)", EPERM);
  return {};
}

}  // namespace certgate::sandbox
