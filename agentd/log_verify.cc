#include "agentd/log_verify.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <unordered_set>

#include "agentd/log_snapshot.h"
#include "agentd/log_witnessed.h"
#include "kernel/merkle.h"

namespace certgate::agentd {
namespace {

using kernel::Digest;
using kernel::Record;
using kernel::RecordKind;

constexpr const char* kInterrupted =
    " (what an interrupted append leaves goes away at the next start)";
constexpr int kVerdictNo = -1;  // Error::code of a finding, as opposed to trouble

struct Finding {
  std::string where, what;
  bool found() const { return !what.empty(); }
  void note(std::string at, std::string problem) {
    if (!found()) where = std::move(at), what = std::move(problem);
  }
};

class Verifier {
 public:
  Verifier(const LogSnapshot& snapshot, std::string expected_key)
      : snapshot_(snapshot), expected_key_(std::move(expected_key)) {}
  Status run();
  VerifyReport report;

 private:
  Status no(std::string where, std::string what) {
    report.where = std::move(where);
    report.what = std::move(what);
    return fail(report.where + ": " + report.what, kVerdictNo);
  }
  Result<std::string> load(unsigned level, uint64_t index, size_t width);
  Status check_signatures();
  Status check_files();
  Status check_entries();
  Status check_bundle(uint64_t index, size_t width);
  Status check_pruned(uint64_t index);
  Status check_tile(unsigned level, uint64_t index, const std::vector<Digest>& computed);
  Status add_hash(unsigned level, const Digest& hash);
  // Where a record lies; put into words only when there is something to say.
  struct Place {
    const std::string& path;
    uint64_t index;
    ptrdiff_t byte;
    std::string text() const {
      return path + ", record " + std::to_string(index) + " (byte " + std::to_string(byte) + ")";
    }
  };
  void check_record(const Place& place, std::string_view bytes);
  Status check_runs();
  Status conclude();
  void judge_complete();

  struct RunState {
    uint64_t last_seq = 0;
    bool stopped = false, gap = false;
    std::unordered_set<uint64_t> open;  // certified execs without an outcome yet
  };

  const LogSnapshot& snapshot_;
  const std::string expected_key_;
  Checkpoint checkpoint_;
  kernel::CompactRange range_;
  std::vector<std::vector<Digest>> levels_;
  RunState& state_of(const std::string& run);

  std::map<std::string, RunState> runs_;
  std::pair<const std::string, RunState>* last_run_ = nullptr;  // in runs_
  Finding leaf_;    // the first record whose hash is not in its tile
  Finding tile_;    // the first hash tile that is not what the entries make
  Finding record_;  // the first record that is not one, or is out of sequence
  Finding gap_;     // the first gap record
  Finding open_;    // the first run with execs that have no outcome
  uint64_t gaps_ = 0, unfinished_ = 0, live_ = 0;
  uint64_t prunable_ = 0;  // what the pruned records that are left allow
};

Result<std::string> Verifier::load(unsigned level, uint64_t index, size_t width) {
  Result<std::string> bytes = snapshot_.tile(level, index, width);
  if (bytes) return bytes;
  const int code = bytes.error().code;
  if (code == ENOENT || code == EFBIG) {
    return no(tile_path(level, index, width), code == ENOENT ? "missing" : "longer than it can be")
        .error();
  }
  return bytes.error();
}

Status Verifier::check_signatures() {
  const Result<VerifierKey> key = snapshot_.key();
  if (!key) return no("key.pub", key.error().what);
  if (!expected_key_.empty() && key->text() != expected_key_) {
    return no("key.pub", "it is " + key->text() + ", not the key that was asked for");
  }
  if (!snapshot_.published()) {
    // A log that is being made has its first checkpoint.last already, and its private key last.
    const auto last = snapshot_.last() ? open_checkpoint(*snapshot_.last(), *key)
                                       : Result<Checkpoint>(fail("none"));
    const bool begun = last && last->size == 0 && snapshot_.paths().empty() &&
                       ::faccessat(snapshot_.dir(), "key", F_OK, 0) != 0;
    return no("log/checkpoint", std::string("missing") + (begun ? kInterrupted : ""));
  }
  if (!snapshot_.last()) return no("checkpoint.last", "missing");
  const Result<Checkpoint> shown = open_checkpoint(*snapshot_.published(), *key);
  if (!shown) return no("log/checkpoint", shown.error().what);
  const Result<Checkpoint> last = open_checkpoint(*snapshot_.last(), *key);
  if (!last) return no("checkpoint.last", last.error().what);
  if (shown->size != last->size) {
    const bool behind = shown->size < last->size;
    return no("log/checkpoint", "the log has " + std::to_string(shown->size) +
                                    " records, its last signed checkpoint " +
                                    std::to_string(last->size) + (behind ? kInterrupted : ""));
  }
  if (*snapshot_.published() != *snapshot_.last()) {
    return no("log/checkpoint", "not the last signed checkpoint, though of the same size");
  }
  checkpoint_ = *shown;
  report.records = shown->size;
  report.root = shown->root;
  return ok();
}

// The files a log of this size has, with their directories; no more, no fewer.
Status Verifier::check_files() {
  std::set<std::string> expected = {"log/checkpoint"};
  auto expect = [&](unsigned level) {
    const LevelShape shape = level_shape(level, checkpoint_.size);
    const uint64_t first = level == kEntriesLevel ? snapshot_.first_bundle() : 0;
    for (uint64_t i = first; i < shape.full; ++i) expected.insert(tile_path(level, i, kTileWidth));
    if (shape.width > 0) expected.insert(tile_path(level, shape.full, shape.width));
  };
  const std::vector<std::string>& present = snapshot_.paths();
  // A size that was signed but never written could ask for any number of names.
  if (checkpoint_.size / kTileWidth > present.size()) {
    return no("log/tile",
              "tiles are missing: " + std::to_string(checkpoint_.size) + " records were signed");
  }
  expect(kEntriesLevel);
  for (unsigned level = 0; level <= kMaxTileLevel; ++level) expect(level);
  std::set<std::string> directories;
  for (const std::string& path : expected) {
    for (size_t at = path.find('/', 4); at != std::string::npos; at = path.find('/', at + 1)) {
      directories.insert(path.substr(0, at + 1));
    }
  }
  for (const std::string& path : present) {
    if (!expected.contains(path) && !directories.contains(path)) {
      return no(path, "not a part of a log of " + std::to_string(checkpoint_.size) + " records" +
                          kInterrupted);
    }
  }
  for (const std::string& path : expected) {
    if (!std::binary_search(present.begin(), present.end(), path)) return no(path, "missing");
  }
  return ok();
}

// Records of one run mostly follow one another.
Verifier::RunState& Verifier::state_of(const std::string& run) {
  if (last_run_ == nullptr || last_run_->first != run) last_run_ = &*runs_.try_emplace(run).first;
  return last_run_->second;
}

void Verifier::check_record(const Place& place, std::string_view bytes) {
  const Result<Record> record =
      kernel::decode_record(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  if (!record) return record_.note(place.text(), record.error().what);
  const size_t known = runs_.size();
  RunState& state = state_of(record->run);
  const auto who = [&] { return "run " + record->run + ": "; };
  if (record->kind == RecordKind::kPruned) prunable_ = std::max(prunable_, record->count);
  if (runs_.size() != known && snapshot_.first_bundle() > 0) state.last_seq = record->seq - 1;
  if (record->seq != state.last_seq + 1) {
    return record_.note(place.text(), who() + "seq " + std::to_string(record->seq) + " follows " +
                                          std::to_string(state.last_seq));
  }
  state.last_seq = record->seq;
  const bool gap = record->kind == RecordKind::kGap;
  if (state.gap || (state.stopped && !gap))
    return record_.note(place.text(), who() + "a record after its end");
  const bool stop = record->kind == RecordKind::kStop;
  if (stop && record->count != record->seq - 1) {
    return record_.note(place.text(), who() + "the stop record counts " +
                                          std::to_string(record->count) + " records, there are " +
                                          std::to_string(record->seq - 1));
  }
  // Only an exec says how it ended whatever came of it; an open that was done has no outcome.
  if (record->kind == RecordKind::kCertificate && record->call.starts_with("exec"))
    state.open.insert(record->seq);
  if (record->kind == RecordKind::kOutcome) state.open.erase(record->ref);
  if (gap) {
    gap_.note(place.text(), who() + "a gap record: " +
                                (record->count == 0
                                     ? std::string("the run was cut off before its stop record")
                                     : std::to_string(record->count) + " bytes could not be read"));
    ++gaps_;
  }
  state.gap = gap;
  state.stopped = state.stopped || stop;
  if (!stop && !gap) return;
  if (!state.open.empty()) {
    unfinished_ += state.open.size();
    open_.note(place.text(),
               who() + "certificate " + record->run + '-' +
                   std::to_string(*std::min_element(state.open.begin(), state.open.end())) +
                   " has no outcome");
    state.open.clear();
  }
}

Status Verifier::check_tile(unsigned level, uint64_t index, const std::vector<Digest>& computed) {
  const std::string path = tile_path(level, index, computed.size());
  CG_TRY(const std::string bytes, load(level, index, computed.size()));
  const Result<std::vector<Digest>> stored = parse_tile(bytes, computed.size());
  if (!stored) {
    tile_.note(path, stored.error().what);
    return ok();
  }
  const auto differs = std::mismatch(computed.begin(), computed.end(), stored->begin()).first;
  if (differs != computed.end()) {
    const auto at = static_cast<size_t>(differs - computed.begin());
    tile_.note(
        path + ", hash " + std::to_string(at) + " (byte " + std::to_string(at * kHashBytes) + ")",
        "not the hash of what lies below it");
    if (level == 0) {
      const std::string entries = tile_path(kEntriesLevel, index, computed.size());
      leaf_.note(entries + ", record " + std::to_string(index * kTileWidth + at),
                 "not the record that was sealed");
    }
  }
  return ok();
}

Status Verifier::add_hash(unsigned level, const Digest& hash) {
  if (levels_.size() <= level) levels_.emplace_back();
  levels_[level].push_back(hash);
  if (levels_[level].size() < kTileWidth) return ok();
  const LevelShape shape = level_shape(level, range_.size());
  CG_CHECK(check_tile(level, shape.full - 1, levels_[level]));
  const Digest root = subtree_root(levels_[level]);
  levels_[level].clear();
  return level < kMaxTileLevel ? add_hash(level + 1, root) : ok();
}

Status Verifier::check_bundle(uint64_t index, size_t width) {
  const std::string path = tile_path(kEntriesLevel, index, width);
  CG_TRY(const std::string bundle, load(kEntriesLevel, index, width));
  const Result<std::vector<std::string_view>> entries = split_bundle(bundle, width);
  if (!entries) return no(path, entries.error().what);
  for (size_t i = 0; i < entries->size(); ++i) {
    const std::string_view bytes = (*entries)[i];
    check_record({path, index * kTileWidth + i, bytes.data() - bundle.data()}, bytes);
    const Digest leaf = kernel::leaf_hash(bytes.data(), bytes.size());
    range_.append(leaf);
    CG_CHECK(add_hash(0, leaf));
  }
  return ok();
}

// Of what was pruned the hashes are left.
Status Verifier::check_pruned(uint64_t index) {
  const std::string path = tile_path(0, index, kTileWidth);
  CG_TRY(const std::string bytes, load(0, index, kTileWidth));
  const Result<std::vector<Digest>> hashes = parse_tile(bytes, kTileWidth);
  if (!hashes) return no(path, hashes.error().what);
  for (const Digest& hash : *hashes) {
    range_.append(hash);
    CG_CHECK(add_hash(0, hash));
  }
  return ok();
}

Status Verifier::check_entries() {
  const LevelShape shape = level_shape(kEntriesLevel, checkpoint_.size);
  const uint64_t first = snapshot_.first_bundle();
  for (uint64_t index = 0; index < first; ++index) CG_CHECK(check_pruned(index));
  for (uint64_t index = first; index < shape.full; ++index)
    CG_CHECK(check_bundle(index, kTileWidth));
  if (shape.width > 0) CG_CHECK(check_bundle(shape.full, shape.width));
  for (unsigned level = 0; level < levels_.size(); ++level) {
    if (levels_[level].empty()) continue;
    CG_CHECK(check_tile(level, level_shape(level, checkpoint_.size).full, levels_[level]));
  }
  return ok();
}

// The signed root tells which side of a difference is the true one.
Status Verifier::conclude() {
  const bool root_holds = range_.root() == checkpoint_.root;
  if (!root_holds && leaf_.found()) return no(leaf_.where, leaf_.what);
  if (!root_holds) {
    return no("log/tile/entries",
              "the records and their hashes were changed together: their root is not "
              "the one that was signed");
  }
  if (tile_.found()) return no(tile_.where, tile_.what);
  const uint64_t gone = snapshot_.first_bundle() * kTileWidth;
  if (gone > prunable_) {
    return no(tile_path(kEntriesLevel, prunable_ / kTileWidth, kTileWidth),
              "missing, and no pruned record says that it may be");
  }
  if (gone > 0) report.notes.push_back("records before " + std::to_string(gone) + " were pruned");
  if (record_.found()) return no(record_.where, record_.what);
  return ok();
}

Status Verifier::check_runs() {
  std::set<std::string> open;
  for (const LogSnapshot::Segment& segment : snapshot_.segments()) open.insert(segment.run);
  for (const auto& [run, state] : runs_) {
    if (state.stopped || state.gap) continue;
    const std::string where = "run " + run;
    if (snapshot_.has_segments() && !open.contains(run)) {
      return no(where, "no stop record after seq " + std::to_string(state.last_seq) +
                           ", and no segment that could still bring it");
    }
    report.notes.push_back(where + ": live or interrupted, " + std::to_string(state.last_seq) +
                           " records sealed so far");
    ++live_;
  }
  for (const std::string& run : open) {
    if (!runs_.contains(run)) report.notes.push_back("run " + run + ": no record sealed yet");
  }
  return ok();
}

void Verifier::judge_complete() {
  const std::string cut = unfinished_ == 0 ? std::string()
                                           : "; " + std::to_string(unfinished_) +
                                                 " execs of ended runs have no outcome, "
                                                 "the first in " +
                                                 open_.where + ": " + open_.what;
  if (gaps_ > 0) {
    report.complete = {"no", std::to_string(gaps_) + " of " + std::to_string(runs_.size()) +
                                 " runs have a gap, the first in " + gap_.where + ": " + gap_.what +
                                 cut};
  } else if (live_ > 0) {
    report.complete = {"so far", std::to_string(runs_.size()) + " runs, " + std::to_string(live_) +
                                     " of them not ended" + cut};
  } else {
    report.complete = {
        "yes", std::to_string(runs_.size()) + " runs, each without a gap from start to stop" + cut};
  }
}

Status Verifier::run() {
  auto altered = [&](Status done) {
    if (!done && done.error().code == kVerdictNo)
      report.unaltered = {"no", report.where + ": " + report.what};
    return done;
  };
  CG_CHECK(altered(check_signatures()));
  CG_CHECK(altered(check_files()));
  CG_CHECK(altered(check_entries()));
  if (record_.found() && range_.root() == checkpoint_.root && !tile_.found()) {
    report.unaltered = {"yes", ""};
    report.complete = {"no", record_.where + ": " + record_.what};
    return no(record_.where, record_.what);
  }
  CG_CHECK(altered(conclude()));
  report.unaltered = {"yes", std::to_string(checkpoint_.size) + " records"};
  if (Status runs = check_runs(); !runs) {
    report.complete = {"no", report.where + ": " + report.what};
    return runs;
  }
  judge_complete();
  report.good = true;
  return ok();
}

}  // namespace

Result<VerifyReport> verify_log(const std::string& state_dir, const std::string& expected_key,
                                const OutsideView& outside) {
  CG_TRY(const LogSnapshot snapshot, LogSnapshot::open(state_dir));
  Verifier verifier(snapshot, expected_key);
  const Status done = verifier.run();
  if (!done && done.error().code != kVerdictNo) return done.error();
  if (verifier.report.unaltered.word == "yes") {
    CG_TRY(verifier.report.witnessed, judge_witnessed(state_dir, outside));
    if (verifier.report.witnessed.word == "no" && verifier.report.good) {
      verifier.report.good = false;
      verifier.report.where = outside.checkpoint.empty() ? "cosigned checkpoint" : "checkpoint from outside";
      verifier.report.what = verifier.report.witnessed.detail;
    }
  }
  return std::move(verifier.report);
}

}  // namespace certgate::agentd
