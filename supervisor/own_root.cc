#include "supervisor/own_root.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <iterator>
#include <string>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

struct Shown {
  const char* path;
  bool required;
  uint64_t attributes;
};
constexpr uint64_t kPlain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
// /proc is written to where an answer goes into the agent's memory; the rest is what libc and its
// name services read or talk to.
constexpr Shown kShown[] = {{"/proc", true, kPlain},
                            {"/etc", true, kPlain | MOUNT_ATTR_RDONLY},
                            {"/run/systemd/resolve", false, kPlain | MOUNT_ATTR_RDONLY},
                            {"/run/resolvconf", false, kPlain | MOUNT_ATTR_RDONLY},
                            {"/run/NetworkManager", false, kPlain | MOUNT_ATTR_RDONLY},
#ifdef CERTGATE_SANITIZER_REPORTS
                            {CERTGATE_SANITIZER_REPORTS, false, kPlain},
#endif
                            {"/run/nscd", false, kPlain | MOUNT_ATTR_RDONLY}};

Error trouble(const std::string& what, int error) {
  return fail_errno("the supervisor's own view of the host: " + what, error);
}

Status write_file(const char* path, const std::string& text) {
  const UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return trouble(path, errno);
  return ok();
}

// A detached copy; empty when it is not there and need not be.
Status take(const Shown& shown, UniqueFd& tree) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE;
  tree.reset(::open_tree(AT_FDCWD, shown.path, flags));
  if (!tree && errno == ENOENT && !shown.required) return ok();
  mount_attr change{};
  change.attr_set = shown.attributes;
  if (!tree ||
      ::mount_setattr(tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &change, sizeof change) != 0) {
    return trouble(shown.path, errno);
  }
  return ok();
}

// Below the working directory.
Status put(const Shown& shown, const UniqueFd& tree) {
  const std::string path = shown.path + 1;
  for (size_t slash = path.find('/');; slash = path.find('/', slash + 1)) {
    if (::mkdir(path.substr(0, slash).c_str(), 0755) != 0 && errno != EEXIST)
      return trouble("make " + path, errno);
    if (slash == std::string::npos) break;
  }
  if (::move_mount(tree.get(), "", AT_FDCWD, path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return trouble("mount " + path, errno);
  return ok();
}

Status make_empty_root(UniqueFd& root) {
  const UniqueFd context(::fsopen("tmpfs", FSOPEN_CLOEXEC));
  if (!context || ::fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "0755", 0) != 0 ||
      ::fsconfig(context.get(), FSCONFIG_SET_STRING, "nr_inodes", "64", 0) != 0 ||
      ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return trouble("tmpfs", errno);
  }
  root.reset(::fsmount(context.get(), FSMOUNT_CLOEXEC, kPlain | MOUNT_ATTR_NODEV));
  // Any directory will do: what is kept has been taken, and the old tree goes away next.
  if (!root || ::move_mount(root.get(), "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return trouble("tmpfs over /tmp", errno);
  return ok();
}

}  // namespace

Status enter_own_namespaces() {
  const std::string uid = std::to_string(::geteuid()), gid = std::to_string(::getegid());
  // Only a dumpable process may write its own maps.
  if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return trouble("dumpable", errno);
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return trouble("unshare", errno);
  CG_CHECK(write_file("/proc/self/setgroups", "deny"));
  CG_CHECK(write_file("/proc/self/uid_map", uid + " " + uid + " 1\n"));
  CG_CHECK(write_file("/proc/self/gid_map", gid + " " + gid + " 1\n"));
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return trouble("private mounts", errno);
  return ok();
}

Status enter_own_root() {
  UniqueFd trees[std::size(kShown)];
  for (size_t i = 0; i < std::size(kShown); ++i) CG_CHECK(take(kShown[i], trees[i]));
  UniqueFd root;
  CG_CHECK(make_empty_root(root));
  if (::fchdir(root.get()) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0 ||
      ::umount2(".", MNT_DETACH) != 0 || ::chdir("/") != 0)
    return trouble("change the root", errno);
  for (size_t i = 0; i < std::size(kShown); ++i) {
    if (trees[i]) CG_CHECK(put(kShown[i], trees[i]));
  }
  // Where the C library looks for name service daemons.
  if (::mkdir("/var", 0755) != 0 || ::symlink("/run", "/var/run") != 0)
    return trouble("/var/run", errno);
  mount_attr change{};
  change.attr_set = MOUNT_ATTR_RDONLY;
  if (::mount_setattr(root.get(), "", AT_EMPTY_PATH, &change, sizeof change) != 0)
    return trouble("make the root read-only", errno);
  return ok();
}

}  // namespace certgate::supervisor
