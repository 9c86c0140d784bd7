#include "supervisor/change_table.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

#include <algorithm>
#include <cerrno>

#include "sandbox/remote.h"

namespace certgate::supervisor {
namespace {

#ifndef SYS_fchmodat2
constexpr int kFchmodat2 = 452;
#else
constexpr int kFchmodat2 = SYS_fchmodat2;
#endif
constexpr size_t kMaxXattr = 65536;  // XATTR_SIZE_MAX
constexpr size_t kMaxXattrName = 256;

int done(long result) { return result == 0 ? 0 : errno; }

int perform_rename(const Changed& c) {
  const auto flags = c.row.nr == SYS_renameat2 ? static_cast<unsigned>(c.arg(4)) : 0;
  return done(::syscall(SYS_renameat2, c.a.dir.get(), c.a.name.c_str(), c.b.dir.get(),
                        c.b.name.c_str(), flags));
}

int perform_link(const Changed& c) {
  if (!c.a.object)
    return done(::linkat(c.a.dir.get(), c.a.name.c_str(), c.b.dir.get(), c.b.name.c_str(), 0));
  return done(::linkat(AT_FDCWD, c.a.through().c_str(), c.b.dir.get(), c.b.name.c_str(),
                       AT_SYMLINK_FOLLOW));
}

int decode_umask(Changed& c) {
  const auto task = sandbox::task_facts(c.call.tid);
  if (task) c.umask = task->umask;
  return task ? 0 : ESRCH;
}

int decode_target(Changed& c) {
  if (int error = sandbox::read_string(c.call.tid, c.arg(0), kMaxPath, c.text)) return error;
  return c.text.empty() ? ENOENT : 0;
}

int perform_symlink(const Changed& c) {
  return done(::symlinkat(c.text.c_str(), c.a.dir.get(), c.a.name.c_str()));
}

int perform_unlink(const Changed& c) {
  const int flags = c.row.nr == SYS_rmdir ? AT_REMOVEDIR : static_cast<int>(c.flags());
  return done(::unlinkat(c.a.dir.get(), c.a.name.c_str(), flags));
}

int perform_mkdir(const Changed& c) {
  const uint64_t mode = c.arg(c.row.a.path + 1) & 07777 & ~c.umask;
  return done(::mkdirat(c.a.dir.get(), c.a.name.c_str(), static_cast<mode_t>(mode)));
}

int decode_node(Changed& c) {
  const uint64_t type = c.arg(c.row.a.path + 1) & S_IFMT;
  if (type == S_IFDIR) return EPERM;
  constexpr uint64_t kTypes[] = {0, S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK};
  if (std::find(std::begin(kTypes), std::end(kTypes), type) == std::end(kTypes)) return EINVAL;
  return decode_umask(c);
}

int perform_mknod(const Changed& c) {
  const auto mode = static_cast<mode_t>(c.arg(c.row.a.path + 1) & ~uint64_t{c.umask});
  return done(::mknodat(c.a.dir.get(), c.a.name.c_str(), mode,
                        static_cast<dev_t>(c.arg(c.row.a.path + 2))));
}

// The caller's own limit, which holds for what is done for it too.
int decode_length(Changed& c) {
  if (static_cast<off_t>(c.arg(1)) < 0) return EINVAL;
  const auto longest = sandbox::file_size_limit(c.call.tid);
  if (!longest) return ESRCH;
  c.longest = *longest;
  return 0;
}

int perform_truncate(const Changed& c) {
  struct stat now {};
  if (::fstat(c.a.object.get(), &now) != 0) return errno;
  if (c.arg(1) > c.longest && c.arg(1) > static_cast<uint64_t>(now.st_size)) return EFBIG;
  return done(::truncate(c.a.through().c_str(), static_cast<off_t>(c.arg(1))));
}

int perform_chmod(const Changed& c) {
  if (c.a.facts.symlink) return EOPNOTSUPP;
  return done(::chmod(c.a.through().c_str(), static_cast<mode_t>(c.arg(c.row.a.path + 1) & 07777)));
}

int perform_chown(const Changed& c) {
  const int first = c.row.a.path + 1;
  const int error = done(::fchownat(c.a.object.get(), "", static_cast<uid_t>(c.arg(first)),
                                    static_cast<gid_t>(c.arg(first + 1)), AT_EMPTY_PATH));
  // An id that our own user namespace does not map, and which an ordinary user may not give.
  return error == EINVAL ? EPERM : error;
}

// All forms of utime say the same two times; a null pointer means now.
int decode_times(Changed& c) {
  const int at = c.row.a.path + 1;
  if (c.arg(at) == 0) return 0;
  std::array<timespec, 2> times{};
  if (c.row.nr == SYS_utimensat) {
    if (int error = sandbox::read_memory(c.call.tid, c.arg(at), times.data(), sizeof times))
      return error;
  } else if (c.row.nr == SYS_utime) {
    utimbuf buffer{};
    if (int error = sandbox::read_memory(c.call.tid, c.arg(at), &buffer, sizeof buffer))
      return error;
    times[0].tv_sec = buffer.actime;
    times[1].tv_sec = buffer.modtime;
  } else {
    timeval values[2];
    if (int error = sandbox::read_memory(c.call.tid, c.arg(at), values, sizeof values))
      return error;
    for (size_t i = 0; i < 2; ++i) {
      if (values[i].tv_usec < 0 || values[i].tv_usec >= 1'000'000) return EINVAL;
      times[i] = {values[i].tv_sec, values[i].tv_usec * 1000};
    }
  }
  c.times = times;
  c.nothing =
      c.row.nr == SYS_utimensat && times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT;
  return 0;
}

int perform_utime(const Changed& c) {
  return done(
      ::utimensat(c.a.object.get(), "", c.times ? c.times->data() : nullptr, AT_EMPTY_PATH));
}

int decode_xattr_name(Changed& c) {
  const int error = sandbox::read_string(c.call.tid, c.arg(1), kMaxXattrName, c.text);
  return error == ENAMETOOLONG || (error == 0 && c.text.empty()) ? ERANGE : error;
}

int decode_xattr(Changed& c) {
  if (c.arg(4) & ~uint64_t{XATTR_CREATE | XATTR_REPLACE}) return EINVAL;
  if (int error = decode_xattr_name(c)) return error;
  if (c.arg(3) > kMaxXattr) return E2BIG;
  c.value.resize(c.arg(3));
  return c.value.empty()
             ? 0
             : sandbox::read_memory(c.call.tid, c.arg(2), c.value.data(), c.value.size());
}

// A symlink takes none of the attributes that an agent may set.
int refused_of_symlink(const std::string& name) {
  const bool known =
      name.starts_with("user.") || name.starts_with("trusted.") || name.starts_with("security.");
  return known ? EPERM : EOPNOTSUPP;
}

int perform_setxattr(const Changed& c) {
  if (c.a.facts.symlink) return refused_of_symlink(c.text);
  return done(::setxattr(c.a.through().c_str(), c.text.c_str(), c.value.data(), c.value.size(),
                         static_cast<int>(c.arg(4))));
}

int perform_removexattr(const Changed& c) {
  if (c.a.facts.symlink) return refused_of_symlink(c.text);
  return done(::removexattr(c.a.through().c_str(), c.text.c_str()));
}

constexpr Operand kNone{};
constexpr ChangeRow kRows[] = {
    {SYS_rename, "rename", {-1, 0, kEntry}, {-1, 1, kAnyEntry}, -1, nullptr, perform_rename},
    {SYS_renameat, "renameat", {0, 1, kEntry}, {2, 3, kAnyEntry}, -1, nullptr, perform_rename},
    {SYS_renameat2, "renameat2", {0, 1, kEntry}, {2, 3, kAnyEntry}, 4, nullptr, perform_rename},
    {SYS_link, "link", {-1, 0, kSource}, {-1, 1, kNewEntry}, -1, nullptr, perform_link},
    {SYS_linkat, "linkat", {0, 1, kSource}, {2, 3, kNewEntry}, 4, nullptr, perform_link},
    {SYS_symlink, "symlink", {-1, 1, kNewEntry}, kNone, -1, decode_target, perform_symlink},
    {SYS_symlinkat, "symlinkat", {1, 2, kNewEntry}, kNone, -1, decode_target, perform_symlink},
    {SYS_unlink, "unlink", {-1, 0, kEntry}, kNone, -1, nullptr, perform_unlink},
    {SYS_unlinkat, "unlinkat", {0, 1, kEntry}, kNone, 2, nullptr, perform_unlink},
    {SYS_rmdir, "rmdir", {-1, 0, kEntry}, kNone, -1, nullptr, perform_unlink},
    {SYS_mkdir, "mkdir", {-1, 0, kNewEntry}, kNone, -1, decode_umask, perform_mkdir},
    {SYS_mkdirat, "mkdirat", {0, 1, kNewEntry}, kNone, -1, decode_umask, perform_mkdir},
    {SYS_mknod, "mknod", {-1, 0, kNewEntry}, kNone, -1, decode_node, perform_mknod},
    {SYS_mknodat, "mknodat", {0, 1, kNewEntry}, kNone, -1, decode_node, perform_mknod},
    {SYS_truncate, "truncate", {-1, 0, kObject}, kNone, -1, decode_length, perform_truncate},
    {SYS_chmod, "chmod", {-1, 0, kObject}, kNone, -1, nullptr, perform_chmod},
    {SYS_fchmodat, "fchmodat", {0, 1, kObject}, kNone, -1, nullptr, perform_chmod},
    {kFchmodat2, "fchmodat2", {0, 1, kLinkFlag}, kNone, 3, nullptr, perform_chmod},
    {SYS_chown, "chown", {-1, 0, kObject}, kNone, -1, nullptr, perform_chown},
    {SYS_lchown, "lchown", {-1, 0, kLink}, kNone, -1, nullptr, perform_chown},
    {SYS_fchownat, "fchownat", {0, 1, kLinkFlag}, kNone, 4, nullptr, perform_chown},
    {SYS_utime, "utime", {-1, 0, kObject}, kNone, -1, decode_times, perform_utime},
    {SYS_utimes, "utimes", {-1, 0, kObject}, kNone, -1, decode_times, perform_utime},
    {SYS_futimesat, "futimesat", {0, 1, kObject}, kNone, -1, decode_times, perform_utime},
    {SYS_utimensat, "utimensat", {0, 1, kLinkFlag}, kNone, 3, decode_times, perform_utime},
    {SYS_setxattr, "setxattr", {-1, 0, kObject}, kNone, -1, decode_xattr, perform_setxattr},
    {SYS_lsetxattr, "lsetxattr", {-1, 0, kLink}, kNone, -1, decode_xattr, perform_setxattr},
    {SYS_removexattr,
     "removexattr",
     {-1, 0, kObject},
     kNone,
     -1,
     decode_xattr_name,
     perform_removexattr},
    {SYS_lremovexattr,
     "lremovexattr",
     {-1, 0, kLink},
     kNone,
     -1,
     decode_xattr_name,
     perform_removexattr},
    {SYS_fchmod, "fchmod", {0, 0, kHandle}, kNone, -1, nullptr, perform_chmod},
    {SYS_fchown, "fchown", {0, 0, kHandle}, kNone, -1, nullptr, perform_chown},
    {SYS_fsetxattr, "fsetxattr", {0, 0, kHandle}, kNone, -1, decode_xattr, perform_setxattr},
    {SYS_fremovexattr,
     "fremovexattr",
     {0, 0, kHandle},
     kNone,
     -1,
     decode_xattr_name,
     perform_removexattr},
};

}  // namespace

const ChangeRow* change_row(int nr) {
  const auto* it = std::find_if(std::begin(kRows), std::end(kRows),
                                [nr](const ChangeRow& r) { return r.nr == nr; });
  return it != std::end(kRows) ? it : nullptr;
}

bool makes_directory(const ChangeRow& row) { return row.perform == perform_mkdir; }

bool removes(const ChangeRow& row) { return row.perform == perform_unlink; }

std::string change_text(const Changed& c) {
  // How many of the arguments after the path are numbers that count.
  constexpr std::pair<Perform, int> kNumbers[] = {{perform_mkdir, 1},
                                                  {perform_mknod, 2},
                                                  {perform_truncate, 1},
                                                  {perform_chmod, 1},
                                                  {perform_chown, 2}};
  std::string out = c.row.name;
  const auto add = [&out](const std::string& part) { (out += '\0') += part; };
  if (c.row.b.path >= 0) add(c.a.path), add(c.b.path);
  if (!c.text.empty()) add(c.text);
  for (const auto& [perform, count] : kNumbers) {
    for (int i = 1; c.row.perform == perform && i <= count; ++i)
      add(std::to_string(c.arg(c.row.a.path + i)));
  }
  if (c.row.perform == perform_setxattr) {
    add(std::to_string(c.arg(4)));
    add(std::string(c.value.begin(), c.value.end()));
  }
  if (c.times) {
    for (const timespec& t : *c.times)
      add(std::to_string(t.tv_sec)), add(std::to_string(t.tv_nsec));
  }
  if (c.row.nr == SYS_renameat2) add(std::to_string(c.arg(4)));
  if (c.row.flags >= 0) add(std::to_string(c.flags()));
  return out;
}

}  // namespace certgate::supervisor
