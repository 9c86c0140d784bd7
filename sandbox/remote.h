// Remote: bounded copies out of a trapped thread's memory and facts about it from /proc; and the
// one way back in, for answers that a call returns in memory (readlink, xattr).
//
// Only decode calls the former. What they return is a snapshot: it is worth something only after
// Listener::valid() has been asked again (the tid may have been reused).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::sandbox {

// Copies exactly `size` bytes. 0, or EFAULT.
int read_memory(int tid, uint64_t address, void* out, size_t size);

// Where an answer goes: the memory of the process that `tid` belonged to when this was opened, even
// if the number is used again. Open it, ask Listener::valid(), then write.
class RemoteWriter {
 public:
  static Result<RemoteWriter> open(int tid);
  int write(uint64_t address, const void* data, size_t size) const;  // 0 or EFAULT

 private:
  explicit RemoteWriter(UniqueFd memory) : memory_(std::move(memory)) {}
  UniqueFd memory_;
};

// Copies a NUL-terminated string without the NUL. 0, EFAULT, or ENAMETOOLONG when it is longer than
// `max` bytes (the NUL included).
int read_string(int tid, uint64_t address, size_t max, std::string& out);

// Copies an argv-like vector of string pointers. 0, EFAULT, or E2BIG beyond the limits.
int read_strings(int tid, uint64_t address, size_t max_count, size_t max_bytes,
                 std::vector<std::string>& out);

// What /proc/<tid>/status says about a thread.
struct TaskFacts {
  pid_t tgid = 0;       // in our pid namespace
  pid_t inner_tid = 0;  // in the innermost pid namespace
  pid_t inner_tgid = 0;
  mode_t umask = 022;
  std::vector<uint32_t> uids, gids;  // real, effective, saved, fs
};
Result<TaskFacts> task_facts(int tid);

// RLIMIT_FSIZE of a thread's process, in bytes; UINT64_MAX where it has none.
Result<uint64_t> file_size_limit(int tid);

// Whether a signal waits that would interrupt a blocking call of this thread. False when in doubt
// (a signal to the process may be meant for another thread).
bool signal_waits(int tid);

// Reads a whole /proc file, at most `max` bytes (more is an error with code EFBIG).
Result<std::string> read_file(const std::string& path, size_t max);

// "/proc/<tid>/<what>" opened O_PATH (cwd, root, exe, fd/N). error.code is the errno.
Result<UniqueFd> open_task_link(int tid, const std::string& what);

}  // namespace certgate::sandbox
