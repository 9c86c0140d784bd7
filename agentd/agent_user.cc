#include "agentd/agent_user.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "agentd/state_dir.h"
#include "kernel/mutant.h"
#include "sandbox/remote.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

using sandbox::UniqueFd;

Status write_map(pid_t pid, const char* name, uid_t inside, uid_t outside) {
  const std::string path = fmt::format("/proc/{}/{}", pid, name);
  const std::string text = fmt::format("{} {} 1\n", inside, outside);
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno("map users: " + path, errno);
  return write_all(fd.get(), text.data(), text.size(), path);
}

// A user namespace that only says which id stands for which; nothing ever runs in it.
Result<UniqueFd> id_map(const Owner& owner, uid_t agent) {
  int hold[2], ready[2];
  if (::pipe2(hold, O_CLOEXEC) != 0) return fail_errno("pipe", errno);
  UniqueFd hold_read(hold[0]), hold_write(hold[1]);
  if (::pipe2(ready, O_CLOEXEC) != 0) return fail_errno("pipe", errno);
  UniqueFd ready_read(ready[0]), ready_write(ready[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail_errno("start a process", errno);
  char byte = 0;
  if (child == 0) {
    ::close(hold[1]);
    byte = ::unshare(CLONE_NEWUSER) == 0 ? 0 : static_cast<char>(errno);
    if (::write(ready[1], &byte, 1) == 1) byte = ::read(hold[0], &byte, 1) == 0 ? 0 : 1;
    ::_exit(0);
  }
  ready_write.reset();
  Result<UniqueFd> out = fail("make a user namespace for the workspace's mount");
  if (::read(ready_read.get(), &byte, 1) == 1 && byte != 0) {
    out = fail_errno("make a user namespace for the workspace's mount", byte);
  } else if (auto uids = write_map(child, "uid_map", owner.uid, agent); !uids) {
    out = uids.error();
  } else if (auto gids = write_map(child, "gid_map", owner.gid, agent); !gids) {
    out = gids.error();
  } else {
    UniqueFd fd(::open(fmt::format("/proc/{}/ns/user", child).c_str(), O_RDONLY | O_CLOEXEC));
    if (fd) out = std::move(fd);
  }
  hold_write.reset();
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return out;
}

// An agent whose supervisor was killed may still be dying.
Result<bool> has_processes(uid_t uid) {
  const UniqueFd proc(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!proc) return fail_errno("open /proc", errno);
  CG_TRY(const std::vector<std::string> names, list_dir(proc.get(), "."));
  const std::string wanted = fmt::format("\nUid:\t{}\t", uid);
  for (const std::string& name : names) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto status = sandbox::read_file("/proc/" + name + "/status", 65536);
    if (status && status->find(wanted) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

Result<OwnUser> OwnUser::take(const std::string& dir) {
  if (::geteuid() != 0)
    return fail(
        "--uid auto gives the agent a host uid of its own, which only root can; leave it "
        "out, or start certgate as root");
  CG_TRY(const UniqueFd place, open_state_dir(dir));
  for (uid_t uid = kFirstOwnUid; uid < kFirstOwnUid + kOwnUids; ++uid) {
    UniqueFd lock(::openat(place.get(), std::to_string(uid).c_str(),
                           O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!lock) return disk_error("take a uid in " + dir, errno);
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 && !mutant(Mutant::kOwnUid)) continue;
    CG_TRY(const bool used, has_processes(uid));
    if (used && !mutant(Mutant::kOwnUid)) continue;
    OwnUser out;
    out.uid_ = uid;
    out.lock_ = std::move(lock);
    return out;
  }
  return fail(
      fmt::format("all {} uids for agents are in use; wait for the end of a run", kOwnUids));
}

Result<UniqueFd> map_workspace(const std::string& workspace, const Owner& owner, uid_t agent) {
  CG_TRY(const UniqueFd ids, id_map(owner, agent));
  UniqueFd tree(
      ::open_tree(AT_FDCWD, workspace.c_str(),
                  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | AT_RECURSIVE));
  if (!tree) return fail_errno("take the workspace " + supervisor::escape(workspace), errno);
  mount_attr change{};
  change.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  change.userns_fd = static_cast<uint64_t>(ids.get());
  if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH | AT_RECURSIVE, &change, sizeof change) == 0)
    return tree;
  return fail_errno("--uid auto: the workspace " + supervisor::escape(workspace) +
                        " cannot be mounted with the agent's uid in place of its owner's (ext4, "
                        "xfs, btrfs from Linux 5.12 to 5.15 on, tmpfs from 6.3, no overlayfs, and "
                        "everything mounted below it too); use a workspace on one of these, or "
                        "leave --uid auto out",
                    errno);
}

}  // namespace certgate::agentd
