// Blob file: the values of one run that are kept out of its records, each behind a salt.
//
//   CG_TRY(const auto entries, blobs.add("argv[2]", value));   // before the record that names them
//   record.blobs.insert(…, entries…);
//   for (const Blob& b : read_blobs(bytes)) …                  // afterwards; bytes are untrusted
//
// The file is append-only as the segment is: frames (supervisor/frame.h) of salt (32) | value. The
// record has SHA-256(salt | value) and the name, so it proves the value to whoever has the blob,
// and says nothing to whoever has not. A value longer than a frame is several blobs of one name.
// Erased: a frame of the same length, all zeros.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"
#include "sandbox/fd.h"
#include "supervisor/log_room.h"

namespace certgate::supervisor {

inline constexpr size_t kSaltBytes = 32;
inline constexpr size_t kMaxBlobValue = 65000;

class BlobFile {
 public:
  explicit BlobFile(sandbox::UniqueFd fd);
  // Appends the value; returns what the record shall have: commitment | name, for each blob. The
  // same value under the same name as last time is not written again. An error leaves the file
  // perhaps torn: nothing may be added after it.
  Result<std::vector<std::string>> add(const std::string& name, const std::string& value);
  Status sync();
  uint64_t size() const { return size_; }
  LogRoom& room() { return room_; }

 private:
  struct Last {
    kernel::Digest of{};
    std::vector<std::string> entries;
  };
  const sandbox::UniqueFd fd_;
  uint64_t size_;
  LogRoom room_;
  std::map<std::string, Last> last_;  // by name; only of "env…", which most execs share
  std::vector<uint8_t> frame_;
};

struct Blob {
  kernel::Digest commitment{};
  std::string_view value;  // borrowed
  size_t offset = 0;       // of the frame
  size_t size = 0;         // of salt and value
  bool erased = false;
};
// What can be read; stops at a torn or damaged frame.
std::vector<Blob> read_blobs(std::string_view bytes);

// An entry of Record::blobs. False: it is none.
bool split_entry(std::string_view entry, kernel::Digest& commitment, std::string& name);

}  // namespace certgate::supervisor
