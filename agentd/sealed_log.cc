#include "agentd/sealed_log.h"

#include <algorithm>
#include <cerrno>

namespace certgate::agentd {
namespace {

using kernel::Record;

Result<std::string> make_note(const SigningKey& key, uint64_t size, const kernel::Digest& root) {
  const std::string text = Checkpoint{key.name(), size, root}.text();
  CG_TRY(const Signature signature, key.sign(text));
  return note_of(text, key.verifier(), signature);
}

Error in_file(const char* path, const Error& error) {
  return fail(std::string(path) + ": " + error.what, error.code);
}

// "" when the file is not there.
Result<std::string> read_if_there(int dir, const char* path) {
  Result<std::string> bytes = read_file(dir, path, kMaxNoteBytes);
  if (!bytes && bytes.error().code == ENOENT) return std::string();
  return bytes;
}

Status put_durably(int dir, const char* path, const std::string& bytes) {
  DurableWriter writer(dir);
  CG_CHECK(writer.put(path, bytes.data(), bytes.size()));
  return writer.flush();
}

}  // namespace

// The key comes last: a directory without it was never finished, and holds no record yet.
Status SealedLog::create(int dir) {
  for (const char* name : {"log", "segments", "tmp"}) CG_CHECK(make_dir(dir, name));
  CG_TRY(const SigningKey key, SigningKey::generate());
  CG_TRY(const std::string note, make_note(key, 0, kernel::empty_root()));
  CG_TRY(const std::vector<std::string> tiles, list_dir(dir, "log/tile"));
  CG_TRY(const std::string last, read_if_there(dir, kLastPath));
  if (!tiles.empty() || (!last.empty() && last.find("\n0\n") == std::string::npos)) {
    return fail(
        "state directory: it has a log but its key is gone; restore key from a copy, or "
        "start a new one with --state");
  }
  CG_CHECK(key.save_public(dir));
  CG_CHECK(put_durably(dir, kLastPath, note));
  CG_CHECK(put_durably(dir, kCheckpointPath, note));
  CG_CHECK(sync_dir(dir, ""));
  return key.save_private(dir);
}

Result<SealedLog> SealedLog::open(sandbox::UniqueFd dir) {
  CG_TRY(std::optional<DirLock> lock, DirLock::exclusive(dir.get()));
  Result<SigningKey> key = SigningKey::load(dir.get());
  if (!key && key.error().code == ENOENT) {
    CG_TRY(const std::string key_file, read_if_there(dir.get(), "key"));
    if (!key_file.empty()) return key.error();  // it was key.pub that is missing
    CG_CHECK(create(dir.get()));
    key = SigningKey::load(dir.get());
  }
  if (!key) return key.error();
  for (const char* name : {"segments", "tmp", "blobs"}) CG_CHECK(make_dir(dir.get(), name));
  lock.reset();
  SealedLog log(std::move(dir), std::move(*key));
  CG_CHECK(log.check());
  return log;
}

Status SealedLog::guarded(const std::function<Status()>& work) {
  if (dead_) return *dead_;
  Result<DirLock> lock = DirLock::exclusive(dir());
  if (!lock) return lock.error();  // nothing was touched: this alone does not end us
  Status done = sync_edge();
  const bool edge_known = static_cast<bool>(done);
  if (done) done = work();
  // Of a full disk everything may be tried again: what was written is named when it is complete.
  if (!done && !disk_full(done.error())) dead_ = done.error();
  // What it has left goes at once: attempt after attempt would fill what is freed meanwhile.
  if (edge_known && !done && disk_full(done.error())) unfinished_ = !sweep_levels();
  return done;
}

Status SealedLog::check() {
  return guarded([] { return ok(); });
}

// Brings edge_ to what is signed on disk: cheap when nobody else has appended since.
Status SealedLog::sync_edge() {
  CG_TRY(const std::string last, read_if_there(dir(), kLastPath));
  CG_TRY(const std::string published, read_if_there(dir(), kCheckpointPath));
  if (!note_.empty() && last == note_ && published == note_) return ok();
  if (last.empty() || published.empty()) {
    return fail(
        std::string(last.empty() ? kLastPath : kCheckpointPath) +
        ": missing, so the log cannot be shown to be whole; restore the state directory from a "
        "copy, or start a new one with --state");
  }
  Result<Checkpoint> signed_last = open_checkpoint(last, key_.verifier());
  if (!signed_last) return in_file(kLastPath, signed_last.error());
  Result<Checkpoint> shown = open_checkpoint(published, key_.verifier());
  if (!shown) return in_file(kCheckpointPath, shown.error());
  const uint64_t size = signed_last->size;
  const std::string versus =
      std::to_string(shown->size) + " records, last signed checkpoint " + std::to_string(size);
  if (shown->size > size || size < edge_.size()) {
    return fail("log: checkpoint.last is older than what was already signed (" + versus + ")");
  }
  if (shown->size == size && published != last) {
    return fail("log: it is not the log that was last signed (different roots at " + versus + ")");
  }
  Result<LogEdge> edge = LogEdge::load(dir(), size);
  if (!edge || edge->root() != signed_last->root) {
    const std::string detail = edge ? "the tiles have another root" : edge.error().what;
    if (shown->size < size) {
      return fail("log: shorter than its last signed checkpoint (" + versus + "): " + detail);
    }
    return fail("log: its tiles are not what was signed (" + versus + "): " + detail,
                edge ? 0 : edge.error().code);
  }
  // The tiles of an append are durable before checkpoint.last: only its publication was missing.
  if (shown->size < size) CG_CHECK(put_durably(dir(), kCheckpointPath, last));
  edge_ = std::move(*edge);
  note_ = last;
  return ok();
}

Status SealedLog::publish(const LogEdge& edge) {
  CG_TRY(const std::string note, make_note(key_, edge.size(), edge.root()));
  CG_CHECK(put_durably(dir(), kLastPath, note));
  note_ = note;  // from here on the records are sealed
  const Status published = put_durably(dir(), kCheckpointPath, note);
  // sync_edge() publishes it, as after a crash here.
  return published || disk_full(published.error()) ? ok() : published;
}

Status SealedLog::append(const std::vector<std::string_view>& entries) {
  if (entries.empty()) return ok();
  if (entries.size() > kMaxBatchRecords) return fail("log: a batch is too large");
  return guarded([&]() -> Status {
    LogEdge next = edge_;
    for (const std::string_view entry : entries) {
      if (entry.empty() || entry.size() > kernel::kMaxRecordBytes)
        return fail("log: a record's size cannot be");
      next.append(reinterpret_cast<const uint8_t*>(entry.data()), entry.size());
    }
    DurableWriter writer(dir());
    for (const TileFile& file : next.take_files()) {
      CG_CHECK(writer.put(file.path, file.bytes.data(), file.bytes.size()));
    }
    CG_CHECK(writer.flush());
    CG_CHECK(publish(next));
    const uint64_t old_size = edge_.size();
    edge_ = std::move(next);
    Status removed = remove_superseded(old_size, edge_.size());
    if (removed ? unfinished_ : disk_full(removed.error())) {
      removed = sweep_levels();
      unfinished_ = !removed;
    }
    // The records are sealed: they must not come again. The next sweep() removes what is left.
    return removed || disk_full(removed.error()) ? ok() : removed;
  });
}

Status SealedLog::remove_superseded(uint64_t old_size, uint64_t new_size) {
  auto remove = [&](unsigned level) -> Status {
    const LevelShape before = level_shape(level, old_size);
    const LevelShape after = level_shape(level, new_size);
    if (before.width == 0 || (before.full == after.full && before.width == after.width))
      return ok();
    CG_CHECK(remove_entry(dir(), tile_path(level, before.full, before.width), false));
    if (before.full != after.full)
      CG_CHECK(remove_entry(dir(), partial_dir(level, before.full), true));
    return ok();
  };
  CG_CHECK(remove(kEntriesLevel));
  for (unsigned level = 0; level <= kMaxTileLevel; ++level) CG_CHECK(remove(level));
  return ok();
}

Status SealedLog::sweep() {
  return guarded([&]() -> Status {
    CG_CHECK(remove_entry(dir(), "tmp/next", false));
    return sweep_levels();
  });
}

Status SealedLog::sweep_levels() {
  CG_CHECK(sweep_level(kEntriesLevel));
  for (unsigned level = 0; level <= kMaxTileLevel; ++level) CG_CHECK(sweep_level(level));
  return ok();
}

// An append reaches at most kMaxBatchRecords beyond the edge, and leaves partial tiles at most that
// far behind it: only there is anything to look for.
Status SealedLog::sweep_level(unsigned level) {
  const uint64_t size = edge_.size();
  const LevelShape now = level_shape(level, size);
  const uint64_t first = level_shape(level, size - std::min<uint64_t>(size, kMaxBatchRecords)).full;
  const uint64_t last = level_shape(level, size + kMaxBatchRecords).full;
  for (uint64_t index = first; index <= last; ++index) {
    CG_CHECK(sweep_partials(level, index, index == now.full ? now.width : 0));
    if (index < now.full) continue;
    CG_TRY(const bool removed, remove_entry(dir(), tile_path(level, index, kTileWidth), false));
    (void)removed;
  }
  // Directories that only the interrupted append needed. The ones in use are not empty and stay.
  for (uint64_t index = now.full; index <= last; ++index) {
    std::string path = tile_path(level, index, kTileWidth);
    for (size_t slash = path.rfind('/'); slash > sizeof("log/tile") - 1; slash = path.rfind('/')) {
      path.resize(slash);
      CG_CHECK(remove_entry(dir(), path, true));
    }
  }
  return ok();
}

Status SealedLog::sweep_partials(unsigned level, uint64_t index, size_t keep_width) {
  const std::string directory = partial_dir(level, index);
  CG_TRY(const std::vector<std::string> names, list_dir(dir(), directory));
  for (const std::string& name : names) {
    if (keep_width > 0 && name == std::to_string(keep_width)) continue;
    CG_CHECK(remove_entry(dir(), directory + '/' + name, false));
  }
  CG_CHECK(remove_entry(dir(), directory, true));  // stays when it is not empty
  return ok();
}

Status SealedLog::prune(uint64_t minimum) {
  return guarded([&]() -> Status {
    const uint64_t full = level_shape(kEntriesLevel, edge_.size()).full;
    const uint64_t end = std::min(minimum / kTileWidth, full == 0 ? 0 : full - 1);
    for (uint64_t index = 0; index < end; ++index) {
      const std::string path = tile_path(kEntriesLevel, index, kTileWidth);
      CG_CHECK(remove_entry(dir(), path, false));
      if (index % 1000 == 999) CG_CHECK(remove_entry(dir(), path.substr(0, path.rfind('/')), true));
    }
    return ok();
  });
}

Result<std::map<std::string, Record>> SealedLog::last_records(const std::set<std::string>& runs) {
  std::map<std::string, Record> found;
  if (dead_) return *dead_;
  CG_TRY(const DirLock lock, DirLock::shared(dir()));
  CG_TRY(const std::string note, read_file(dir(), kLastPath, kMaxNoteBytes));
  CG_TRY(const Checkpoint checkpoint, open_checkpoint(note, key_.verifier()));
  const LevelShape shape = level_shape(kEntriesLevel, checkpoint.size);
  // Backwards: a dead run is nearly always near the end of the log.
  for (uint64_t index = shape.full + (shape.width > 0 ? 1 : 0);
       index > 0 && found.size() < runs.size(); --index) {
    const size_t width = index - 1 == shape.full ? shape.width : kTileWidth;
    const std::string path = tile_path(kEntriesLevel, index - 1, width);
    const Result<std::string> bundle = read_file(dir(), path, kMaxBundleBytes);
    if (!bundle && bundle.error().code == ENOENT && index < shape.full) break;  // pruned
    if (!bundle) return bundle.error();
    CG_TRY(const std::vector<std::string_view> entries, split_bundle(*bundle, width));
    for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
      CG_TRY(Record record,
             kernel::decode_record(reinterpret_cast<const uint8_t*>(entry->data()), entry->size()));
      if (runs.contains(record.run)) found.try_emplace(record.run, std::move(record));
    }
  }
  return found;
}

}  // namespace certgate::agentd
