// SealedLog: the Merkle log itself: append under the lock, sign, publish. LogStore's inner half.
//
//   CG_TRY(SealedLog log, SealedLog::open(std::move(dir_fd)));
//   CG_CHECK(log.append({record_bytes}));     // durable and signed when it returns
//
// Order of an append, each step durable before the next: tiles, checkpoint.last, log/checkpoint,
// removal of the partial tiles that were superseded. A crash between any two of them is completed
// or undone by the next one to hold the lock: checkpoint.last decides. After an error the object is
// dead: every later call returns that error. A full disk alone is no such error (disk_full()): the
// call may be made again, with the same records or more.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agentd/log_edge.h"
#include "agentd/signing_key.h"
#include "agentd/state_dir.h"
#include "kernel/record.h"

namespace certgate::agentd {

inline constexpr char kCheckpointPath[] = "log/checkpoint";
inline constexpr char kLastPath[] = "checkpoint.last";
inline constexpr size_t kMaxBatchRecords = 4096;

class SealedLog {
 public:
  static Result<SealedLog> open(sandbox::UniqueFd dir);

  int dir() const { return dir_.get(); }
  const SigningKey& key() const { return key_; }
  uint64_t size() const { return edge_.size(); }

  // Takes the lock; at most kMaxBatchRecords entries, each at most kMaxRecordBytes.
  Status append(const std::vector<std::string_view>& entries);
  Status check();
  // Removes what an interrupted append left in log/ and tmp/.
  Status sweep();
  // Removes the full entry bundles of the records before `minimum`, oldest first, but never the
  // last full one. The hash tiles stay: every proof of what is left still can be made.
  Status prune(uint64_t minimum);
  // The last sealed record of each of these runs (absent: none is sealed).
  Result<std::map<std::string, kernel::Record>> last_records(const std::set<std::string>& runs);

 private:
  SealedLog(sandbox::UniqueFd dir, SigningKey key) : dir_(std::move(dir)), key_(std::move(key)) {}
  static Status create(int dir);
  Status guarded(const std::function<Status()>& work);  // lock, not dead, dies of an error
  Status sync_edge();
  Status publish(const LogEdge& edge);
  Status remove_superseded(uint64_t old_size, uint64_t new_size);
  Status sweep_levels();
  Status sweep_level(unsigned level);
  Status sweep_partials(unsigned level, uint64_t index, size_t keep_width);

  sandbox::UniqueFd dir_;
  SigningKey key_;
  LogEdge edge_;
  std::string note_;  // bytes of the checkpoint that edge_ stands for
  bool unfinished_ = false;  // an append met a full disk: it has left files beyond the edge
  std::optional<Error> dead_;
};

}  // namespace certgate::agentd
