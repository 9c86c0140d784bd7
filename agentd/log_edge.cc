#include "agentd/log_edge.h"

#include <algorithm>

#include "agentd/state_dir.h"
#include "kernel/record.h"

namespace certgate::agentd {
namespace {

using kernel::Digest;

std::string level_name(unsigned level) {
  return level == kEntriesLevel ? "entries" : std::to_string(level);
}

std::string three_digits(uint64_t value) {
  std::string digits = std::to_string(value);
  return std::string(3 - digits.size(), '0') + digits;
}

std::string tile_bytes(const std::vector<Digest>& hashes) {
  std::string bytes;
  bytes.reserve(hashes.size() * kHashBytes);
  for (const Digest& hash : hashes) bytes.append(hash.begin(), hash.end());
  return bytes;
}

// The roots of the perfect subtrees that the hashes of a partial tile make up, largest first.
void add_peaks(const std::vector<Digest>& hashes, std::vector<Digest>& peaks) {
  kernel::CompactRange range;
  for (const Digest& hash : hashes) range.append(hash);
  peaks.insert(peaks.end(), range.peaks().begin(), range.peaks().end());
}

}  // namespace

std::string tile_path(unsigned level, uint64_t index, size_t width) {
  if (width < kTileWidth) return partial_dir(level, index) + '/' + std::to_string(width);
  std::string groups = three_digits(index % 1000);
  for (index /= 1000; index > 0; index /= 1000)
    groups = 'x' + three_digits(index % 1000) + '/' + groups;
  return "log/tile/" + level_name(level) + '/' + groups;
}

std::string partial_dir(unsigned level, uint64_t index) {
  return tile_path(level, index, kTileWidth) + ".p";
}

LevelShape level_shape(unsigned level, uint64_t size) {
  const uint64_t hashes = level == kEntriesLevel ? size : size >> (8 * level);
  return LevelShape{hashes / kTileWidth, static_cast<size_t>(hashes % kTileWidth)};
}

Result<std::vector<std::string_view>> split_bundle(std::string_view bundle, size_t count) {
  std::vector<std::string_view> entries;
  entries.reserve(count);
  size_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const std::string where =
        "byte " + std::to_string(at) + " (record " + std::to_string(i) + " of the bundle): ";
    if (bundle.size() - at < 2) return fail(where + "the file ends too early");
    const size_t size =
        size_t{static_cast<uint8_t>(bundle[at])} << 8 | static_cast<uint8_t>(bundle[at + 1]);
    if (bundle.size() - at - 2 < size) return fail(where + "the record is longer than the file");
    entries.push_back(bundle.substr(at + 2, size));
    at += 2 + size;
  }
  if (at != bundle.size()) {
    return fail("byte " + std::to_string(at) + ": bytes after the last of " +
                std::to_string(count) + " records");
  }
  return entries;
}

Result<std::vector<Digest>> parse_tile(std::string_view bytes, size_t width) {
  if (bytes.size() != width * kHashBytes) {
    return fail(std::to_string(bytes.size()) + " bytes long, not " +
                std::to_string(width * kHashBytes));
  }
  std::vector<Digest> hashes(width);
  for (size_t i = 0; i < width; ++i) {
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(i * kHashBytes), kHashBytes,
                hashes[i].begin());
  }
  return hashes;
}

Digest subtree_root(const std::vector<Digest>& full_tile) {
  kernel::CompactRange range;
  for (const Digest& hash : full_tile) range.append(hash);
  return range.root();
}

Result<LogEdge> LogEdge::load(int state_dir, uint64_t size) {
  LogEdge edge;
  for (unsigned level = 0; level <= kMaxTileLevel && size >> (8 * level) > 0; ++level) {
    const LevelShape shape = level_shape(level, size);
    edge.levels_.emplace_back();
    edge.grown_.push_back(false);
    if (shape.width > 0) {
      const std::string path = tile_path(level, shape.full, shape.width);
      CG_TRY(const std::string bytes, read_file(state_dir, path, kTileWidth * kHashBytes));
      Result<std::vector<Digest>> hashes = parse_tile(bytes, shape.width);
      if (!hashes) return fail(path + ": " + hashes.error().what);
      edge.levels_.back() = std::move(*hashes);
    }
  }
  const LevelShape entries = level_shape(kEntriesLevel, size);
  if (entries.width > 0) {
    const std::string path = tile_path(kEntriesLevel, entries.full, entries.width);
    CG_TRY(edge.bundle_, read_file(state_dir, path, kMaxBundleBytes));
    Result<std::vector<std::string_view>> list = split_bundle(edge.bundle_, entries.width);
    if (!list) return fail(path + ": " + list.error().what);
    for (size_t i = 0; i < list->size(); ++i) {
      if (kernel::leaf_hash((*list)[i].data(), (*list)[i].size()) != edge.levels_[0][i]) {
        return fail(path + ": record " + std::to_string(i) +
                    " of the bundle is not the sealed one");
      }
    }
  }
  if (entries.full > 0) {  // the file before the edge: cheap, and enough to notice a cut log
    CG_CHECK(read_file(state_dir, tile_path(kEntriesLevel, entries.full - 1, kTileWidth),
                       kMaxBundleBytes));
    CG_CHECK(
        read_file(state_dir, tile_path(0, entries.full - 1, kTileWidth), kTileWidth * kHashBytes));
  }
  std::vector<Digest> peaks;
  for (size_t level = edge.levels_.size(); level > 0; --level)
    add_peaks(edge.levels_[level - 1], peaks);
  CG_TRY(edge.range_, kernel::CompactRange::from(size, std::move(peaks)));
  return edge;
}

void LogEdge::add_hash(unsigned level, const Digest& hash) {
  if (levels_.size() <= level) {
    levels_.emplace_back();
    grown_.push_back(false);
  }
  levels_[level].push_back(hash);
  grown_[level] = true;
  if (levels_[level].size() < kTileWidth) return;
  const uint64_t index = level_shape(level, size()).full - 1;
  const Digest root = subtree_root(levels_[level]);
  full_.push_back({tile_path(level, index, kTileWidth), tile_bytes(levels_[level])});
  levels_[level].clear();
  if (level < kMaxTileLevel) add_hash(level + 1, root);
}

void LogEdge::append(const uint8_t* entry, size_t size) {
  bundle_ += static_cast<char>(size >> 8);
  bundle_ += static_cast<char>(size & 0xFF);
  bundle_.append(reinterpret_cast<const char*>(entry), size);
  const Digest leaf = kernel::leaf_hash(entry, size);
  range_.append(leaf);
  if (range_.size() % kTileWidth == 0) {
    full_.push_back({tile_path(kEntriesLevel, range_.size() / kTileWidth - 1, kTileWidth),
                     std::exchange(bundle_, std::string())});
  }
  add_hash(0, leaf);
}

std::vector<TileFile> LogEdge::take_files() {
  std::vector<TileFile> files = std::exchange(full_, {});
  if (!bundle_.empty() && grown_[0]) {
    const LevelShape shape = level_shape(kEntriesLevel, size());
    files.push_back({tile_path(kEntriesLevel, shape.full, shape.width), bundle_});
  }
  for (unsigned level = 0; level < levels_.size(); ++level) {
    if (grown_[level] && !levels_[level].empty()) {
      const LevelShape shape = level_shape(level, size());
      files.push_back({tile_path(level, shape.full, shape.width), tile_bytes(levels_[level])});
    }
    grown_[level] = false;
  }
  return files;
}

}  // namespace certgate::agentd
