// LogSnapshot: one moment of a state directory, for readers (audit). Never writes, works on a copy.
//
//   CG_TRY(LogSnapshot snapshot, LogSnapshot::open(state_dir));
//   CG_CHECK(snapshot.each([](const LogEntry& e) { show(e.record); return ok(); }));
//
// The lock is held only while the checkpoint, the partial tiles and the list of files are read:
// full tiles never change, and segments are held open, so a slow reader makes no writer wait.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agentd/log_edge.h"
#include "agentd/note.h"
#include "kernel/record.h"
#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::agentd {

struct LogEntry {
  kernel::Record record;
  std::optional<uint64_t> index;  // in the sealed log; none while it is only in a segment
};

class LogSnapshot {
 public:
  struct Segment {
    std::string run;
    sandbox::UniqueFd fd;
    uint64_t size = 0;
  };

  // kEdge: paths() stays empty and only the partial tiles of the checkpoint are copied: what a
  // question needs of a log of many files.
  enum class Files : uint8_t { kAll, kEdge };
  static Result<LogSnapshot> open(const std::string& state_dir, Files files = Files::kAll);

  int dir() const { return dir_.get(); }  // the state directory
  // key.pub, checkpoint.last, log/checkpoint as they were; none when missing.
  const std::optional<std::string>& key_line() const { return key_line_; }
  const std::optional<std::string>& last() const { return last_; }
  const std::optional<std::string>& published() const { return published_; }
  // Every file below log/, sorted; directories end in '/', anything else in '?'.
  const std::vector<std::string>& paths() const { return paths_; }
  bool has_segments() const { return has_segments_; }  // the directory is there (not a bare copy)
  const std::vector<Segment>& segments() const { return segments_; }

  // The first bundle that is there: those before it were pruned (or are missing: see verify_log).
  uint64_t first_bundle() const { return first_bundle_; }
  // A tile or bundle; Error::code ENOENT when it is missing.
  Result<std::string> tile(unsigned level, uint64_t index, size_t width) const;
  // The log's key and its checkpoint, signature verified.
  Result<VerifierKey> key() const;
  Result<Checkpoint> checkpoint() const;
  // Sealed records in order, then those of segments that are not sealed yet. Stops at an error.
  Status each(const std::function<Status(const LogEntry&)>& visit) const;
  // The records of one segment after `sealed_seq`.
  Status each_unsealed(const Segment& segment, uint64_t sealed_seq,
                       const std::function<Status(const LogEntry&)>& visit) const;

 private:
  Status read_moment(Files files);
  Status read_edge();
  Status read_tree(const std::string& directory, size_t depth);
  void find_first_bundle(Files files);
  Status read_segments();

  sandbox::UniqueFd dir_;
  std::optional<std::string> key_line_, last_, published_;
  std::vector<std::string> paths_;
  std::map<std::string, std::string> partial_;
  std::vector<Segment> segments_;
  bool has_segments_ = false;
  uint64_t first_bundle_ = 0;
};

}  // namespace certgate::agentd
