// Blob store: what was kept out of the records of a state directory (supervisor/blob_file.h), for
// readers, and its erasure.
//
//   BlobStore blobs(state_dir_fd);
//   CG_TRY(Record shown, blobs.shown(record));           // values in their places, or "(erased)"
//   CG_TRY(auto kept, blobs.values(record));             // by name, also the environment
//   CG_CHECK(blobs.erase(record, "argv[2]"));            // after it was recorded
//
// A value is shown only when the record's commitment proves it. Erasing overwrites the blob, salt
// and all, with zeros, durably; the record and every proof stay as they are. Where several execs
// had the same environment they share one blob, and its erasure is of all.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernel/record.h"
#include "kernel/result.h"

namespace certgate::agentd {

inline constexpr const char* kErasedText = "(erased)";

struct KeptOut {
  std::string name;                  // "argv[3]", "object", "asked", "env", "env:secret"
  std::optional<std::string> value;  // none: erased, or the blob is not in this copy
};

class BlobStore {
 public:
  explicit BlobStore(int state_dir) : dir_(state_dir) {}  // lent

  Result<std::vector<KeptOut>> values(const kernel::Record& record);
  Result<kernel::Record> shown(kernel::Record record);
  // `name` empty: all of the record's. How many blobs were overwritten.
  Result<size_t> erase(const kernel::Record& record, const std::string& name);
  // The run has no record left.
  Status forget(const std::string& run);

 private:
  Status load(const std::string& run);

  const int dir_;
  std::string run_;  // whose blobs are loaded
  std::map<kernel::Digest, std::string> loaded_;
};

}  // namespace certgate::agentd
