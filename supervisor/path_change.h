// Path changes: rename, link, symlink, unlink, rmdir, mkdir, mknod, truncate, chmod, chown, utime,
// xattr by path. Each is a write to every path it changes: judged on pinned directories, performed
// on them.
//
//   operand as *entry*   the directory pinned, the last name kept: what the call makes, moves or
//   removes operand as *object*  the object itself pinned: what the call changes in place
// A call with two operands needs a certificate for both before anything happens.
#pragma once

#include <string>

#include "supervisor/trap.h"

namespace certgate::supervisor {

// One path of a call, pinned.
// A last component that names no entry of its directory.
enum class LastName : uint8_t { kNormal, kDot, kDotDot, kRoot };

struct PinnedPath {
  sandbox::UniqueFd dir;     // entry: its directory
  std::string name;          // entry: its name there, with the slash it was asked with
  sandbox::UniqueFd object;  // object: O_PATH
  std::string asked, path;   // as written; as resolved inside
  ObjectFacts facts;         // of object, else of dir
  LastName last = LastName::kNormal;
  bool directory = false;  // entry: what has this name is one
  int absent = 0;          // entry: why nothing has this name, ENOENT or what looking gave
  bool inside = false;     // on one of the sandbox's own file systems
  bool replaces = false;   // entry: another thing has the name afterwards
  std::string how;         // what the call does, exactly: see OpenEffect
  bool nameless = false;   // a descriptor's object that no path leads to: nobody else's

  kernel::OpenEffect effect() const;
  // "/proc/self/fd/N" of the object: the way to calls that take only paths.
  std::string through() const;
};

class PathChanges {
 public:
  explicit PathChanges(Trap& trap) : trap_(trap) {}
  static bool handles(int nr);
  void handle(const sandbox::TrappedCall& call);  // on the notify thread

 private:
  int pin(const sandbox::TrappedCall& call, int dirfd_arg, int path_arg, int mode,
          PinnedPath& out) const;
  int pin_entry(int tid, Base base, PinnedPath& out) const;
  Mark mark_of(const PinnedPath& path) const;

  Trap& trap_;
};

}  // namespace certgate::supervisor
