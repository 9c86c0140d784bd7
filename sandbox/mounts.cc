#include "sandbox/mounts.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

// Everything here runs in a child after clone(): fixed buffers, no allocation.
namespace certgate::sandbox {
namespace {

using Kind = MountEntry::Kind;

constexpr uint64_t kSealed =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

constexpr const char* kReadOnlyProc[] = {"/proc/sys", "/proc/sysrq-trigger", "/proc/irq",
                                         "/proc/bus", "/proc/fs"};
constexpr const char* kMaskedProc[] = {
    "/proc/kcore",       "/proc/keys",          "/proc/key-users", "/proc/timer_list",
    "/proc/sched_debug", "/proc/latency_stats", "/proc/kmsg"};

int set_attributes(int tree, uint64_t attributes, unsigned flags) {
  mount_attr change{};
  change.attr_set = attributes;
  return mount_setattr(tree, "", AT_EMPTY_PATH | flags, &change, sizeof change);
}

// Pins the path without following a link, then clones the mounts under exactly that object.
Failure take_bind(MountEntry& entry) {
  const char* path = (entry.source.empty() ? entry.path : entry.source).c_str();
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const long opened = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
  if (opened < 0) return fail_step(Step::kBindSource, path);
  UniqueFd source(static_cast<int>(opened));
  struct stat info {};
  if (fstat(source.get(), &info) != 0) return fail_step(Step::kBindSource, path);
  entry.directory = S_ISDIR(info.st_mode);
  entry.source_device = info.st_dev;
  entry.source_inode = info.st_ino;
  if (entry.kind == Kind::kDevice && (!S_ISCHR(info.st_mode) || info.st_rdev != entry.device)) {
    return fail_step(Step::kBindSource, path, ENODEV);
  }
  if (entry.lent_tree >= 0) {
    // The caller made it before it gave up its rights, by the same path: it must be the same.
    struct stat lent {};
    if (fstat(entry.lent_tree, &lent) != 0) return fail_step(Step::kBindSource, path);
    if (lent.st_dev != info.st_dev || lent.st_ino != info.st_ino)
      return fail_step(Step::kBindSource, path, ESTALE);
    entry.tree = fcntl(entry.lent_tree, F_DUPFD_CLOEXEC, 0);
    return entry.tree < 0 ? fail_step(Step::kBindSource, path) : Failure{};
  }
  const unsigned recursive = entry.directory ? AT_RECURSIVE : 0u;
  entry.tree =
      open_tree(source.get(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
  if (entry.tree < 0 || set_attributes(entry.tree, entry.attributes, recursive) != 0) {
    return fail_step(Step::kBindSource, path);
  }
  return {};
}

int make_file_system(const char* type, const std::vector<MountEntry::Option>& options,
                     uint64_t attributes) {
  const UniqueFd context(fsopen(type, FSOPEN_CLOEXEC));
  if (!context) return -1;
  for (const MountEntry::Option& option : options) {
    if (fsconfig(context.get(), FSCONFIG_SET_STRING, option.key, option.value.c_str(), 0) != 0)
      return -1;
  }
  if (fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return -1;
  return fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes));
}

Failure take_binds(MountPlan& plan) {
  for (MountEntry& entry : plan.entries) {
    if (entry.kind != Kind::kBind && entry.kind != Kind::kDevice) continue;
    const Failure failure = take_bind(entry);
    if (failure && !entry.optional) return failure;
  }
  return {};
}

// All but /proc, or only /proc. It too is made while the host's tree is still there: the kernel
// allows a new /proc only where an unmasked one can be seen.
Failure make_file_systems(MountPlan& plan, bool proc) {
  for (MountEntry& entry : plan.entries) {
    if (entry.kind != Kind::kFileSystem || (entry.text == "proc") != proc) continue;
    entry.tree = make_file_system(entry.text.c_str(), entry.options, entry.attributes);
    if (entry.tree >= 0 || entry.optional) continue;
    return proc ? fail_step(Step::kProc) : fail_step(Step::kFileSystem, entry.path.c_str());
  }
  return {};
}

Failure enter_new_root() {
  const UniqueFd context(fsopen("tmpfs", FSOPEN_CLOEXEC));
  if (!context || fsconfig(context.get(), FSCONFIG_SET_STRING, "mode", "0755", 0) != 0 ||
      fsconfig(context.get(), FSCONFIG_SET_STRING, "size", "1m", 0) != 0 ||
      fsconfig(context.get(), FSCONFIG_SET_STRING, "nr_inodes", "4096", 0) != 0 ||
      fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return fail_step(Step::kRoot, "(tmpfs)");
  }
  const UniqueFd root(
      fsmount(context.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  if (!root) return fail_step(Step::kRoot, "(tmpfs)");
  // Any directory will do: all sources have been taken, and the old tree goes away next.
  if (move_mount(root.get(), "", AT_FDCWD, "/tmp", MOVE_MOUNT_F_EMPTY_PATH) != 0) {
    return fail_step(Step::kRoot, "(over /tmp)");
  }
  if (fchdir(root.get()) != 0 || syscall(SYS_pivot_root, ".", ".") != 0) {
    return fail_step(Step::kRoot, "(pivot_root)");
  }
  // The old root now lies on top of the new one; the working directory is still below it.
  if (umount2(".", MNT_DETACH) != 0 || chdir("/") != 0) return fail_step(Step::kRoot, "(detach)");
  return {};
}

// Opens the place of a mount, making what is missing on the way. No component may be a link.
Failure open_target(const char* path, bool directory, UniqueFd& out) {
  out.reset(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!out) return fail_step(Step::kMountPoint, path);
  for (const char* part = path + 1; *part != '\0';) {
    const size_t length = strcspn(part, "/");
    char name[NAME_MAX + 1] = {};
    if (length > NAME_MAX) return fail_step(Step::kMountPoint, path, ENAMETOOLONG);
    std::memcpy(name, part, length);
    part += length;
    const bool last = *part == '\0';
    if (!last) ++part;
    int made = 0;
    int flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
    if (!last || directory) {
      made = mkdirat(out.get(), name, 0755) == 0 ? 0 : errno;
      flags |= O_DIRECTORY;
    } else {
      const UniqueFd file(
          openat(out.get(), name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0444));
      made = file ? 0 : errno;
    }
    UniqueFd next(openat(out.get(), name, flags));
    if (!next) return fail_step(Step::kMountPoint, path, errno == ENOENT ? made : errno);
    out = std::move(next);
  }
  struct stat info {};
  if (fstat(out.get(), &info) != 0) return fail_step(Step::kMountPoint, path);
  if (S_ISDIR(info.st_mode) == directory && !S_ISLNK(info.st_mode)) return {};
  return fail_step(Step::kMountPoint, path, directory ? ENOTDIR : EISDIR);
}

Failure attach(int tree, const char* path, bool directory) {
  UniqueFd target;
  if (const Failure failure = open_target(path, directory, target)) return failure;
  if (move_mount(tree, "", target.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) ==
      0)
    return {};
  return fail_step(Step::kAttach, path);
}

Failure attach_all(MountPlan& plan) {
  for (MountEntry& entry : plan.entries) {
    if (entry.kind == Kind::kLink) {
      if (symlink(entry.text.c_str(), entry.path.c_str()) != 0) {
        return fail_step(Step::kMountPoint, entry.path.c_str());
      }
      continue;
    }
    if (entry.tree < 0) continue;  // optional and not there
    if (const Failure failure = attach(entry.tree, entry.path.c_str(), entry.directory))
      return failure;
    close(entry.tree);
    entry.tree = -1;
  }
  return {};
}

// Binds one file of the workshop over `target`, read-only.
Failure cover(const char* source, const char* target, Step step) {
  const UniqueFd tree(open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!tree || set_attributes(tree.get(), kSealed, 0) != 0) return fail_step(step, target);
  const Failure failure = attach(tree.get(), target, false);
  if (failure) return fail_step(step, target, failure.error);
  return {};
}

Failure write_file(const PrivateFile& file) {
  const UniqueFd fd(open(file.source.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
  const auto size = static_cast<ssize_t>(file.content.size());
  if (fd && write(fd.get(), file.content.data(), file.content.size()) == size) return {};
  return fail_step(Step::kPrivateFiles, file.target.c_str());
}

Failure close_proc() {
  for (const char* path : kReadOnlyProc) {
    if (access(path, F_OK) != 0) continue;  // depends on the kernel's configuration
    const UniqueFd tree(
        open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE));
    if (!tree || set_attributes(tree.get(), kSealed, AT_RECURSIVE) != 0 ||
        move_mount(tree.get(), "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) != 0) {
      return fail_step(Step::kProcMask, path);
    }
  }
  for (const char* path : kMaskedProc) {
    if (access(path, F_OK) != 0) continue;
    if (const Failure failure = cover(kEmptyFile, path, Step::kProcMask)) return failure;
  }
  return {};
}

// The files live in a tmpfs of their own that is detached again; only the binds keep it.
Failure cover_files(const MountPlan& plan) {
  const std::vector<MountEntry::Option> none;
  const UniqueFd workshop(make_file_system("tmpfs", none, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
  if (!workshop) return fail_step(Step::kPrivateFiles, "(tmpfs)");
  if (const Failure failure = attach(workshop.get(), kWorkshop, true)) return failure;
  for (const PrivateFile& file : plan.files) {
    if (const Failure failure = write_file(file)) return failure;
    if (file.target.empty()) continue;
    if (const Failure failure =
            cover(file.source.c_str(), file.target.c_str(), Step::kPrivateFiles)) {
      return failure;
    }
  }
  if (const Failure failure = close_proc()) return failure;
  if (umount2(kWorkshop, MNT_DETACH) != 0 || rmdir(kWorkshop) != 0) {
    return fail_step(Step::kPrivateFiles, kWorkshop);
  }
  return {};
}

Failure expect_file_system(const char* path, long magic) {
  struct statfs info {};
  if (statfs(path, &info) != 0) return fail_step(Step::kVerifyRoot, path);
  if (info.f_type == magic) return {};
  return fail_step(Step::kVerifyRoot, path, EINVAL);
}

// What an attacker would have to bend is looked at once more from the inside.
Failure verify(const MountPlan& plan) {
  if (const Failure failure = expect_file_system("/", TMPFS_MAGIC)) return failure;
  if (const Failure failure = expect_file_system("/proc", PROC_SUPER_MAGIC)) return failure;
  if (const Failure failure = expect_file_system("/proc/sys", PROC_SUPER_MAGIC)) return failure;
  if (const Failure failure = expect_file_system("/dev/pts", DEVPTS_SUPER_MAGIC)) return failure;
  for (const MountEntry& entry : plan.entries) {
    if (entry.kind != Kind::kBind && entry.kind != Kind::kDevice) continue;
    if (entry.optional) continue;  // may not be there
    struct stat info {};
    if (lstat(entry.path.c_str(), &info) != 0)
      return fail_step(Step::kVerifyRoot, entry.path.c_str());
    if (info.st_dev != entry.source_device || info.st_ino != entry.source_inode) {
      return fail_step(Step::kVerifyRoot, entry.path.c_str(), ESTALE);
    }
  }
  return {};
}

Failure make_read_only(const char* path) {
  const UniqueFd mount(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!mount || set_attributes(mount.get(), MOUNT_ATTR_RDONLY, 0) != 0) {
    return fail_step(Step::kReadOnlyRoot, path);
  }
  return {};
}

}  // namespace

Failure perform_mounts(MountPlan& plan) {
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return fail_step(Step::kPrivateTree);
  if (const Failure failure = take_binds(plan)) return failure;
  if (const Failure failure = make_file_systems(plan, false)) return failure;
  if (const Failure failure = make_file_systems(plan, true)) return failure;
  if (const Failure failure = enter_new_root()) return failure;
  if (const Failure failure = attach_all(plan)) return failure;
  if (const Failure failure = cover_files(plan)) return failure;
  if (const Failure failure = make_read_only("/dev")) return failure;
  for (const MountEntry& entry : plan.entries) {
    if (!entry.sealed) continue;
    if (const Failure failure = make_read_only(entry.path.c_str())) return failure;
  }
  if (const Failure failure = make_read_only("/")) return failure;
  return verify(plan);
}

}  // namespace certgate::sandbox
