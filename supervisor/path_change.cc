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
#include <cstdlib>
#include <optional>
#include <vector>

#include "kernel/mutant.h"
#include "sandbox/remote.h"
#include "supervisor/change_table.h"
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

struct KnownFlags {
  int nr;
  uint64_t flags;
};
constexpr KnownFlags kKnownFlags[] = {
    {SYS_renameat2, RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT},
    {SYS_linkat, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH},
    {SYS_unlinkat, AT_REMOVEDIR},
    {kFchmodat2, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH},
    {SYS_fchownat, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH},
    {SYS_utimensat, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH},
};

int check_flags(const Changed& c) {
  for (const KnownFlags& known : kKnownFlags) {
    if (known.nr == c.row.nr && (c.flags() & ~known.flags)) return EINVAL;
  }
  const bool exchange = c.row.nr == SYS_renameat2 && (c.flags() & RENAME_EXCHANGE);
  return exchange && (c.flags() & (RENAME_NOREPLACE | RENAME_WHITEOUT)) ? EINVAL : 0;
}

// What every file system answers for ".", ".." and "/".
int refused_for_last_name(const Changed& c, As as, LastName last) {
  if (as == kNewEntry) return EEXIST;
  if (as == kSource) return EPERM;  // a directory takes no second name
  const bool rename = c.row.b.path >= 0;
  if (rename) return as == kAnyEntry && (c.flags() & RENAME_NOREPLACE) ? EEXIST : EBUSY;
  if (c.row.nr != SYS_rmdir && !(c.flags() & AT_REMOVEDIR)) return EISDIR;
  return last == LastName::kDot ? EINVAL : last == LastName::kDotDot ? ENOTEMPTY : EBUSY;
}

// What rename says of the two entries before it asks who may change them.
int refused_of_rename(const Changed& c) {
  if (c.row.b.as != kAnyEntry) return 0;
  const bool exchange = (c.flags() & RENAME_EXCHANGE) != 0;
  const bool slash_a = c.a.name.back() == '/', slash_b = c.b.name.back() == '/';
  if ((c.flags() & RENAME_NOREPLACE) && c.b.absent == 0) return EEXIST;
  if (exchange && c.b.absent != 0) return ENOENT;
  if (exchange && slash_b && !c.b.directory) return ENOTDIR;
  return !c.a.directory && (slash_a || (slash_b && !exchange)) ? ENOTDIR : 0;
}

// In its own mount namespace nobody can remove or replace what something is mounted on (EBUSY).
// From ours, the kernel would take the mount away instead. A mount point's name never changes
// inside.
bool is_mount_point(const PinnedPath& entry) {
  if (mutant(Mutant::kMountPoints)) return false;
  const std::string name = entry.name.substr(0, entry.name.find_last_not_of('/') + 1);
  struct statx s {};
  return ::statx(entry.dir.get(), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE,
                 &s) == 0 &&
         (s.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

// An unlabelled file has the origin and the secrecy of its zone, so it may not just move to another
// one: as between two file systems, callers copy instead. It may move to where more is secret, but
// not so as to have two names. A directory takes along what zones name below it.
bool changes_zone(const kernel::Policy& policy, const Changed& c) {
  const auto names_below = [](const kernel::Policy& in, const PinnedPath& path) {
    return path.directory && std::any_of(in.zones.begin(), in.zones.end(), [&](const auto& zone) {
             return zone.pattern.names_below(path.path);
           });
  };
  const bool rename = c.row.nr != SYS_link && c.row.nr != SYS_linkat;
  const bool exchange = c.row.nr == SYS_renameat2 && (c.flags() & RENAME_EXCHANGE) != 0;
  const kernel::Label from = policy.zone_label(c.a.path), to = policy.zone_label(c.b.path);
  if (names_below(policy, c.a) || (exchange && names_below(policy, c.b))) return true;
  return rename && !exchange ? !(to == from.join(policy.zone_secrecy(c.b.path))) : !(to == from);
}

// What the kernel would refuse anyway gets the kernel's errno, in its order, and no record.
int refused_natively(const Changed& c) {
  struct {
    const PinnedPath& path;
    As as;
  } const operands[] = {{c.a, c.row.a.as}, {c.b, c.row.b.as}};
  if (c.row.b.as == kAnyEntry && c.a.facts.dev != c.b.facts.dev) return EXDEV;
  for (const auto& [path, as] : operands) {
    if (path.dir && path.last != LastName::kNormal && as != kSource)
      return refused_for_last_name(c, as, path.last);
  }
  for (const auto& [path, as] : operands) {
    if (!path.dir || path.last != LastName::kNormal) continue;
    const bool may_miss = as == kNewEntry || as == kAnyEntry;
    if (path.absent != 0 && !(may_miss && path.absent == ENOENT)) return path.absent;
    if (as == kNewEntry && path.absent == 0) return EEXIST;
  }
  if (int error = refused_of_rename(c)) return error;
  if (c.a.dir && c.a.last != LastName::kNormal) return refused_for_last_name(c, kSource, c.a.last);
  for (const auto& [path, as] : operands) {
    if (path.dir && as != kSource &&
        ::faccessat(path.dir.get(), "", W_OK | X_OK, AT_EMPTY_PATH | AT_EACCESS) != 0)
      return errno;
    if (path.dir && as != kSource && path.absent == 0 && is_mount_point(path)) return EBUSY;
  }
  return 0;
}

// An O_PATH descriptor names its object but gives no access to it.
bool is_path_only(int tid, int fd) {
  const auto info =
      sandbox::read_file("/proc/" + std::to_string(tid) + "/fdinfo/" + std::to_string(fd), 65536);
  const size_t at = info ? info->find("flags:") : std::string::npos;
  return at == std::string::npos || (std::strtoul(info->c_str() + at + 6, nullptr, 8) & O_PATH);
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
  e.how = how;
  return e;
}

std::string PinnedPath::through() const { return "/proc/self/fd/" + std::to_string(object.get()); }

bool PathChanges::handles(int nr) { return change_row(nr) != nullptr; }

// Splits off the last name, keeping a trailing slash for the call itself to judge.
int PathChanges::pin_entry(int tid, Base base, PinnedPath& out) const {
  const size_t end = out.asked.find_last_not_of('/');
  const bool root = end == std::string::npos;
  const size_t slash = root ? 0 : out.asked.find_last_of('/', end);
  const std::string dir = slash == std::string::npos ? "." : out.asked.substr(0, slash + 1);
  out.name = out.asked.substr(slash == std::string::npos ? 0 : slash + 1);
  const std::string bare = out.name.substr(0, out.name.find('/'));
  if (root) out.last = LastName::kRoot;
  if (bare == ".") out.last = LastName::kDot;
  if (bare == "..") out.last = LastName::kDotDot;
  Resolution r = trap_.walk.resolve(Caller{tid}, base, dir, Final::kFollow, Missing::kError);
  if (r.error) return r.error;
  out.dir = std::move(r.object);
  if (int error = object_facts(out.dir.get(), out.facts)) return error;
  if (out.facts.kind != kernel::FileKind::kDirectory) return ENOTDIR;
  if (int error = PathWalk::path_of(out.dir.get(), out.facts.nlink == 0, out.path)) return error;
  if (out.path.empty()) return EACCES;
  if (out.path.back() != '/') out.path += '/';
  out.path += bare;
  if (out.path.size() >= kMaxPath) return ENAMETOOLONG;
  if (::faccessat(out.dir.get(), "", X_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) return errno;
  if (out.last != LastName::kNormal) return 0;
  struct stat s {};
  if (::fstatat(out.dir.get(), bare.c_str(), &s, AT_SYMLINK_NOFOLLOW) != 0) out.absent = errno;
  out.directory = S_ISDIR(s.st_mode);
  return 0;
}

int PathChanges::pin(const TrappedCall& call, int dirfd_arg, int path_arg, int as,
                     PinnedPath& out) const {
  const ChangeRow* row = change_row(call.nr);
  const uint64_t flags = row->flags >= 0 ? static_cast<uint32_t>(call.args[row->flags]) : 0;
  const int dirfd = dirfd_arg >= 0 ? static_cast<int>(call.args[dirfd_arg]) : AT_FDCWD;
  // futimens is utimensat without a path, and AT_EMPTY_PATH names a descriptor too.
  const bool no_path = as == kHandle || (call.args[path_arg] == 0 && dirfd != AT_FDCWD &&
                                         (call.nr == SYS_utimensat || call.nr == SYS_futimesat));
  if (no_path && flags != 0) return EINVAL;
  if (!no_path) {
    if (int error = sandbox::read_string(call.tid, call.args[path_arg], kMaxPath, out.asked))
      return error;
  }
  const bool by_fd = no_path || (out.asked.empty() && (flags & AT_EMPTY_PATH));
  UniqueFd base;
  if (int error = Trap::base_of(call.tid, dirfd, by_fd ? "." : out.asked, base)) return error;
  if (!by_fd && out.asked.empty()) return ENOENT;
  const bool source_dir = as == kSource && out.asked.ends_with('/');  // looked up as an object
  if (!wants_object(static_cast<As>(as), flags) && !source_dir) {
    if (int error = pin_entry(call.tid, Base{base.get()}, out)) return error;
    if (as == kSource && out.absent != 0) return out.absent;
  } else {
    const bool follow = as == kObject || (as == kSource && (flags & AT_SYMLINK_FOLLOW)) ||
                        (as == kLinkFlag && !(flags & AT_SYMLINK_NOFOLLOW));
    if (no_path && is_path_only(call.tid, dirfd)) return EBADF;
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
    if (int error = PathWalk::path_of(out.object.get(), out.facts.nlink == 0, out.path))
      return error;
    out.nameless = by_fd && as != kSource && (out.path.empty() || out.facts.nlink == 0);
    if (out.path.empty() && !out.nameless) return EACCES;
  }
  out.inside = trap_.places.contains(out.facts.dev);
  return 0;
}

// What is changed in place carries the label of whoever changed it: names, link texts and
// attributes are content too.
Mark PathChanges::mark_of(const PinnedPath& path) const {
  // A device keeps nothing of its own: its node is the host's, on a read-only mount.
  if (path.inside || (path.object && path.facts.kind == kernel::FileKind::kDevice)) return {};
  return {path.object ? Mark::Kind::kObject : Mark::Kind::kNames, path.facts.identity, path.path};
}

void PathChanges::handle(const TrappedCall& call) {
  const ChangeRow& row = *change_row(call.nr);
  Changed changed{call, row, {}, {}, 0, {}, {}, {}};
  int error = row.decode != nullptr ? row.decode(changed) : 0;
  if (error == 0 && !changed.nothing) error = check_flags(changed);
  if (error == 0 && !changed.nothing)
    error = pin(call, row.a.dirfd, row.a.path, row.a.as, changed.a);
  if (error == 0 && row.b.path >= 0)
    error = pin(call, row.b.dirfd, row.b.path, row.b.as, changed.b);
  if (error == 0) error = refused_natively(changed);
  if (!trap_.listener.valid(call.id)) return;
  if (error == 0 && changed.nothing) {
    trap_.listener.answer(call, 0);
    return;
  }
  const bool two_names = error == 0 && row.b.path >= 0 && !changed.a.inside;
  if (two_names && !mutant(Mutant::kZoneMove) &&
      changes_zone(trap_.session.decider().policy(), changed))
    error = EXDEV;
  changed.a.replaces = changed.a.dir && !makes_directory(row) && !removes(row);
  changed.b.replaces = static_cast<bool>(changed.b.dir);
  changed.a.how = changed.b.how = change_text(changed);
  const auto judged_here = [&](const PinnedPath& path) {
    return error == 0 && (path.dir || path.object) && !path.nameless;
  };
  // An approval is used once: none before the other is there.
  for (const PinnedPath* path : {&changed.a, &changed.b}) {
    if (row.b.path < 0 || !judged_here(*path)) continue;
    const auto asked =
        trap_.session.ask_first({call.tid, row.name, path->asked, Waits::kYes}, {path->effect(), {}});
    if (asked) return trap_.decline(call, *asked);
  }
  uint64_t seq = 0;
  uint32_t rule = 0;
  for (const PinnedPath* path : {&changed.a, &changed.b}) {
    if (!judged_here(*path)) continue;
    const Judged judged =
        trap_.session.judge({call.tid, row.name, path->asked, Waits::kYes},
                            kernel::Call{path->effect(), {}}, Hold{}, mark_of(*path));
    if (!judged.certificate) return trap_.decline(call, judged);
    if (kernel::action_digest(path->effect()) != judged.certificate->digest()) error = EACCES;
    seq = judged.seq;
    // Two names of one file must be one rule's matter: else what a raise takes away under one name
    // stays writable under the other. As between two file systems, callers copy instead.
    const auto& rules = judged.certificate->rules();
    const bool links = row.nr == SYS_link || row.nr == SYS_linkat;
    if (links && path == &changed.b && !rules.empty() && rules.back().rule != rule) error = EXDEV;
    if (!rules.empty()) rule = rules.back().rule;
  }
  if (error == 0) error = row.perform(changed);
  if (error == 0) {
    trap_.listener.answer(call, 0);
    return;
  }
  if (seq != 0) trap_.session.outcome(seq, row.name, call.tid, error, "emulated");
  trap_.listener.refuse(call.id, error);
}

}  // namespace certgate::supervisor
