// Segments: whatever the bytes are, frames lie inside them, in order, and are what was appended.
#include "supervisor/frame.h"

#include "tests/fuzz/fuzz.h"

using namespace certgate;

FUZZ_TARGET(frame) {
  CG_LAW(supervisor::crc32c(data, size) == supervisor::crc32c_portable(data, size));
  supervisor::FrameReader reader(data, size);
  std::vector<uint8_t> again;
  supervisor::Frame frame = reader.next();
  for (size_t frames = 0; frame.state == supervisor::Frame::kOk; frame = reader.next()) {
    CG_LAW(++frames <= size / supervisor::kFrameHeaderBytes);
    CG_LAW(frame.offset == again.size() && frame.data == data + frame.offset + 8);
    CG_LAW(frame.size >= 1 && frame.size <= kernel::kMaxRecordBytes);
    CG_LAW(supervisor::append_frame(frame.data, frame.size, again));
  }
  CG_LAW(again.size() <= size && std::equal(again.begin(), again.end(), data));
  CG_LAW(reader.offset() == again.size());
  const size_t length = std::min(size - again.size(), size_t{4});
  CG_LAW((frame.state == supervisor::Frame::kEnd) ==
         supervisor::only_zeros(data + again.size(), length));
  CG_LAW(reader.next().state == frame.state && reader.offset() == again.size());  // it stays there

  // A frame of ours is damaged by every change of one byte after its length.
  std::vector<uint8_t> ours;
  if (!supervisor::append_frame(data, size, ours)) return 0;
  ours[4 + data[0] % (ours.size() - 4)] ^= static_cast<uint8_t>(1u << (data[size - 1] % 8));
  supervisor::FrameReader changed(ours.data(), ours.size());
  CG_LAW(changed.next().state == supervisor::Frame::kDamaged);
  return 0;
}
