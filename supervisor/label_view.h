// LabelView: lock-free reads of the label store that the authority writes (agentd/label_store.h).
//
// The table is a sparse file of fixed capacity that is mapped shared; format below.
//   header (64 bytes): magic "CGLABEL1", u64 capacity (slots, a power of two), u64 used
//   slot (32 bytes):   u64 fsid, u64 ino, i64 btime_ns, u32 label id (0 = empty), u32 check
// A writer (one at a time, under flock) fills the key fields, then stores the label id with release
// order; an id only ever changes to the id of a label that covers the old one (or back, when a
// running agent could not take it and nothing was written). Linear probing from
// hash(key). The names file is append-only text, one canonical label a line; line n is label id n.
// `check` is a CRC of the key, so that damage is noticed (a damaged slot reads as an error: the call
// is refused).
#pragma once

#include <optional>

#include "kernel/call.h"
#include "kernel/label.h"
#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {

class LabelView {
 public:
  // Takes read-only fds of the table and the names file.
  static Result<LabelView> open(sandbox::UniqueFd table, sandbox::UniqueFd names);
  LabelView(LabelView&&) noexcept;
  LabelView& operator=(LabelView&&) noexcept;
  ~LabelView();

  // The stored label of a file, or nullopt when it has none. Thread-safe.
  Result<std::optional<kernel::Label>> find(const kernel::FileIdentity& file) const;
  // The label of an id that another process of ours has named. Thread-safe.
  Result<kernel::Label> named(uint32_t id) const;

 private:
  struct Impl;
  explicit LabelView(Impl* impl) : impl_(impl) {}
  Impl* impl_ = nullptr;
};

}  // namespace certgate::supervisor
