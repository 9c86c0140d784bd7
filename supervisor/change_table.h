// The table of calls that change a path: which arguments name what, what else they point to, and
// how each is performed on what is pinned.
//
//   const ChangeRow& row = *change_row(SYS_renameat2);      // nullptr: no such call
//   Changed changed{call, row, {}, {}, 0, {}, {}, {}};
//   row.decode(changed);                                     // copies; then pin both operands,
//   judge row.perform(changed);                                    // 0 or errno
#pragma once

#include <time.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/path_change.h"

namespace certgate::supervisor {

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
  const sandbox::TrappedCall& call;
  const ChangeRow& row;
  PinnedPath a, b;
  uint32_t umask = 0;
  std::string text;                              // symlink: target; xattr: name
  std::vector<char> value;                       // xattr
  std::optional<std::array<timespec, 2>> times;  // utime; none = now
  bool nothing = false;                          // utime that leaves both times as they are
  uint64_t longest = UINT64_MAX;                 // up to where the caller may lengthen a file
  uint64_t arg(int i) const { return call.args[i]; }
  uint64_t flags() const { return row.flags >= 0 ? static_cast<uint32_t>(arg(row.flags)) : 0; }
};

// nullptr when the call changes no path.
const ChangeRow* change_row(int nr);
bool makes_directory(const ChangeRow& row);
bool removes(const ChangeRow& row);
// For a certificate (OpenEffect::how): the call, both paths, and all else that decides what it does.
std::string change_text(const Changed& c);

}  // namespace certgate::supervisor
