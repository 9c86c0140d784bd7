// LogStore: the sealed log of one state directory, and the segments that feed it.
//
//   CG_TRY(LogStore store, LogStore::open(state_dir));   // makes it, or checks it against its last
//   checkpoint CG_CHECK(store.recover());                           // segments that dead runs left
//   behind CG_TRY(SegmentFile segment, store.create_segment(run));
//   CG_CHECK(append_record(segment.append.get(), start));   // and the supervisor appends the same
//   way CG_TRY(size_t sealed, store.seal(segment.tail));     // at least once a second
//   CG_CHECK(store.finish(segment.tail));                // the writer is gone: seal the rest,
//   remove
//
// Files of a state directory (0700):
//   key, key.pub                   see signing_key.h
//   lock                           flock: exclusive while the log changes, shared for a snapshot
//   checkpoint.last                copy of the last signed checkpoint, written before
//   log/checkpoint log/checkpoint                 C2SP tlog-checkpoint log/tile/<L>/<N>[.p/<W>]
//   C2SP tlog-tiles hash tiles log/tile/entries/<N>[.p/<W>]   entry bundles: u16 BE length |
//   record, 256 to a full one segments/<run>.seg             frames (supervisor/frame.h) of a run that
//   is not wholly sealed tmp/                           files on their way to their place
//
//   blobs/<run>                    what was kept out of records; segments/<run>.blobs while it
//   lives
//
// Laws: nothing is signed that is not durable; the log never gets shorter than checkpoint.last; the
// first failure of a write ends this object: every later call returns that failure (fsyncgate).
// Runs share a state directory: `lock` sequences them. Not thread-safe: one thread per LogStore.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agentd/signing_key.h"
#include "kernel/record.h"
#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::agentd {

// The authority's reading end of one segment: how far it is sealed.
class SegmentTail {
 public:
  SegmentTail() = default;
  const std::string& run() const { return run_; }
  uint64_t offset() const { return offset_; }      // bytes sealed
  uint64_t next_seq() const { return next_seq_; }  // of the first record that is not sealed
  bool ended() const { return ended_; }            // a stop or gap record of the run is sealed

 private:
  friend class LogStore;
  sandbox::UniqueFd fd_;     // its shared flock says: this run is alive
  sandbox::UniqueFd blobs_;  // none where a run has left none
  std::string run_;
  uint64_t offset_ = 0;
  uint64_t next_seq_ = 1;
  bool ended_ = false;
  bool gap_ = false;  // the last sealed record is a gap: nothing more can be said
};

struct SegmentFile {
  sandbox::UniqueFd append;  // O_RDWR | O_APPEND, close-on-exec, flocked shared: the supervisor's
                             // (supervisor/segment_writer.h)
  sandbox::UniqueFd blobs;   // O_WRONLY, else the same, of segments/<run>.blobs (supervisor/blob_file.h)
  SegmentTail tail;
};

// Encodes, frames and appends one record with one write. An error means that the segment may be
// torn: nothing may be appended after it.
Status append_record(int segment, const kernel::Record& record);

class LogStore {
 public:
  // Opens or makes the state directory and checks the right edge of the log against
  // checkpoint.last.
  static Result<LogStore> open(const std::string& dir);
  LogStore(LogStore&&) noexcept;
  LogStore& operator=(LogStore&&) noexcept;
  ~LogStore();

  const SigningKey& key() const;
  int dir_fd() const;     // the state directory
  uint64_t size() const;  // records sealed, as this process last saw it

  // Makes segments/<run>.seg, which must not exist (`run`: 1 to 32 characters of [a-z0-9]).
  Result<SegmentFile> create_segment(const std::string& run);
  // Seals the complete frames that were appended since; returns how many. Records must be of this
  // run and their seq consecutive. An incomplete frame at the end stays for the next call.
  Result<size_t> seal(SegmentTail& tail);
  // The writer is gone: seals what is left, adds a `gap` record if the tail is torn or the run has
  // no stop record, then removes the segment (a damaged one is kept as segments/<run>.damaged).
  Status finish(SegmentTail& tail);
  // finish() for every segment that no process holds; removes leftovers of an interrupted append.
  Status recover();
  Status prune(uint64_t minimum);  // see SealedLog; what may go is for log_prune.h to say
  // The check of open() again: the log is not shorter than, nor different from, its last
  // checkpoint.
  Status check();

 private:
  struct Impl;
  Result<SegmentFile> make_segment(const std::string& run);
  explicit LogStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace certgate::agentd
