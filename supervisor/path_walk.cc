#include "supervisor/path_walk.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <unordered_map>

#include "sandbox/remote.h"

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

// Our own descriptors, by number; opened once, valid for every thread of this process.
int self_fds() {
  static const int fd = ::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
  return fd;
}

int sys_openat2(int dirfd, const char* path, uint64_t flags, uint64_t resolve) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.resolve = resolve;
  for (int tries = 0; tries < 16; ++tries) {
    const long fd = ::syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    if (fd >= 0) return static_cast<int>(fd);
    // EAGAIN: somebody on the host renamed something while a scoped ".." was looked up. Whoever
    // does so all the time must not make others fail: the caller then walks by components.
    if (errno != EAGAIN && errno != EINTR) break;
  }
  return -errno;
}

bool on_procfs(int fd) {
  struct statfs s {};
  return ::fstatfs(fd, &s) == 0 && s.f_type == PROC_SUPER_MAGIC;
}

constexpr ino_t kProcRootIno = 1;

// f_fsid survives a remount and, on disk file systems, a reboot; st_dev does neither.
uint64_t file_system_id(dev_t dev, int fd) {
  thread_local std::unordered_map<dev_t, uint64_t> known;
  const auto it = known.find(dev);
  if (it != known.end()) return it->second;
  struct statfs s {};
  uint64_t id = 0;
  if (::fstatfs(fd, &s) == 0) std::memcpy(&id, &s.f_fsid, sizeof id);
  if (id == 0) id = dev;
  if (known.size() < 4096) known.emplace(dev, id);
  return id;
}

kernel::FileKind kind_of(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return kernel::FileKind::kRegular;
    case S_IFDIR:
      return kernel::FileKind::kDirectory;
    case S_IFIFO:
      return kernel::FileKind::kFifo;
    case S_IFSOCK:
      return kernel::FileKind::kSocket;
    case S_IFCHR:
    case S_IFBLK:
      return kernel::FileKind::kDevice;
    default:
      return kernel::FileKind::kOther;
  }
}

// The text that "self" and "thread-self" at the root of the sandbox's /proc stand for: our own pid
// has no number in there, the caller's has.
std::string own_proc_link(const Caller& caller, const std::string& name) {
  if (name != "self" && name != "thread-self") return {};
  const auto facts = sandbox::task_facts(caller.tid);
  if (!facts) return {};
  if (name == "self") return std::to_string(facts->inner_tgid);
  return std::to_string(facts->inner_tgid) + "/task/" + std::to_string(facts->inner_tid);
}

}  // namespace

int reopen(int fd, int flags) {
  char name[16];
  std::snprintf(name, sizeof name, "%d", fd);
  const int opened = ::openat(self_fds(), name, flags | O_CLOEXEC);
  return opened >= 0 ? opened : -errno;
}

int object_facts(int fd, ObjectFacts& out) {
  struct statx s {};
  const unsigned want = STATX_BASIC_STATS | STATX_BTIME;
  if (::statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, want, &s) != 0) return errno;
  out.kind = kind_of(s.stx_mode);
  out.symlink = S_ISLNK(s.stx_mode);
  out.dev = ::makedev(s.stx_dev_major, s.stx_dev_minor);
  out.rdev = ::makedev(s.stx_rdev_major, s.stx_rdev_minor);
  out.identity.fsid = file_system_id(out.dev, fd);
  out.identity.ino = s.stx_ino;
  constexpr int64_t kSecond = 1'000'000'000;
  if (s.stx_mask & STATX_BTIME)
    out.identity.btime_ns = s.stx_btime.tv_sec * kSecond + s.stx_btime.tv_nsec;
  out.nlink = s.stx_nlink;
  out.uid = s.stx_uid;
  out.mode = s.stx_mode;
  out.size = s.stx_size;
  out.mtime_ns = s.stx_mtime.tv_sec * kSecond + s.stx_mtime.tv_nsec;
  out.ctime_ns = s.stx_ctime.tv_sec * kSecond + s.stx_ctime.tv_nsec;
  return 0;
}

PathWalk::PathWalk(int root_fd) : root_(root_fd) {
  struct stat s {};
  if (::fstat(root_fd, &s) == 0) {
    root_dev_ = s.st_dev;
    root_ino_ = s.st_ino;
  }
}

int PathWalk::path_of(int fd, bool deleted, std::string& path) {
  char name[16];
  std::snprintf(name, sizeof name, "%d", fd);
  char text[kMaxPath];
  const ssize_t n = ::readlinkat(self_fds(), name, text, sizeof text);
  path.clear();
  if (n < 0) return errno;
  if (n == 0 || text[0] != '/') return 0;
  path.assign(text, static_cast<size_t>(n));
  constexpr std::string_view kMark = " (deleted)";
  if (deleted && path.ends_with(kMark)) path.resize(path.size() - kMark.size());
  return 0;
}

std::string PathWalk::own_link(const Caller& caller, const std::string& path) const {
  return own_proc_link(caller, path.substr(path.rfind('/') + 1));
}

bool PathWalk::is_root(int fd) const {
  struct stat s {};
  return ::fstat(fd, &s) == 0 && s.st_dev == root_dev_ && s.st_ino == root_ino_;
}

Resolution PathWalk::resolve(const Caller& caller, Base base, const std::string& path, Final final,
                             Missing missing, uint64_t resolve_flags) const {
  if (path.empty()) return Resolution::failed(ENOENT);
  if (resolve_flags != 0) return resolve_scoped(base, path, final, missing, resolve_flags);
  const bool absolute = path[0] == '/';
  const uint64_t open_flags = O_PATH | (final == Final::kNoFollow ? O_NOFOLLOW : 0);
  const int start = absolute ? root_ : (base.fd >= 0 ? base.fd : root_);
  const uint64_t scope = absolute ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const int fd = sys_openat2(start, path.c_str(), open_flags, scope);
  if (fd >= 0) return Resolution::found(UniqueFd(fd));
  if (fd == -ENOENT && missing == Missing::kError) {
    // Missing for us may exist for the caller (/proc/self), but only by way of a link.
    const int plain = sys_openat2(start, path.c_str(), open_flags, scope | RESOLVE_NO_SYMLINKS);
    if (plain == -ENOENT) return Resolution::failed(ENOENT);
    if (plain >= 0) return Resolution::found(UniqueFd(plain));
  } else if (fd != -ENOENT && fd != -EXDEV && fd != -ELOOP && fd != -EAGAIN) {
    return Resolution::failed(-fd);
  }
  UniqueFd from(::fcntl(start, F_DUPFD_CLOEXEC, 0));
  if (!from) return Resolution::failed(errno);
  return walk(caller, std::move(from), path, final, missing);
}

bool PathWalk::is_plain(const std::string& path) {
  if (path.size() < 2 || path[0] != '/' || path.back() == '/') return false;
  for (size_t at = 0; at != std::string::npos; at = path.find('/', at + 1)) {
    const char* part = path.c_str() + at + 1;
    if (part[0] == '/') return false;
    if (part[0] != '.') continue;
    if (part[1] == '/' || part[1] == '\0') return false;
    if (part[1] == '.' && (part[2] == '/' || part[2] == '\0')) return false;
  }
  return true;
}

UniqueFd PathWalk::open_likely_regular(Base base, const std::string& path, uint64_t flags,
                                       Links links) const {
  const bool absolute = !path.empty() && path[0] == '/';
  const int start = absolute ? root_ : base.fd;
  uint64_t scope = absolute ? RESOLVE_IN_ROOT : RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  if (links == Links::kNone) scope |= RESOLVE_NO_SYMLINKS;
  // O_NONBLOCK: should it be a FIFO after all, nobody waits here.
  UniqueFd fd(sys_openat2(start, path.c_str(), flags | O_NONBLOCK | O_NOCTTY, scope));
  if (fd && !(flags & O_NONBLOCK) && ::fcntl(fd.get(), F_SETFL, static_cast<int>(flags)) != 0)
    return UniqueFd();
  return fd;
}

// The caller's own scoping (openat2): one kernel walk, no second way of understanding it.
Resolution PathWalk::resolve_scoped(Base base, const std::string& path, Final final,
                                    Missing missing, uint64_t flags) const {
  const uint64_t open_flags = O_PATH | (final == Final::kNoFollow ? O_NOFOLLOW : 0);
  if (path[0] == '/' && !(flags & (RESOLVE_BENEATH | RESOLVE_IN_ROOT))) {
    base.fd = root_;
    flags |= RESOLVE_IN_ROOT;
  }
  if (!(flags & (RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS))) {
    return Resolution::failed(ENOSYS);
  }
  flags &= ~uint64_t{RESOLVE_CACHED};
  const int start = base.fd >= 0 ? base.fd : root_;
  const int fd = sys_openat2(start, path.c_str(), open_flags, flags);
  if (fd >= 0) return Resolution::found(UniqueFd(fd));
  if (fd != -ENOENT || missing == Missing::kError) return Resolution::failed(-fd);
  const size_t slash = path.find_last_of('/');
  const std::string dir = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  UniqueFd parent(sys_openat2(start, dir.c_str(), O_PATH | O_DIRECTORY, flags));
  if (!parent) return Resolution::failed(ENOENT);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty()) return Resolution::failed(EISDIR);
  const UniqueFd left(
      sys_openat2(parent.get(), name.c_str(), O_PATH | O_NOFOLLOW, RESOLVE_BENEATH));
  if (left) return Resolution::failed(ELOOP);  // a dangling link as last component
  return Resolution::missing(std::move(parent), name);
}

Resolution PathWalk::walk(const Caller& caller, UniqueFd at, const std::string& path, Final final,
                          Missing missing) const {
  std::string todo = path;
  if (path.size() >= kMaxPath) return Resolution::failed(ENAMETOOLONG);
  int links = 0;
  for (size_t pos = 0;;) {
    if (pos == 0 && !todo.empty() && todo[0] == '/') at.reset(::fcntl(root_, F_DUPFD_CLOEXEC, 0));
    if (!at) return Resolution::failed(EMFILE);
    while (pos < todo.size() && todo[pos] == '/') ++pos;
    if (pos >= todo.size()) return Resolution::found(std::move(at));
    size_t end = todo.find('/', pos);
    if (end == std::string::npos) end = todo.size();
    const std::string name = todo.substr(pos, end - pos);
    const size_t rest = todo.find_first_not_of('/', end);
    const bool last = rest == std::string::npos;
    const bool must_be_dir = end < todo.size();
    pos = end;
    if (name == "." || (name == ".." && is_root(at.get()))) continue;
    const int fd = sys_openat2(at.get(), name.c_str(), O_PATH | O_NOFOLLOW, 0);
    if (fd == -ENOENT && last && missing == Missing::kParent) {
      if (must_be_dir) return Resolution::failed(EISDIR);
      return Resolution::missing(std::move(at), name);
    }
    UniqueFd next(fd < 0 ? -1 : fd);
    struct stat s {};
    std::string text;
    if (fd < 0 || ::fstat(fd, &s) != 0) return Resolution::failed(fd < 0 ? -fd : errno);
    if (!S_ISLNK(s.st_mode)) {
      if (must_be_dir && !S_ISDIR(s.st_mode)) return Resolution::failed(ENOTDIR);
      at = std::move(next);
      continue;
    }
    if (last && !must_be_dir && final == Final::kNoFollow)
      return Resolution::found(std::move(next));
    if (++links > kMaxLinks) return Resolution::failed(ELOOP);
    struct stat dir {};
    if (on_procfs(at.get()) && ::fstat(at.get(), &dir) == 0) {
      if (dir.st_ino != kProcRootIno) {
        // A magic link: the kernel jumps to the object itself. So do we, and judge what is there.
        const int target = sys_openat2(at.get(), name.c_str(), O_PATH, 0);
        if (target < 0) return Resolution::failed(-target);
        at.reset(target);
        continue;
      }
      text = own_proc_link(caller, name);
    }
    if (text.empty()) {
      char buffer[kMaxPath];
      const ssize_t n = ::readlinkat(next.get(), "", buffer, sizeof buffer);
      if (n <= 0) return Resolution::failed(n < 0 ? errno : ENOENT);
      text.assign(buffer, static_cast<size_t>(n));
    }
    todo = text + todo.substr(pos);
    if (todo.size() >= kMaxPath) return Resolution::failed(ENAMETOOLONG);
    pos = 0;
  }
}

}  // namespace certgate::supervisor
