// Path walk: resolves a path as the *caller* would, from outside its namespaces, and pins the
// result.
//
//   PathWalk walk(root_fd);                              // the agent's "/", O_PATH
//   Resolution r = walk.resolve(base, "/proc/self/fd/3", Final::kFollow, Missing::kError);
//   if (r.error) return refuse(r.error);
//   use(r.object);                                       // O_PATH descriptor of exactly that
//   object
//
// Two ways, same answer: the kernel's own walk in one openat2 (RESOLVE_IN_ROOT / RESOLVE_BENEATH),
// and, where that cannot know what the caller would see (/proc/self, magic links, links that leave
// the base), a walk component by component. State of the latter: (directory, components still to
// go, links followed); each symlink pushes its text in front of what is still to go. The result is
// a kernel object, never a string: what happens to the path afterwards is irrelevant.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <utility>

#include "kernel/call.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxPath = 4096;  // PATH_MAX, the NUL included
inline constexpr int kMaxLinks = 40;      // as in the kernel

enum class Final : uint8_t { kFollow, kNoFollow };  // what a symlink as last component means
enum class Missing : uint8_t { kError, kParent };   // ENOENT, or return the parent and the name

struct Resolution {
  int error = 0;             // errno; 0 = object, or parent + name, is set
  sandbox::UniqueFd object;  // O_PATH
  sandbox::UniqueFd parent;  // Missing::kParent and the last component does not exist
  std::string name;

  static Resolution failed(int error) {
    Resolution out;
    out.error = error;
    return out;
  }
  static Resolution found(sandbox::UniqueFd object) {
    Resolution out;
    out.object = std::move(object);
    return out;
  }
  static Resolution missing(sandbox::UniqueFd parent, std::string name) {
    Resolution out;
    out.parent = std::move(parent);
    out.name = std::move(name);
    return out;
  }
};

// Where the caller stands: its thread id, used only for /proc/self and the like.
struct Caller {
  int tid = 0;
};

// Where a path starts from. fd < 0 = the agent's root.
struct Base {
  int fd = -1;
};

class PathWalk {
 public:
  // Borrows the O_PATH descriptor of the agent's root directory.
  explicit PathWalk(int root_fd);

  // `resolve_flags`: the caller's own openat2 RESOLVE_* flags, 0 for every other call. A
  // combination that cannot be kept from outside gives ENOSYS, so that the caller falls back to
  // openat.
  Resolution resolve(const Caller& caller, Base base, const std::string& path, Final final,
                     Missing missing, uint64_t resolve_flags = 0) const;

  // Opens what the kernel's own walk finds, for reading, in one step; empty when it finds nothing.
  // Only for a path that is likely to be a regular file: anything else must not be touched before
  // it is judged (a FIFO notices), and the caller drops it and goes by resolve() and reopen().
  // With Links::kNone it finds nothing behind a symlink: then an absolute path that is_plain() is
  // the object's own.
  enum class Links : uint8_t { kFollow, kNone };
  sandbox::UniqueFd open_likely_regular(Base base, const std::string& path, uint64_t flags,
                                        Links links) const;
  // Absolute, and without "." , ".." or empty components.
  static bool is_plain(const std::string& path);

  // What the link "self" or "thread-self" in /proc says to the caller, when `path` names one; else
  // "".
  std::string own_link(const Caller& caller, const std::string& path) const;

  // The absolute path of a pinned object inside the sandbox, without the kernel's " (deleted)"
  // mark;
  // "" for what has none, a pipe. ENAMETOOLONG: it has one, which nobody can say, and so nobody can
  // judge.
  static int path_of(int fd, bool deleted, std::string& path);

 private:
  Resolution walk(const Caller& caller, sandbox::UniqueFd start, const std::string& path,
                  Final final, Missing missing) const;
  Resolution resolve_scoped(Base base, const std::string& path, Final final, Missing missing,
                            uint64_t flags) const;
  bool is_root(int fd) const;

  int root_;
  dev_t root_dev_ = 0;
  ino_t root_ino_ = 0;
};

// Facts of a pinned object, in one statx.
struct ObjectFacts {
  kernel::FileKind kind = kernel::FileKind::kOther;
  bool symlink = false;
  kernel::FileIdentity identity;
  dev_t dev = 0;
  dev_t rdev = 0;
  uint32_t nlink = 0;
  uint32_t uid = 0;
  uint32_t mode = 0;
  uint64_t size = 0;
  int64_t mtime_ns = 0, ctime_ns = 0;
};
// 0 or errno.
int object_facts(int fd, ObjectFacts& out);

// Opens what an O_PATH descriptor pins, for real. Returns the fd or -errno.
int reopen(int fd, int flags);

}  // namespace certgate::supervisor
