// LogReader: single records of a sealed log, each shown to be under the signed checkpoint, and
// proofs.
//
//   CG_TRY(LogReader log, LogReader::open(state_dir));
//   CG_TRY(std::string bytes, log.entry(17));                // an Error: it is not what was signed
//   CG_TRY(std::vector<Digest> path, log.inclusion_proof(17));
//   CG_TRY(std::vector<Digest> grown, log.consistency_proof(12));
//
// Reads only the tiles it needs: the edge under the lock when it opens, full tiles later, since
// they never change. A tile is believed when its root is in the proven tile above it; those of the
// edge when they make the root of the checkpoint. Not thread-safe: it keeps what it has read.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agentd/log_snapshot.h"
#include "kernel/merkle.h"

namespace certgate::agentd {

class LogReader {
 public:
  static Result<LogReader> open(const std::string& state_dir);

  const LogSnapshot& snapshot() const { return snapshot_; }
  const VerifierKey& key() const { return key_; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  const std::string& note() const { return *snapshot_.published(); }
  uint64_t size() const { return checkpoint_.size; }

  // The bytes of a sealed record; its leaf hash is in the tree of the checkpoint.
  Result<std::string> entry(uint64_t index);
  Result<kernel::Record> record(uint64_t index);
  Result<std::vector<kernel::Digest>> inclusion_proof(uint64_t index);
  // That the tree of the first `old_size` leaves is the start of this one.
  Result<std::vector<kernel::Digest>> consistency_proof(uint64_t old_size);
  Result<kernel::Digest> root_at(uint64_t old_size);

 private:
  explicit LogReader(LogSnapshot snapshot) : snapshot_(std::move(snapshot)) {}
  Status check_edge();
  // A hash tile that is under the checkpoint.
  Result<const std::vector<kernel::Digest>*> tile(unsigned level, uint64_t index);
  // Root of the perfect subtree of 2^height leaves that starts at leaf index << height.
  Result<kernel::Digest> node(unsigned height, uint64_t index);
  Result<kernel::Digest> subtree(uint64_t first, uint64_t count);

  LogSnapshot snapshot_;
  VerifierKey key_;
  Checkpoint checkpoint_;
  std::map<std::pair<unsigned, uint64_t>, std::vector<kernel::Digest>> tiles_;  // proven
  uint64_t bundle_index_ = UINT64_MAX;
  std::string bundle_;                     // the last one that was read
  std::vector<std::string_view> entries_;  // in bundle_
};

}  // namespace certgate::agentd
