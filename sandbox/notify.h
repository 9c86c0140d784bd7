// Notify: the supervisor's end of a seccomp listener (seccomp_unotify(2)).
//
//   Listener listener(std::move(box.notify));
//   for (;;) {
//     auto call = listener.receive();                 // one trapped system call, its thread waits
//     ... copy arguments, pin objects ...
//     if (!listener.valid(call->id)) continue;        // the thread is gone: tids are reused
//     listener.inject(*call, fd, flags);       // or answer(*call, value), or refuse(id, errno)
//   }
//
// Every function is thread-safe: the kernel serialises on the notification id. ENOENT from an
// answer means that the caller died meanwhile; it is reported as false, not as an error. A caller
// that was only interrupted gets the answer when it makes the call again (restarts.h).
#pragma once

#include <linux/seccomp.h>

#include <cstdint>

#include "kernel/result.h"
#include "sandbox/fd.h"
#include "sandbox/restarts.h"

namespace certgate::sandbox {

// Which signals end a call that is being served: only those that kill its caller
// (WAIT_KILLABLE_RECV), or any that it handles.
enum class Interrupts : uint8_t { kFatal, kHandled };

enum class Wake : uint8_t { kNormal, kSameCpu };

class Listener {
 public:
  explicit Listener(UniqueFd fd, Interrupts interrupts = Interrupts::kFatal)
      : fd_(std::move(fd)), interrupts_(interrupts) {}
  int fd() const { return fd_.get(); }

  // Asks the kernel to run us on the caller's CPU when it traps (Linux 6.6). False: not supported.
  bool set_wake(Wake wake) const;

  // Blocks until a call arrives. error.code is ENODEV when the last task of the sandbox has gone.
  Result<TrappedCall> receive() const;

  bool valid(uint64_t id) const;
  bool answer(const TrappedCall& call, int64_t value) const;  // performed: it returns `value`
  bool refuse(uint64_t id, int error) const;  // nothing happened: -1 with errno `error`
  // Only for exec, whose effect is proved at PTRACE_EVENT_EXEC: the kernel performs the call
  // itself.
  bool proceed_to_exec(uint64_t id) const;

  // Installs a copy of `fd` in the caller and makes the call return its number, in one step.
  // Returns 0, or the errno to refuse with (EMFILE …), or ENOENT when the caller is gone.
  int inject(const TrappedCall& call, int fd, uint32_t newfd_flags) const;

 private:
  bool answer_again(const TrappedCall& call) const;

  mutable Restarts restarts_;
  UniqueFd fd_;
  const Interrupts interrupts_;
};

}  // namespace certgate::sandbox
