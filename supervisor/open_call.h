// open, openat, openat2, creat: decode → decide → record → perform, and the descriptor injected.
//
//   decode   copies path and flags once, pins the object (or the parent directory of a new file)
//   perform  opens what is pinned, checks that it is what was certified, labels it, injects it
// Runs on the notify thread; an open that may wait (a FIFO, a strict one) moves to the blocking
// pool.
#pragma once

#include <memory>
#include <string>
#include <unordered_set>

#include "supervisor/blocking.h"
#include "supervisor/content.h"
#include "supervisor/script_binding.h"
#include "supervisor/trap.h"

namespace certgate::supervisor {

// Everything an open is about, pinned: nothing here can be changed by the agent any more.
struct PinnedOpen {
  std::string asked;
  sandbox::UniqueFd object;  // the existing object, or for O_TMPFILE the directory
  sandbox::UniqueFd parent;  // for a new file: its directory
  std::string name;          // for a new file: its name there
  ObjectFacts facts;         // of object, else of parent
  std::string path;          // resolved, inside the sandbox
  uint64_t flags = 0;        // as asked
  uint32_t mode = 0;         // after umask, 0 when nothing is created
  bool read = false, write = false, tmpfile = false;
  bool ready = false;   // object is open for reading already, as asked
  bool waits = false;   // performed by a worker: opening it may wait
  bool inside = false;  // on one of the sandbox's own file systems

  bool create() const { return !name.empty() || tmpfile; }
  // The effect as the kernel judges it; perform recomputes the digest from this.
  kernel::OpenEffect effect() const;
};

class OpenCalls {
 public:
  // On a worker what may wait is done at once, so that this may end with the call.
  enum class On : uint8_t { kNotifyThread, kWorker };
  OpenCalls(Trap& trap, BlockingPool& pool, ScriptBindings& bindings, ContentDigests& digests,
            On on = On::kNotifyThread)
      : trap_(trap), pool_(pool), bindings_(bindings), digests_(digests), on_(on) {}
  void handle(const sandbox::TrappedCall& call);

 private:
  enum class Attempt : uint8_t { kDone, kRaced };
  int decode(const sandbox::TrappedCall& call, PinnedOpen& pin) const;
  int pin_object(int tid, int dirfd, uint64_t resolve, PinnedOpen& pin) const;
  int pin_terminal(int tid, PinnedOpen& pin) const;
  int natively_refused(const PinnedOpen& pin) const;
  Result<kernel::Label> label_of(const PinnedOpen& pin) const;
  Mark mark_of(const PinnedOpen& pin) const;
  Hold hold_of(const PinnedOpen& pin) const;
  bool pin_in_one_step(Base base, PinnedOpen& pin) const;
  Attempt try_once(const sandbox::TrappedCall& call);
  Attempt perform(const sandbox::TrappedCall& call, Judged judged, PinnedOpen& pin,
                  const kernel::Label& label);
  Attempt perform_apart(const sandbox::TrappedCall& call, Judged judged,
                        const std::shared_ptr<PinnedOpen>& pin, const kernel::Label& label);
  int check_binding(const sandbox::TrappedCall& call, const PinnedOpen& pin, int fd);
  int open_pinned(const kernel::Certificate& certificate, PinnedOpen& pin,
                  sandbox::UniqueFd& out) const;

  Trap& trap_;
  BlockingPool& pool_;
  ScriptBindings& bindings_;
  ContentDigests& digests_;
  const On on_;
  // Hashes of paths; notify thread only; hints, which may be wrong at no cost but time.
  mutable std::unordered_set<size_t> seen_regular_, behind_link_;
};

}  // namespace certgate::supervisor
