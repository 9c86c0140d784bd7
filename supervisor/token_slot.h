// The layout of a token's slot and of the epoch's, shared by who makes them (agentd/token_store.h)
// and who counts in them (token_ledger.h). Little-endian, as the machine is; one page each.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernel/token.h"

namespace certgate::supervisor {

inline constexpr uint64_t kTokenSlotMagic = 0x314e454b4f544743;  // "CGTOKEN1"
inline constexpr uint64_t kEpochMagic = 0x314843504f454743;      // "CGEOPCH1"
inline constexpr size_t kTokenPageBytes = 4096;
inline constexpr size_t kMeters = 1 + kernel::kMaxScopes;

struct MeterSlot {
  std::atomic<uint64_t> used = 0;
  // What the file on the disk says is used, so that power loss never gives a call back: nobody
  // counts beyond `durable`; `ceiling` is written first, then synced, then `durable` follows.
  std::atomic<uint64_t> ceiling = 0;
  std::atomic<uint64_t> durable = 0;
  std::atomic<int64_t> full_ns = 0;  // kernel/token_check.h
};

struct TokenSlot {
  uint64_t magic = kTokenSlotMagic;
  char id[32] = {};
  char boot[40] = {};  // of the boot in which `used` counts
  std::atomic<uint32_t> revoked = 0;
  uint32_t reserved[9] = {};
  MeterSlot meters[kMeters];
};
static_assert(sizeof(TokenSlot) <= kTokenPageBytes && std::atomic<uint64_t>::is_always_lock_free);

struct EpochSlot {
  uint64_t magic = kEpochMagic;
  std::atomic<uint64_t> epoch = 1;
};

}  // namespace certgate::supervisor
