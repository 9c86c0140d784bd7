// Mounts: the sandbox's view of the file system, planned in the caller and performed in a child.
//
//   CG_TRY(MountPlan plan, plan_mounts(spec));       // before clone: may allocate, checks the
//   paths if (Failure failure = perform_mounts(plan)) …    // inside, in new user and mount
//   namespaces
//
// Inside there is: the host's userland, read-only; the workspace, writable, at its own path; tmpfs
// for /tmp, /var/tmp, /run and home; a minimal /dev; a new /proc; our own resolver configuration.
// All of it hangs on a tmpfs root that is read-only in the end. Sources are pinned and cloned
// before anything is mounted, and every target is walked without following links, so neither a path
// that lies under /tmp nor a link left in a workspace changes what is mounted where.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/result.h"
#include "sandbox/launch.h"
#include "sandbox/steps.h"

namespace certgate::sandbox {

// Where a tmpfs of ours is while files are bound from it; gone when the sandbox is ready.
inline constexpr const char* kWorkshop = "/.certgate";
inline constexpr const char* kEmptyFile = "/.certgate/empty";  // covers parts of /proc

struct MountEntry {
  enum class Kind : uint8_t { kBind, kDevice, kFileSystem, kLink };
  struct Option {
    const char* key;
    std::string value;
  };

  Kind kind = Kind::kBind;
  std::string path;             // inside; of a bind without a source also outside
  std::string source;           // kBind: outside
  std::string text;             // kFileSystem: its type; kLink: where it points
  std::vector<Option> options;  // kFileSystem
  uint64_t attributes = 0;      // MOUNT_ATTR_*
  dev_t device = 0;             // kDevice: what the node must be
  bool optional = false;        // a kernel without it, or a host, loses only this
  bool sealed = false;          // kFileSystem: read-only when all is in place
  int lent_tree = -1;           // kBind: a detached mount made by the caller
  // Filled while it is performed.
  int tree = -1;  // detached mount
  bool directory = true;
  dev_t source_device = 0;
  ino_t source_inode = 0;
};

// A file of ours, bound over one of the host's.
struct PrivateFile {
  std::string source;  // in kWorkshop
  std::string target;  // where the host's links end; empty for kEmptyFile
  std::string content;
};

struct MountPlan {
  std::vector<MountEntry> entries;  // parents before children
  std::vector<PrivateFile> files;
  std::string workspace;
};

Result<MountPlan> plan_mounts(const Spec& spec);

// Ends with the working directory at the new root.
Failure perform_mounts(MountPlan& plan);

}  // namespace certgate::sandbox
