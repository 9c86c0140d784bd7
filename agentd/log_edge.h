// LogEdge: the right edge of a tlog-tiles log: what must be in memory to append to it.
//
//   CG_TRY(LogEdge edge, LogEdge::load(state_dir_fd, checkpoint.size));
//   if (edge.root() != checkpoint.root) …                 // the tiles are not what was signed
//   edge.append(record.data(), record.size());
//   for (const TileFile& file : edge.take_files()) write(file.path, file.bytes);
//
// Layout (C2SP tlog-tiles), below log/:
//   tile/<L>/<N>        256 hashes of 32 bytes: the roots of perfect subtrees of 256^L leaves
//   tile/<L>/<N>.p/<W>  the first W of them, where the tree ends
//   tile/entries/<N>[.p/<W>]   the records of tile 0/<N>: u16 big endian length | bytes
// N in groups of three digits, all but the last with an 'x': 1234067 is x001/x234/067.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernel/merkle.h"
#include "kernel/result.h"

namespace certgate::agentd {

inline constexpr size_t kTileWidth = 256;
inline constexpr unsigned kEntriesLevel = 64;  // stands for "entries" where a level is asked for
inline constexpr unsigned kMaxTileLevel = 7;   // 256^8 leaves are more than 64 bits count
inline constexpr size_t kMaxBundleBytes = kTileWidth * (2 + 65535);
inline constexpr size_t kHashBytes = 32;

// "tile/0/x001/067.p/5" and its directory "tile/0/x001/067.p"; width 256 is the full tile.
std::string tile_path(unsigned level, uint64_t index, size_t width);
std::string partial_dir(unsigned level, uint64_t index);

// How many full tiles a level has in a tree of `size`, and how wide the partial one is (0: none).
struct LevelShape {
  uint64_t full = 0;
  size_t width = 0;
};
LevelShape level_shape(unsigned level, uint64_t size);

// Splits a bundle into exactly `count` entries; the error names the byte offset.
Result<std::vector<std::string_view>> split_bundle(std::string_view bundle, size_t count);
Result<std::vector<kernel::Digest>> parse_tile(std::string_view bytes, size_t width);
kernel::Digest subtree_root(const std::vector<kernel::Digest>& full_tile);

struct TileFile {
  std::string path;  // below the state directory
  std::string bytes;
};

class LogEdge {
 public:
  LogEdge() = default;  // of the empty log
  // Reads the partial tiles of a log of `size` records and checks that entries and hashes agree.
  static Result<LogEdge> load(int state_dir, uint64_t size);

  uint64_t size() const { return range_.size(); }
  kernel::Digest root() const { return range_.root(); }
  // `size` of the entry must be at most kMaxRecordBytes.
  void append(const uint8_t* entry, size_t size);
  // What has to be written since the last call: full tiles, and the partial ones of the new edge.
  std::vector<TileFile> take_files();

 private:
  void add_hash(unsigned level, const kernel::Digest& hash);
  kernel::CompactRange range_;
  std::string bundle_;                               // entries of the partial bundle
  std::vector<std::vector<kernel::Digest>> levels_;  // hashes of the partial tile of each level
  std::vector<bool> grown_;                          // levels that changed since take_files()
  std::vector<TileFile> full_;
};

}  // namespace certgate::agentd
