// Blob files: whatever the bytes are, blobs lie inside them in order, and are what they commit to.
#include "supervisor/frame.h"
#include "kernel/merkle.h"
#include "supervisor/blob_file.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

FUZZ_TARGET(blob) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  size_t at = 0;
  for (const supervisor::Blob& blob : supervisor::read_blobs(bytes)) {
    CG_LAW(blob.offset == at && blob.size >= supervisor::kSaltBytes);
    at += supervisor::kFrameHeaderBytes + blob.size;
    CG_LAW(at <= size && blob.value.size() == blob.size - supervisor::kSaltBytes);
    CG_LAW(blob.value.data() + blob.value.size() == bytes.data() + at);
    const std::string_view whole = bytes.substr(at - blob.size, blob.size);
    CG_LAW(blob.commitment == kernel::sha256(whole.data(), whole.size()));
    CG_LAW(blob.erased == (whole.find_first_not_of('\0') == std::string_view::npos));
  }
  kernel::Digest commitment;
  std::string name;
  CG_LAW(supervisor::split_entry(bytes, commitment, name) == (size > commitment.size()));
  return 0;
}
