// Segment writer: puts frames behind each other into a run's log segment.
//
//   SegmentWriter segment(std::move(fd));
//   CG_TRY(const auto change, segment.keep_room());    // kFull: no further call may be taken
//   CG_CHECK(segment.append(frame));                   // survives the death of every process of ours
//   CG_CHECK(segment.sync());                          // and of the machine
//
// state: written → mapped, at the first keep_room() where the file system allows it
//
// Mapped, a frame is copied into the page cache, without a system call: the file is as long as what
// is reserved (log_room.h), zeros follow the last frame, and a frame's length is stored after all
// else, so that whoever reads meanwhile, or after a kill in the middle, sees the end before it.
// Only file systems are mapped that keep reserved blocks where they are (ext4, XFS, tmpfs): on one
// that copies on write, a full disk would be met in the middle of a frame. Elsewhere each frame is
// one write(2). A disk that fails under the mapping ends the process by SIGBUS: no record, no effect.
//
// The mapping is no child's: a sandbox is made by fork.
#pragma once

#include <cstdint>
#include <span>

#include "kernel/result.h"
#include "sandbox/fd.h"
#include "supervisor/log_room.h"

namespace certgate::supervisor {

class SegmentWriter {
 public:
  // `segment`: O_RDWR (else never mapped) | O_APPEND, as long as the frames in it. An error is said
  // by whatever is called next.
  explicit SegmentWriter(sandbox::UniqueFd segment);
  ~SegmentWriter();
  SegmentWriter(const SegmentWriter&) = delete;
  SegmentWriter& operator=(const SegmentWriter&) = delete;

  // After an error the segment may be torn: nothing may be appended any more.
  Status append(std::span<const uint8_t> frame);
  // After each append: LogRoom::keep().
  Result<LogRoom::Change> keep_room();
  Status sync();

  uint64_t size() const { return size_; }  // of the frames
  bool full() const { return room_.full(); }
  bool mapped() const { return map_ != nullptr; }

 private:
  Status map_reserved();
  void unmap();

  const sandbox::UniqueFd segment_;
  const Result<uint64_t> found_;  // its size at first; after an error nothing is appended
  uint64_t size_;
  LogRoom room_;
  bool can_map_;
  uint8_t* map_ = nullptr;
  uint64_t map_begin_ = 0, map_end_ = 0;  // offsets in the file
};

// Whether the file system of `fd` is one of those that are mapped.
bool keeps_reserved_blocks(int fd);

}  // namespace certgate::supervisor
