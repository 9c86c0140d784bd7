// The label table's layout, shared by its one writer (agentd/label_store.h) and its readers
// (label_view.h, where the rules are). All fields little-endian, as the machine is.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernel/call.h"

namespace certgate::supervisor {

inline constexpr uint64_t kLabelMagic = 0x314c4542414c4743;  // "CGLABEL1"
inline constexpr uint64_t kLabelSlots = 1ull << 21;          // sparse: 64 MiB of address space

struct LabelHeader {
  uint64_t magic = 0;
  uint64_t capacity = 0;
  std::atomic<uint64_t> used = 0;
  std::atomic<uint64_t> runs = 0;  // that ever began: who knows fewer looks for their tables again
  uint64_t reserved[4] = {};
};
static_assert(sizeof(LabelHeader) == 64);

struct LabelSlot {
  uint64_t fsid = 0;
  uint64_t ino = 0;
  int64_t btime_ns = 0;
  std::atomic<uint32_t> label = 0;  // 0 = empty; stored last, with release order
  uint32_t check = 0;
};
static_assert(sizeof(LabelSlot) == 32 && std::atomic<uint32_t>::is_always_lock_free);

// The label of a slot whose first join was taken back: the file has none.
inline constexpr uint32_t kNoLabel = UINT32_MAX;

inline constexpr uint64_t kLabelFileBytes = sizeof(LabelHeader) + kLabelSlots * sizeof(LabelSlot);

inline uint64_t label_hash(const kernel::FileIdentity& file) {
  uint64_t h = file.fsid * 0x9e3779b97f4a7c15u;
  for (const uint64_t part : {file.ino, static_cast<uint64_t>(file.btime_ns)}) {
    h ^= part;
    h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 29;
  }
  return h;
}
inline uint32_t label_check(const kernel::FileIdentity& file) {
  return static_cast<uint32_t>(label_hash(file) >> 13) ^ 0x5ca1ab1eu;
}
inline bool same_key(const LabelSlot& slot, const kernel::FileIdentity& file) {
  return slot.ino == file.ino && slot.fsid == file.fsid && slot.btime_ns == file.btime_ns;
}

}  // namespace certgate::supervisor
