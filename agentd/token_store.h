// Token store: the epoch, and what is used and revoked of each token, durable.
//
//   CG_TRY(TokenStore store, TokenStore::open(state_dir_fd));
//   CG_TRY(UniqueFd slot, store.slot(token, Keep::kForGood));  // for a run's ledger; made when
//   missing CG_CHECK(store.revoke(id));                    // on return no run can use it any more
//   CG_TRY(uint64_t epoch, store.rotate());        // nor any token made before
//
// In the state directory: tokens/epoch and tokens/<id>, one page each, mapped by whoever uses them
// (supervisor/token_slot.h). After a boot what was reserved counts as used.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/result.h"
#include "kernel/token.h"
#include "sandbox/fd.h"

namespace certgate::agentd {

// A run's own token ends with it, and is made without waiting for the disk.
enum class Keep : uint8_t { kForGood, kForTheRun };

class TokenStore {
 public:
  // `dir` is an open state directory; it is duplicated.
  static Result<TokenStore> open(int dir);

  uint64_t epoch() const { return epoch_; }  // when it was opened
  Result<sandbox::UniqueFd> epoch_for_reading() const;
  Result<sandbox::UniqueFd> slot(const kernel::Token& token, Keep keep) const;
  // `id` is a whole one, 32 hex digits. What is revoked before it was ever used stays revoked.
  Status revoke(const std::string& id) const;
  Result<uint64_t> rotate();
  // Of a run that has ended, whose token nobody else can use.
  Status forget(const std::string& id) const;

 private:
  TokenStore(sandbox::UniqueFd dir, uint64_t epoch) : dir_(std::move(dir)), epoch_(epoch) {}
  sandbox::UniqueFd dir_;
  uint64_t epoch_ = 1;
};

}  // namespace certgate::agentd
