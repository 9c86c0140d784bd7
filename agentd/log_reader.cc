#include "agentd/log_reader.h"

#include <algorithm>
#include <bit>

namespace certgate::agentd {
namespace {

using kernel::Digest;

constexpr size_t kMaxTilesKept = 4096;  // 32 MiB
constexpr unsigned kTileHeight = 8;

// Root of 2^k hashes.
Digest fold(std::vector<Digest> hashes) {
  while (hashes.size() > 1) {
    for (size_t i = 0; i < hashes.size() / 2; ++i)
      hashes[i] = kernel::node_hash(hashes[2 * i], hashes[2 * i + 1]);
    hashes.resize(hashes.size() / 2);
  }
  return hashes[0];
}

Error not_signed(const std::string& path) {
  return fail(path + ": not what was signed; see: certgate audit verify");
}

}  // namespace

Result<LogReader> LogReader::open(const std::string& state_dir) {
  CG_TRY(LogSnapshot snapshot, LogSnapshot::open(state_dir, LogSnapshot::Files::kEdge));
  LogReader reader(std::move(snapshot));
  CG_TRY(reader.key_, reader.snapshot_.key());
  CG_TRY(reader.checkpoint_, reader.snapshot_.checkpoint());
  CG_CHECK(reader.check_edge());
  return reader;
}

// The partial tiles together are the peaks of the tree: they must make its root.
Status LogReader::check_edge() {
  std::vector<Digest> peaks;
  for (unsigned level = kMaxTileLevel + 1; level-- > 0;) {
    const LevelShape shape = level_shape(level, size());
    if (shape.width == 0) continue;
    const std::string path = tile_path(level, shape.full, shape.width);
    CG_TRY(const std::string bytes, snapshot_.tile(level, shape.full, shape.width));
    Result<std::vector<Digest>> hashes = parse_tile(bytes, shape.width);
    if (!hashes) return fail(path + ": " + hashes.error().what);
    size_t at = 0;
    for (size_t part = kTileWidth / 2; part > 0; part /= 2) {
      if ((shape.width & part) == 0) continue;
      const auto first = hashes->begin() + static_cast<ptrdiff_t>(at);
      peaks.push_back(fold({first, first + static_cast<ptrdiff_t>(part)}));
      at += part;
    }
    tiles_[{level, shape.full}] = std::move(*hashes);
  }
  CG_TRY(const auto range, kernel::CompactRange::from(size(), std::move(peaks)));
  if (range.root() != checkpoint_.root) return not_signed("log/tile");
  return ok();
}

Result<const std::vector<Digest>*> LogReader::tile(unsigned level, uint64_t index) {
  if (const auto found = tiles_.find({level, index}); found != tiles_.end()) return &found->second;
  if (level > kMaxTileLevel || index >= level_shape(level, size()).full)
    return fail("log: no such tile");
  const std::string path = tile_path(level, index, kTileWidth);
  CG_TRY(const std::string bytes, snapshot_.tile(level, index, kTileWidth));
  Result<std::vector<Digest>> hashes = parse_tile(bytes, kTileWidth);
  if (!hashes) return fail(path + ": " + hashes.error().what);
  CG_TRY(const std::vector<Digest>* const above, tile(level + 1, index / kTileWidth));
  if (subtree_root(*hashes) != (*above)[index % kTileWidth]) return not_signed(path);
  if (tiles_.size() > kMaxTilesKept) {  // the edge cannot be proven again from below: keep it
    std::erase_if(tiles_, [&](const auto& kept) {
      return kept.first.second < level_shape(kept.first.first, size()).full;
    });
  }
  return &(tiles_[{level, index}] = std::move(*hashes));
}

Result<std::string> LogReader::entry(uint64_t index) {
  if (index >= size()) return fail("log: it has only " + std::to_string(size()) + " records");
  const uint64_t bundle = index / kTileWidth;
  const LevelShape shape = level_shape(kEntriesLevel, size());
  const size_t width = bundle < shape.full ? kTileWidth : shape.width;
  const std::string path = tile_path(kEntriesLevel, bundle, width);
  if (bundle != bundle_index_) {
    bundle_index_ = UINT64_MAX;
    CG_TRY(bundle_, snapshot_.tile(kEntriesLevel, bundle, width));
    Result<std::vector<std::string_view>> entries = split_bundle(bundle_, width);
    if (!entries) return fail(path + ": " + entries.error().what);
    entries_ = std::move(*entries);
    bundle_index_ = bundle;
  }
  const std::string_view bytes = entries_[index % kTileWidth];
  CG_TRY(const std::vector<Digest>* const leaves, tile(0, bundle));
  if (kernel::leaf_hash(bytes.data(), bytes.size()) != (*leaves)[index % kTileWidth])
    return not_signed(path + ", record " + std::to_string(index));
  return std::string(bytes);
}

Result<kernel::Record> LogReader::record(uint64_t index) {
  CG_TRY(const std::string bytes, entry(index));
  return kernel::decode_record(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

Result<Digest> LogReader::node(unsigned height, uint64_t index) {
  const unsigned level = height / kTileHeight, inside = height % kTileHeight;
  const uint64_t first = index << inside;
  CG_TRY(const std::vector<Digest>* const hashes, tile(level, first / kTileWidth));
  const size_t at = first % kTileWidth, count = size_t{1} << inside;
  if (at + count > hashes->size()) return fail("log: no such node");
  const auto begin = hashes->begin() + static_cast<ptrdiff_t>(at);
  return fold({begin, begin + static_cast<ptrdiff_t>(count)});
}

// RFC 9162 §2.1.1, with perfect subtrees taken from the tiles.
Result<Digest> LogReader::subtree(uint64_t first, uint64_t count) {
  if (std::has_single_bit(count)) {
    const auto height = static_cast<unsigned>(std::countr_zero(count));
    return node(height, first >> height);
  }
  const uint64_t split = std::bit_floor(count - 1);
  CG_TRY(const Digest left, subtree(first, split));
  CG_TRY(const Digest right, subtree(first + split, count - split));
  return kernel::node_hash(left, right);
}

Result<Digest> LogReader::root_at(uint64_t old_size) {
  if (old_size > size()) return fail("log: it has only " + std::to_string(size()) + " records");
  if (old_size == 0) return kernel::empty_root();
  return subtree(0, old_size);
}

Result<std::vector<Digest>> LogReader::inclusion_proof(uint64_t index) {
  if (index >= size()) return fail("log: it has only " + std::to_string(size()) + " records");
  std::vector<Digest> path;
  uint64_t first = 0, count = size();
  while (count > 1) {  // from the root down; a proof is read from the leaf up
    const uint64_t split = std::bit_floor(count - 1);
    const bool left = index < first + split;
    CG_TRY(const Digest sibling,
           left ? subtree(first + split, count - split) : subtree(first, split));
    path.push_back(sibling);
    first += left ? 0 : split;
    count = left ? split : count - split;
  }
  std::reverse(path.begin(), path.end());
  return path;
}

Result<std::vector<Digest>> LogReader::consistency_proof(uint64_t old_size) {
  if (old_size > size()) return fail("log: it has only " + std::to_string(size()) + " records");
  std::vector<Digest> path;
  if (old_size == 0 || old_size == size()) return path;
  uint64_t first = 0, count = size(), old = old_size;
  bool whole = true;  // the subtree is the old tree itself, whose root the checker has
  while (old != count) {
    const uint64_t split = std::bit_floor(count - 1);
    const bool left = old <= split;
    CG_TRY(const Digest sibling,
           left ? subtree(first + split, count - split) : subtree(first, split));
    path.push_back(sibling);
    if (left) {
      count = split;
    } else {
      old -= split;
      first += split;
      count -= split;
      whole = false;
    }
  }
  if (!whole) {
    CG_TRY(const Digest rest, subtree(first, count));
    path.push_back(rest);
  }
  std::reverse(path.begin(), path.end());
  return path;
}

}  // namespace certgate::agentd
