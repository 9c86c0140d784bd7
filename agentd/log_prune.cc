#include "agentd/log_prune.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>

#include "agentd/admin_record.h"
#include "agentd/blob_store.h"
#include "agentd/duration.h"
#include "agentd/log_edge.h"
#include "agentd/log_snapshot.h"
#include "agentd/state_dir.h"

namespace certgate::agentd {
namespace {

constexpr char kFloorPath[] = "floor";

int64_t wall_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

std::optional<uint64_t> floor_ns(const std::string& text) {
  return text == "0" ? 0 : parse_duration(text);
}

// What may go, by each reason that something must stay. Times of records may go back a little where
// runs overlap: the first one that is too young ends it.
struct Bounds {
  std::map<std::string, uint64_t> last;  // index of each run's last record
  uint64_t age = UINT64_MAX, floor = UINT64_MAX, live = UINT64_MAX;
};

Result<Bounds> look(const LogSnapshot& log, uint64_t older_than_ns, uint64_t floor) {
  std::set<std::string> live;
  for (const LogSnapshot::Segment& segment : log.segments()) live.insert(segment.run);
  const int64_t now = wall_ns();
  Bounds bounds;
  CG_CHECK(log.each([&](const LogEntry& entry) {
    if (!entry.index) return ok();
    bounds.last[entry.record.run] = *entry.index;
    const int64_t age = now - entry.record.wall_ns;
    const auto younger = [age](uint64_t than) {
      return age < 0 || static_cast<uint64_t>(age) < than;
    };
    if (younger(floor)) bounds.floor = std::min(bounds.floor, *entry.index);
    if (younger(older_than_ns)) bounds.age = std::min(bounds.age, *entry.index);
    if (live.contains(entry.record.run)) bounds.live = std::min(bounds.live, *entry.index);
    return ok();
  }));
  return bounds;
}

}  // namespace

Status set_floor(int state_dir, const std::string& text) {
  if (!floor_ns(text)) return fail("a floor is 0 or like 90s, 15m, 2h or 7d");
  DurableWriter writer(state_dir);
  CG_CHECK(writer.put(kFloorPath, text.data(), text.size()));
  return writer.flush();
}

Result<std::string> floor_of(int state_dir) {
  Result<std::string> text = read_file(state_dir, kFloorPath, 64);
  if (!text && text.error().code == ENOENT) return std::string(kDefaultFloor);
  if (text && !floor_ns(*text)) return fail("floor: not a duration; set it with --floor");
  return text;
}

Result<Pruned> prune_log(LogStore& log, const std::string& state_dir, const PruneWish& wish,
                         const std::string& command) {
  CG_CHECK(log.recover());
  CG_TRY(const std::string floor, floor_of(log.dir_fd()));
  CG_TRY(const LogSnapshot snapshot, LogSnapshot::open(state_dir));
  CG_TRY(const Checkpoint at, snapshot.checkpoint());
  CG_TRY(const Bounds bounds, look(snapshot, wish.older_than_ns.value_or(0), *floor_ns(floor)));
  uint64_t wanted = at.size;
  if (wish.keep_last) wanted = at.size - std::min(at.size, *wish.keep_last);
  if (wish.older_than_ns) wanted = std::min(bounds.age, at.size);
  if (wish.before) wanted = std::min(at.size, *wish.before);
  Pruned out;
  const auto hold = [&](uint64_t bound, const std::string& what) {
    if (bound >= wanted) return;
    wanted = bound;
    out.held_by = what;
  };
  hold(bounds.floor, "records younger than the floor (" + floor + ") are kept");
  hold(bounds.live, "a run that still lives keeps its records");
  const uint64_t full = level_shape(kEntriesLevel, at.size).full;
  const uint64_t bundles = std::min(wanted / kTileWidth, full == 0 ? 0 : full - 1);
  const uint64_t first = snapshot.first_bundle();
  out.minimum = std::max(first, bundles) * kTileWidth;
  if (bundles <= first) return out;
  CG_CHECK(record_admin(log, {.command = command,
                              .kind = kernel::RecordKind::kPruned,
                              .object = {},
                              .token = {},
                              .count = out.minimum,
                              .why = "floor " + floor}));
  BlobStore blobs(log.dir_fd());
  for (const auto& [run, last] : bounds.last) {
    if (last < out.minimum) CG_CHECK(blobs.forget(run));
  }
  CG_CHECK(log.prune(out.minimum));
  out.removed = out.minimum - first * kTileWidth;
  return out;
}

}  // namespace certgate::agentd
