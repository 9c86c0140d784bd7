// Log prune: how much of a log may go, and its going. C2SP tlog-tiles' pruning: a minimum index,
// below which entry bundles are removed; hash tiles stay, so every proof of what is left can be
// made, and so can consistency with every old checkpoint.
//
//   CG_CHECK(set_floor(log.dir_fd(), "30d"));         // kept in the file `floor`; 183d without one
//   CG_TRY(Pruned done, prune_log(log, state_dir, {.keep_last = 100000}, "certgate audit prune
//   …"));
//
// Never pruned: what is younger than the floor, anything of a run that still lives, the last full
// bundle. The `pruned` record is in the log before the first file goes: verify_log() takes no other
// word for it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "agentd/log_store.h"
#include "kernel/result.h"

namespace certgate::agentd {

inline constexpr const char* kDefaultFloor = "183d";  // six months

// One of them.
struct PruneWish {
  std::optional<uint64_t> keep_last = {};      // records
  std::optional<uint64_t> older_than_ns = {};  // age
  std::optional<uint64_t> before = {};         // index (the size of a checkpoint)
};

struct Pruned {
  uint64_t minimum = 0;  // index of the first record that is kept
  uint64_t removed = 0;  // records that were there and are gone
  std::string held_by;   // what kept it from being more, if anything
};

// "0", or a duration (duration.h).
Status set_floor(int state_dir, const std::string& text);
Result<std::string> floor_of(int state_dir);

Result<Pruned> prune_log(LogStore& log, const std::string& state_dir, const PruneWish& wish,
                         const std::string& command);

}  // namespace certgate::agentd
