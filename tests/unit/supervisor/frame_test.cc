#include "supervisor/frame.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace certgate::supervisor {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes frames_of(std::initializer_list<std::string> texts) {
  Bytes out;
  for (const std::string& text : texts) EXPECT_TRUE(append_frame(text.data(), text.size(), out));
  return out;
}

TEST(Frame, Crc32cIsThePublishedOne) {
  EXPECT_EQ(crc32c("123456789", 9), 0xE3069283u);
  EXPECT_EQ(crc32c("", 0), 0u);
  EXPECT_EQ(crc32c(Bytes(32, 0).data(), 32), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(Bytes(32, 0xFF).data(), 32), 0x62A8AB43u);
}

TEST(Frame, TheInstructionAndTheTableAgree) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 500; ++i) {
    Bytes bytes(random() % 700);
    for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
    EXPECT_EQ(crc32c(bytes.data(), bytes.size()), crc32c_portable(bytes.data(), bytes.size()));
  }
}

TEST(Frame, TheLayoutIsLengthChecksumBytes) {
  const Bytes bytes = frames_of({"123456789"});
  EXPECT_EQ(bytes, (Bytes{9, 0, 0, 0, 0x83, 0x92, 0x06, 0xE3, '1', '2', '3', '4', '5', '6', '7',
                          '8', '9'}));
}

TEST(Frame, FramesAreReadInOrderToTheEnd) {
  const Bytes bytes = frames_of({"a", "bc", std::string(60000, 'x')});
  FrameReader reader(bytes.data(), bytes.size());
  EXPECT_EQ(reader.next().size, 1u);
  const Frame second = reader.next();
  EXPECT_EQ(second.state, Frame::kOk);
  EXPECT_EQ(second.offset, 9u);
  EXPECT_EQ(std::string(second.data, second.data + second.size), "bc");
  EXPECT_EQ(reader.next().size, 60000u);
  const Frame end = reader.next();
  EXPECT_EQ(end.state, Frame::kEnd);
  EXPECT_EQ(end.offset, bytes.size());
}

TEST(Frame, EmptyAndOversizedRecordsHaveNoFrame) {
  Bytes out;
  EXPECT_FALSE(append_frame("", 0, out));
  EXPECT_FALSE(append_frame(Bytes(kernel::kMaxRecordBytes + 1).data(), kernel::kMaxRecordBytes + 1, out));
  EXPECT_TRUE(out.empty());
  EXPECT_TRUE(append_frame(Bytes(kernel::kMaxRecordBytes).data(), kernel::kMaxRecordBytes, out));
}

TEST(Frame, ATailCutAnywhereIsTorn) {
  const Bytes bytes = frames_of({"first", "second record"});
  for (size_t size = 14; size < bytes.size(); ++size) {
    FrameReader reader(bytes.data(), size);
    EXPECT_EQ(reader.next().state, Frame::kOk);
    EXPECT_EQ(reader.next().state, Frame::kTorn) << size;
    EXPECT_EQ(reader.next().offset, 13u);
  }
}

TEST(Frame, AFlipAnywhereIsNoticed) {
  const Bytes bytes = frames_of({"some record"});
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Bytes changed = bytes;
      changed[i] = static_cast<uint8_t>(changed[i] ^ 1 << bit);
      EXPECT_NE(FrameReader(changed.data(), changed.size()).next().state, Frame::kOk) << i;
    }
  }
}

TEST(Frame, ZerosAreTheEndNotEmptyFrames) {
  for (size_t room : {1, 3, 4, 7, 8, 9, 4096}) {
    Bytes bytes = frames_of({"some record"});
    const size_t end = bytes.size();
    bytes.resize(end + room);
    FrameReader reader(bytes.data(), bytes.size());
    EXPECT_EQ(reader.next().state, Frame::kOk);
    EXPECT_EQ(reader.next().state, Frame::kEnd) << room;
    EXPECT_EQ(reader.next().offset, end);
  }
}

TEST(Frame, ALengthWithoutItsLastBytesIsTorn) {
  const Bytes bytes = frames_of({std::string(300, 'x')});  // its length's low byte is not zero
  for (size_t size = 1; size < 8; ++size)
    EXPECT_EQ(FrameReader(bytes.data(), size).next().state, Frame::kTorn) << size;
}

}  // namespace
}  // namespace certgate::supervisor
