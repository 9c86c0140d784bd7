#include "supervisor/path_change.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <vector>

#include "kernel/mutant.h"
#include "sandbox/remote.h"
#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

using sandbox::TrappedCall;
using sandbox::UniqueFd;

#ifndef SYS_fchmodat2
constexpr int kFchmodat2 = 452;
#else
constexpr int kFchmodat2 = SYS_fchmodat2;
#endif
constexpr size_t kMaxXattr = 65536;  // XATTR_SIZE_MAX
constexpr size_t kMaxXattrName = 256;

// How an operand is pinned.
enum As : int {
  kEntry,     // must exist
  kNewEntry,  // must not
  kAnyEntry,  // either (the target of a rename)
  kObject,    // following a last symlink
  kLink,      // not following it
  kLinkFlag,  // following unless AT_SYMLINK_NOFOLLOW is in `flags`
  kHandle,    // of an open descriptor: its object
  kSource,    // of link: an entry, or with AT_SYMLINK_FOLLOW / AT_EMPTY_PATH an object
};

struct Changed;
using Decode = int (*)(Changed&);         // copies what else the call points to; 0 or errno
using Perform = int (*)(const Changed&);  // acts on what is pinned and copied; 0 or errno

struct Operand {
  int dirfd = -1, path = -1;  // argument numbers; path -1 = no such operand
  As as = kEntry;
};

struct ChangeRow {
  int nr;
  const char* name;
  Operand a, b;
  int flags;      // argument number of AT_ flags, -1 = none
  Decode decode;  // nullptr = nothing more to copy
  Perform perform;
};

// A call with everything that performing it needs.
struct Changed {
  const TrappedCall& call;
  const ChangeRow& row;
  PinnedPath a, b;
  uint32_t umask = 0;
  std::string text;                              // symlink: target; xattr: name
  std::vector<char> value;                       // xattr
  std::optional<std::array<timespec, 2>> times;  // utime; none = now
  uint64_t arg(int i) const { return call.args[i]; }
  uint64_t flags() const { return row.flags >= 0 ? static_cast<uint32_t>(arg(row.flags)) : 0; }
};

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
  return sandbox::read_string(c.call.tid, c.arg(0), kMaxPath, c.text);
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

int perform_mknod(const Changed& c) {
  const auto mode = static_cast<mode_t>(c.arg(c.row.a.path + 1) & ~uint64_t{c.umask});
  return done(::mknodat(c.a.dir.get(), c.a.name.c_str(), mode,
                        static_cast<dev_t>(c.arg(c.row.a.path + 2))));
}

int perform_truncate(const Changed& c) {
  return done(::truncate(c.a.through().c_str(), static_cast<off_t>(c.arg(1))));
}

int perform_chmod(const Changed& c) {
  if (c.a.facts.symlink) return EOPNOTSUPP;
  return done(::chmod(c.a.through().c_str(), static_cast<mode_t>(c.arg(c.row.a.path + 1) & 07777)));
}

int perform_chown(const Changed& c) {
  const int first = c.row.a.path + 1;
  return done(::fchownat(c.a.object.get(), "", static_cast<uid_t>(c.arg(first)),
                         static_cast<gid_t>(c.arg(first + 1)), AT_EMPTY_PATH));
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
  return 0;
}

int perform_utime(const Changed& c) {
  return done(
      ::utimensat(c.a.object.get(), "", c.times ? c.times->data() : nullptr, AT_EMPTY_PATH));
}

int decode_xattr_name(Changed& c) {
  const int error = sandbox::read_string(c.call.tid, c.arg(1), kMaxXattrName, c.text);
  return error == ENAMETOOLONG ? ERANGE : error;
}

int decode_xattr(Changed& c) {
  if (int error = decode_xattr_name(c)) return error;
  if (c.arg(3) > kMaxXattr) return E2BIG;
  c.value.resize(c.arg(3));
  return c.value.empty()
             ? 0
             : sandbox::read_memory(c.call.tid, c.arg(2), c.value.data(), c.value.size());
}

int perform_setxattr(const Changed& c) {
  if (c.a.facts.symlink) return EPERM;
  return done(::setxattr(c.a.through().c_str(), c.text.c_str(), c.value.data(), c.value.size(),
                         static_cast<int>(c.arg(4))));
}

int perform_removexattr(const Changed& c) {
  if (c.a.facts.symlink) return EPERM;
  return done(::removexattr(c.a.through().c_str(), c.text.c_str()));
}

constexpr Operand kNone{};
constexpr ChangeRow kRows[] = {
    {SYS_rename, "rename", {-1, 0, kEntry}, {-1, 1, kAnyEntry}, -1, nullptr, perform_rename},
    {SYS_renameat, "renameat", {0, 1, kEntry}, {2, 3, kAnyEntry}, -1, nullptr, perform_rename},
    {SYS_renameat2, "renameat2", {0, 1, kEntry}, {2, 3, kAnyEntry}, -1, nullptr, perform_rename},
    {SYS_link, "link", {-1, 0, kSource}, {-1, 1, kNewEntry}, -1, nullptr, perform_link},
    {SYS_linkat, "linkat", {0, 1, kSource}, {2, 3, kNewEntry}, 4, nullptr, perform_link},
    {SYS_symlink, "symlink", {-1, 1, kNewEntry}, kNone, -1, decode_target, perform_symlink},
    {SYS_symlinkat, "symlinkat", {1, 2, kNewEntry}, kNone, -1, decode_target, perform_symlink},
    {SYS_unlink, "unlink", {-1, 0, kEntry}, kNone, -1, nullptr, perform_unlink},
    {SYS_unlinkat, "unlinkat", {0, 1, kEntry}, kNone, 2, nullptr, perform_unlink},
    {SYS_rmdir, "rmdir", {-1, 0, kEntry}, kNone, -1, nullptr, perform_unlink},
    {SYS_mkdir, "mkdir", {-1, 0, kNewEntry}, kNone, -1, decode_umask, perform_mkdir},
    {SYS_mkdirat, "mkdirat", {0, 1, kNewEntry}, kNone, -1, decode_umask, perform_mkdir},
    {SYS_mknod, "mknod", {-1, 0, kNewEntry}, kNone, -1, decode_umask, perform_mknod},
    {SYS_mknodat, "mknodat", {0, 1, kNewEntry}, kNone, -1, decode_umask, perform_mknod},
    {SYS_truncate, "truncate", {-1, 0, kObject}, kNone, -1, nullptr, perform_truncate},
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

const ChangeRow* row_of(int nr) {
  const auto* it = std::find_if(std::begin(kRows), std::end(kRows),
                                [nr](const ChangeRow& r) { return r.nr == nr; });
  return it != std::end(kRows) ? it : nullptr;
}

// Whether this operand is pinned as the object itself, given the call's AT_ flags.
bool wants_object(As as, uint64_t flags) {
  if (as == kSource) return (flags & (AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) != 0;
  return as == kObject || as == kLink || as == kLinkFlag || as == kHandle;
}

}  // namespace

kernel::OpenEffect PinnedPath::effect() const {
  kernel::OpenEffect e;
  e.path = path;
  e.kind = object ? facts.kind : kernel::FileKind::kRegular;
  e.file = facts.identity;
  e.write = true;
  e.create = !object;
  e.inside = inside;
  e.replaces = replaces && !mutant(Mutant::kReplaces);
  e.other_names = !mutant(Mutant::kOtherNames) && object &&
                  facts.kind == kernel::FileKind::kRegular && facts.nlink > 1;
  return e;
}

std::string PinnedPath::through() const { return "/proc/self/fd/" + std::to_string(object.get()); }

bool PathChanges::handles(int nr) { return row_of(nr) != nullptr; }

// Splits off the last name, keeping a trailing slash for the call itself to judge.
int PathChanges::pin_entry(int tid, Base base, PinnedPath& out) const {
  const size_t end = out.asked.find_last_not_of('/');
  if (end == std::string::npos) return EBUSY;  // "/" itself
  const size_t slash = out.asked.find_last_of('/', end);
  const std::string dir = slash == std::string::npos ? "." : out.asked.substr(0, slash + 1);
  out.name = out.asked.substr(slash == std::string::npos ? 0 : slash + 1);
  const std::string bare = out.name.substr(0, out.name.find('/'));
  if (bare == "." || bare == "..") return bare == "." ? EINVAL : ENOTEMPTY;
  Resolution r = trap_.walk.resolve(Caller{tid}, base, dir, Final::kFollow, Missing::kError);
  if (r.error) return r.error;
  out.dir = std::move(r.object);
  if (int error = object_facts(out.dir.get(), out.facts)) return error;
  if (out.facts.kind != kernel::FileKind::kDirectory) return ENOTDIR;
  out.path = PathWalk::path_of(out.dir.get(), out.facts.nlink == 0);
  if (out.path.empty()) return EACCES;
  if (out.path.back() != '/') out.path += '/';
  out.path += bare;
  struct stat s {};
  out.exists = ::fstatat(out.dir.get(), bare.c_str(), &s, AT_SYMLINK_NOFOLLOW) == 0;
  return 0;
}

int PathChanges::pin(const TrappedCall& call, int dirfd_arg, int path_arg, int as,
                     PinnedPath& out) const {
  const ChangeRow* row = row_of(call.nr);
  const uint64_t flags = row->flags >= 0 ? static_cast<uint32_t>(call.args[row->flags]) : 0;
  const int dirfd = dirfd_arg >= 0 ? static_cast<int>(call.args[dirfd_arg]) : AT_FDCWD;
  // futimens is utimensat without a path, and AT_EMPTY_PATH names a descriptor too.
  const bool no_path = as == kHandle || (call.args[path_arg] == 0 &&
                                         (call.nr == SYS_utimensat || call.nr == SYS_futimesat));
  if (!no_path) {
    if (int error = sandbox::read_string(call.tid, call.args[path_arg], kMaxPath, out.asked))
      return error;
  }
  const bool by_fd = no_path || (out.asked.empty() && (flags & AT_EMPTY_PATH));
  UniqueFd base;
  if (int error = Trap::base_of(call.tid, dirfd, by_fd ? "." : out.asked, base)) return error;
  if (!by_fd && out.asked.empty()) return ENOENT;
  if (!wants_object(static_cast<As>(as), flags)) {
    const int error = pin_entry(call.tid, Base{base.get()}, out);
    if (error != 0) return error == EBUSY && as == kNewEntry ? EEXIST : error;  // "/" exists
  } else {
    const bool follow = as == kObject || (as == kSource && (flags & AT_SYMLINK_FOLLOW)) ||
                        (as == kLinkFlag && !(flags & AT_SYMLINK_NOFOLLOW));
    if (by_fd) {
      out.object = std::move(base);
    } else {
      Resolution r =
          trap_.walk.resolve(Caller{call.tid}, Base{base.get()}, out.asked,
                             follow ? Final::kFollow : Final::kNoFollow, Missing::kError);
      if (r.error) return r.error;
      out.object = std::move(r.object);
    }
    if (int error = object_facts(out.object.get(), out.facts)) return error;
    out.path = PathWalk::path_of(out.object.get(), out.facts.nlink == 0);
    out.exists = true;
    out.nameless = as == kHandle && (out.path.empty() || out.facts.nlink == 0);
    if (out.path.empty() && !out.nameless) return EACCES;
  }
  out.inside = trap_.places.contains(out.facts.dev);
  if (as == kNewEntry && out.exists) return EEXIST;
  if (as != kNewEntry && as != kAnyEntry && !out.exists) return ENOENT;
  // What the kernel would refuse anyway gets the kernel's errno and no record.
  if (out.dir && as != kSource &&
      ::faccessat(out.dir.get(), "", W_OK | X_OK, AT_EMPTY_PATH | AT_EACCESS) != 0)
    return errno;
  return 0;
}

// What is changed in place carries the label of whoever changed it: names, link texts and
// attributes are content too.
int PathChanges::mark(const PinnedPath& path, const kernel::Certificate& certificate) const {
  // A device keeps nothing of its own: its node is the host's, on a read-only mount.
  if (path.inside || (path.object && path.facts.kind == kernel::FileKind::kDevice)) return 0;
  const auto marked = path.object
                          ? trap_.session.mark(path.facts.identity, path.path)
                          : trap_.session.mark_names(path.facts.identity, path.path, certificate);
  if (marked) return 0;
  trap_.session.fatal(marked.error().what);
  return EIO;
}

void PathChanges::handle(const TrappedCall& call) {
  const ChangeRow& row = *row_of(call.nr);
  Changed changed{call, row, {}, {}, 0, {}, {}, {}};
  int error = pin(call, row.a.dirfd, row.a.path, row.a.as, changed.a);
  if (error == 0 && row.b.path >= 0)
    error = pin(call, row.b.dirfd, row.b.path, row.b.as, changed.b);
  if (error == 0 && row.decode != nullptr) error = row.decode(changed);
  if (!trap_.listener.valid(call.id)) return;
  const bool two_names = error == 0 && row.b.path >= 0 && !changed.a.inside;
  // An unlabelled file has the origin of its zone, so it may not just move to another one: as
  // between two file systems, callers copy instead.
  const kernel::Policy& policy = trap_.session.decider().policy();
  if (two_names && !mutant(Mutant::kZoneMove) &&
      !(policy.zone_label(changed.a.path) == policy.zone_label(changed.b.path)))
    error = EXDEV;
  const bool makes_directory = row.perform == perform_mkdir;
  changed.a.replaces = changed.a.dir && !makes_directory && row.perform != perform_unlink;
  changed.b.replaces = static_cast<bool>(changed.b.dir);
  uint64_t seq = 0;
  uint32_t rule = 0;
  for (const PinnedPath* path : {&changed.a, &changed.b}) {
    if (error != 0 || (!path->dir && !path->object) || path->nameless) continue;
    const Judged judged = trap_.session.judge({call.tid, row.name, path->asked},
                                              kernel::Call{path->effect(), {}}, Hold{});
    if (!judged.certificate) {
      trap_.listener.refuse(call.id, judged.error);
      return;
    }
    if (kernel::action_digest(path->effect()) != judged.certificate->digest()) error = EACCES;
    seq = judged.seq;
    // Two names of one file must be one rule's matter: else what a raise takes away under one name
    // stays writable under the other. As between two file systems, callers copy instead.
    const auto& rules = judged.certificate->rules();
    const bool links = row.nr == SYS_link || row.nr == SYS_linkat;
    if (links && path == &changed.b && !rules.empty() && rules.back().rule != rule) error = EXDEV;
    if (!rules.empty()) rule = rules.back().rule;
    if (error == 0) error = mark(*path, *judged.certificate);
  }
  if (error == 0) error = row.perform(changed);
  if (error == 0) {
    trap_.listener.answer(call.id, 0);
    return;
  }
  if (seq != 0) trap_.session.outcome(seq, row.name, call.tid, error, "emulated");
  trap_.listener.refuse(call.id, error);
}

}  // namespace certgate::supervisor
