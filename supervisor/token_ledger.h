// Token ledger: what is used, revoked and over of a run's tokens, shared with every other run that
// uses one of them. Lock-free.
//
//   ledger.read(state.tokens);                       // before a decision
//   if (!ledger.take(certificate.meters())) …        // somebody else took the last: decide again
//
// N callers at a limit get exactly N, in however many processes: each meter is taken only below its
// limit, the last token's first. A token before it in the chain can then be short only for
// good, so what is given back was of no use to anybody. (A rate may refuse a call that would have
// been possible had another one not been given back at that moment.)
// A meter with a limit counts only up to what the disk knows to be used; a few calls ahead are
// synced at once, so a crash, also of the machine, never gives a call back.
#pragma once

#include <memory>
#include <vector>

#include "kernel/result.h"
#include "kernel/token_check.h"
#include "sandbox/fd.h"
#include "supervisor/token_slot.h"

namespace certgate::supervisor {

class TokenLedger {
 public:
  // `epoch` for reading, `slots` for writing, one for each token of the chain. Refused: a slot that
  // is not that token's.
  static Result<TokenLedger> open(const kernel::TokenChain& chain, sandbox::UniqueFd epoch,
                                  std::vector<sandbox::UniqueFd> slots);

  void read(kernel::TokenStates& tokens) const;
  // False: nothing was taken. An error: the disk does not take the reservation.
  Result<bool> take(const std::vector<kernel::MeterUse>& uses, int64_t boot_ns);
  // Neither revoked nor of an old epoch: asked again where a call has waited.
  bool live() const;

 private:
  struct Unmap {
    void operator()(const void* page) const;
  };
  struct Slot {
    sandbox::UniqueFd fd;
    std::unique_ptr<TokenSlot, Unmap> page;
    size_t meters = 0;  // in use
    uint64_t epoch = 0;
  };
  Result<bool> take_one(const kernel::MeterUse& use, int64_t boot_ns);
  void give_back(const kernel::MeterUse& use);

  sandbox::UniqueFd epoch_fd_;
  std::unique_ptr<const EpochSlot, Unmap> epoch_;
  std::vector<Slot> slots_;
};

}  // namespace certgate::supervisor
