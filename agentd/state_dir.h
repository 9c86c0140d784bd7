// State directory: the file operations that the log and the key are built on.
//
//   CG_TRY(UniqueFd dir, open_state_dir("/home/a/.local/state/certgate"));   // made 0700 when
//   missing CG_TRY(DirLock lock, DirLock::exclusive(dir.get())); DurableWriter writer(dir.get());
//   CG_CHECK(writer.put("log/tile/0/000.p/1", bytes, size));   // temp, fsync, rename
//   CG_CHECK(writer.flush());                                  // fsync of every directory it
//   touched
//
// Paths are relative to the directory and never follow a symlink in their last component. Errors
// name the path and the cure (full disk, read-only file system, not ours).
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::agentd {

inline constexpr size_t kMaxDirEntries = 1u << 20;

// An errno in words, with what to do about it.
Error disk_error(const std::string& what, int code);
// A write that failed with this may be tried again when there is room. Never so an fsync: what it
// did not bring to the disk is lost (its error has another code).
bool disk_full(const Error& error);
Error sync_error(const std::string& what, int code);

// Opens the directory, made when missing. Refused: a symlink, another owner, a mode wider than 0700
// (an empty directory of ours is narrowed instead).
Result<sandbox::UniqueFd> open_state_dir(const std::string& path);

// Lock on `<dir>/lock`, released by the destructor. Waits at most ten seconds.
class DirLock {
 public:
  static Result<DirLock> exclusive(int dir);
  // For a reader: no lock is needed where there is no lock file (a copy of a log).
  static Result<DirLock> shared(int dir);

 private:
  explicit DirLock(sandbox::UniqueFd fd) : fd_(std::move(fd)) {}
  sandbox::UniqueFd fd_;
};

// The whole of a regular file of at most `max` bytes. ENOENT and friends are in Error::code.
Result<std::string> read_file(int dir, const std::string& path, size_t max);
Status write_all(int fd, const void* data, size_t size, const std::string& name);
Status sync_dir(int dir, const std::string& path);  // "" = the directory itself
// Names in a directory without "." and "..", sorted. A directory that is not there is empty.
Result<std::vector<std::string>> list_dir(int dir, const std::string& path);
// Unlinks a file, or a directory when `directory`; true when it was there. A directory that is not
// empty stays (false).
Result<bool> remove_entry(int dir, const std::string& path, bool directory);
// Makes a directory 0700 when it is missing; true when it was.
Result<bool> make_dir(int dir, const std::string& path);

class DurableWriter {
 public:
  explicit DurableWriter(int dir) : dir_(dir) {}
  // Replaces the file by temp (in tmp/), fsync, rename. Missing directories on its way are made.
  Status put(const std::string& path, const void* data, size_t size);
  // Makes the names durable. Nothing that was put may be relied on before.
  Status flush();

 private:
  Status make_parents(const std::string& path);
  int dir_;
  std::set<std::string> touched_;
};

}  // namespace certgate::agentd
