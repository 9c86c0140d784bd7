// Log room: disk space reserved for an agent's records before they are made, so that the disk never
// fills up in the middle of one.
//
//   LogRoom room(segment, size);
//   switch (room.keep(size)) …          // after each append: kFull, kRoomAgain or kSame
//   if (room.full()) wait();            // what is already begun may still append: kReservedBytes
//
// state: has room → full → has room …
//
// Between kReservedBytes and twice that lie allocated beyond the segment's end (fallocate, so the
// file does not look longer). When no more can be had, or less than kLeftForOthers would be free
// beside it (tiles, labels), the room is full: the reserve then takes the halt record, what calls
// in progress still record, and the end of the run. On a file system that cannot reserve, what is
// free is looked at instead.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernel/result.h"

namespace certgate::supervisor {

inline constexpr uint64_t kReservedBytes = 1u << 20;
inline constexpr uint64_t kLeftForOthers = 1u << 20;

class LogRoom {
 public:
  enum class Change : uint8_t { kSame, kFull, kRoomAgain };

  // `segment` is lent; `size` bytes are in it.
  LogRoom(int segment, uint64_t size) : segment_(segment), reserved_(size), looked_at_(size) {}
  // Calls must be ordered by the caller's lock. `size`: what the segment has now.
  Result<Change> keep(uint64_t size);
  uint64_t reserved() const { return reserved_; }  // bytes of the segment that have their blocks
  bool full() const { return full_.load(std::memory_order_relaxed); }

 private:
  Result<bool> has_room(uint64_t size);

  const int segment_;
  uint64_t reserved_;   // allocated up to here
  uint64_t looked_at_;  // where it cannot be: size at the last look
  bool can_reserve_ = true;
  std::atomic<bool> full_{false};
};

}  // namespace certgate::supervisor
