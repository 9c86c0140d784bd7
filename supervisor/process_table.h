// Process table: which process, running which image, made a call. Cheap enough for every record.
//
//   processes.fill(record, now);                 // by record.pid: started, exec, parent
//   processes.image_started(pid, seq);           // at the exec proof, before its outcome is
//   recorded
//
// A pid alone says little, since pids come again: `started` is its process's start time. `exec` is
// the seq of the certificate that started the image which the process runs: an image is known
// by the addresses of its stack and its arguments, which the kernel chooses at random at each exec
// and a fork copies; so a child that never made an exec has its parent's. `parent` is its parent
// when it was first seen. What cannot be read is left out.
//
// A thread is looked at once; a descriptor of it tells, at most every kSureFor_ns, that it is still
// the same one (pids do not come round within that).
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>

#include "kernel/record.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxKnownThreads = 512;  // each is a descriptor
inline constexpr size_t kMaxImages = 65536;
inline constexpr int64_t kSureFor_ns = 50'000'000;

class ProcessTable {
 public:
  // Calls must be ordered by the caller's lock. `now`: CLOCK_BOOTTIME.
  void fill(kernel::Record& record, int64_t now_ns);
  uint64_t image_started(int pid, uint64_t seq);  // its start time, 0 when it cannot be read

 private:
  using Image = std::pair<uint64_t, uint64_t>;  // start of stack, of arguments
  struct Facts {
    uint64_t started = 0, parent = 0;
    Image image;
  };
  struct Thread {
    sandbox::UniqueFd pidfd;
    int64_t sure_until_ns = 0;
    uint64_t started = 0, parent = 0, exec = 0;
  };
  static bool read(int pid, Facts& facts);
  Thread look(int tid) const;

  std::unordered_map<int, Thread> threads_;
  std::map<Image, uint64_t> images_;
};

}  // namespace certgate::supervisor
