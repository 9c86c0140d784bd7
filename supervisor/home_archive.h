// Home archive: an agent's home from one run to the next, as one file that the agent cannot reach.
//
//   CG_CHECK(unpack_home(in, home));               // before the agent runs, into its empty home
//   CG_CHECK(pack_home(home, mounts, label, out)); // when everything inside is dead
//   CG_TRY(kernel::Label label, archive_label(in)); // what may have influenced all of it
//
// The home itself is a tmpfs of the sandbox, so a run works on a copy and its files are `@private`.
// Kept are directories, regular files and the text of symbolic links, with modes (no set-id bits)
// and times. A hard link becomes a file of its own; sockets, FIFOs, devices, extended attributes
// and what is mounted in the home are left out. Names are single components made in directories
// that are already open, so no link leads anywhere.
//
//   header   "CGHOME1\n", u64 label offset, u64 label size     written last: without it, no archive
//   entries  kind, name size, mode, mtime, size; name; content. A directory's entries follow it, up
//            to kLeave; the last kLeave closes the home.
//   label    canonical text, to the end of the file
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "kernel/label.h"
#include "kernel/result.h"

namespace certgate::supervisor {

inline constexpr uint64_t kMaxHomeBytes = 256ull << 20;
inline constexpr size_t kMaxHomeEntries = 65536;
inline constexpr size_t kMaxHomeDepth = 64;

// `mounts`: paths relative to the home, of files that were mounted there; they are left out.
Status pack_home(int home, const std::vector<std::string>& mounts, const kernel::Label& label,
                 int out);
// Names that are there already (mounted files) stay as they are.
Status unpack_home(int in, int home);
Result<kernel::Label> archive_label(int in);

}  // namespace certgate::supervisor
