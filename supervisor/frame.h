// Frame: how records lie in a segment: u32 LE length | u32 LE crc32c(bytes) | bytes.
//
//   append_frame(record.data(), record.size(), buffer);     // then SegmentWriter::append()
//   FrameReader reader(data, size);
//   for (Frame f = reader.next(); f.state == Frame::kOk; f = reader.next()) use(f.data, f.size);
//
// Length is 1 to kMaxRecordBytes: a length of zero is the end, as what is reserved for further
// frames reads as zeros. Anything else behind it is of an append that has not finished.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/record.h"

namespace certgate::supervisor {

inline constexpr size_t kFrameHeaderBytes = 8;
inline constexpr size_t kMaxFrameBytes = kFrameHeaderBytes + kernel::kMaxRecordBytes;

uint32_t crc32c(const void* data, size_t size);           // by instruction where the CPU has it
uint32_t crc32c_portable(const void* data, size_t size);  // by table: the same value

// Appends one frame; `size` must be 1 to kMaxRecordBytes (else nothing is appended and it is
// false).
[[nodiscard]] bool append_frame(const void* data, size_t size, std::vector<uint8_t>& out);

bool only_zeros(const uint8_t* data, size_t size);

struct Frame {
  enum State : uint8_t {
    kOk,       // data and size are the bytes
    kEnd,      // no further frame: the bytes end here, or the next length is zero
    kTorn,     // the bytes end inside this frame: an append that has not finished
    kDamaged,  // a length that cannot be, or a wrong checksum: not what was appended
  };
  State state = kEnd;
  size_t offset = 0;              // of the frame's header
  const uint8_t* data = nullptr;  // borrowed
  size_t size = 0;
};

// Strict reader over borrowed bytes. After anything but kOk it stays there.
class FrameReader {
 public:
  FrameReader(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  Frame next();
  size_t offset() const { return at_; }  // of the next frame

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

}  // namespace certgate::supervisor
