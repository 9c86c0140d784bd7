// Notify: the supervisor's end of a seccomp listener (seccomp_unotify(2)).
//
//   Listener listener(std::move(box.notify));
//   for (;;) {
//     auto call = listener.receive();                 // one trapped system call, its thread waits
//     ... copy arguments, pin objects ...
//     if (!listener.valid(call->id)) continue;        // the thread is gone: tids are reused
//     listener.inject(call->id, fd, flags);           // or answer(id, value), or refuse(id, errno)
//   }
//
// Every function is thread-safe: the kernel serialises on the notification id. ENOENT from an
// answer means that the caller died meanwhile; it is reported as false, not as an error.
#pragma once

#include <linux/seccomp.h>

#include <cstdint>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::sandbox {

struct TrappedCall {
  uint64_t id = 0;
  int tid = 0;  // thread id in our pid namespace
  int nr = 0;
  uint64_t args[6] = {};
};

enum class Wake : uint8_t { kNormal, kSameCpu };

class Listener {
 public:
  explicit Listener(UniqueFd fd) : fd_(std::move(fd)) {}
  int fd() const { return fd_.get(); }

  // Asks the kernel to run us on the caller's CPU when it traps (Linux 6.6). False: not supported.
  bool set_wake(Wake wake) const;

  // Blocks until a call arrives. error.code is ENODEV when the last task of the sandbox has gone.
  Result<TrappedCall> receive() const;

  bool valid(uint64_t id) const;
  bool answer(uint64_t id, int64_t value) const;  // the call returns `value`
  bool refuse(uint64_t id, int error) const;      // the call returns -1 with errno `error`
  // Only for exec, whose effect is proved at PTRACE_EVENT_EXEC: the kernel performs the call
  // itself.
  bool proceed_to_exec(uint64_t id) const;

  // Installs a copy of `fd` in the caller and makes the call return its number, in one step.
  // Returns 0, or the errno to refuse with (EMFILE …), or ENOENT when the caller is gone.
  int inject(uint64_t id, int fd, uint32_t newfd_flags) const;

 private:
  UniqueFd fd_;
};

}  // namespace certgate::sandbox
