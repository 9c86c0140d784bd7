#include "supervisor/frame.h"

#include <algorithm>
#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace certgate::supervisor {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, reflected
using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][i] = crc;
  }
  for (size_t t = 1; t < 8; ++t) {
    for (size_t i = 0; i < 256; ++i) {
      tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 0xFF];
    }
  }
  return tables;
}

// Slicing by 8: eight bytes for each round of table look-ups.
uint32_t crc_by_table(const uint8_t* data, size_t size) {
  static constexpr Tables kTables = make_tables();
  uint32_t crc = ~uint32_t{0};
  for (; size >= 8; data += 8, size -= 8) {
    const uint32_t low = crc ^ (uint32_t{data[0]} | uint32_t{data[1]} << 8 |
                                uint32_t{data[2]} << 16 | uint32_t{data[3]} << 24);
    crc = kTables[7][low & 0xFF] ^ kTables[6][low >> 8 & 0xFF] ^ kTables[5][low >> 16 & 0xFF] ^
          kTables[4][low >> 24] ^ kTables[3][data[4]] ^ kTables[2][data[5]] ^ kTables[1][data[6]] ^
          kTables[0][data[7]];
  }
  for (; size > 0; ++data, --size) crc = (crc >> 8) ^ kTables[0][(crc ^ *data) & 0xFF];
  return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc_by_instruction(const uint8_t* data, size_t size) {
  uint64_t crc = ~uint32_t{0};
  for (; size >= 8; data += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, data, sizeof word);
    crc = _mm_crc32_u64(crc, word);
  }
  auto rest = static_cast<uint32_t>(crc);
  for (; size > 0; ++data, --size) rest = _mm_crc32_u8(rest, *data);
  return ~rest;
}
#endif

using Crc = uint32_t (*)(const uint8_t*, size_t);

Crc choose_crc() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return crc_by_instruction;
#endif
  return crc_by_table;
}

void put_u32(uint8_t* at, uint32_t value) {
  for (int i = 0; i < 4; ++i) at[i] = static_cast<uint8_t>(value >> (8 * i));
}

uint32_t get_u32(const uint8_t* at) {
  return uint32_t{at[0]} | uint32_t{at[1]} << 8 | uint32_t{at[2]} << 16 | uint32_t{at[3]} << 24;
}

}  // namespace

uint32_t crc32c(const void* data, size_t size) {
  static const Crc crc = choose_crc();
  return crc(static_cast<const uint8_t*>(data), size);
}

uint32_t crc32c_portable(const void* data, size_t size) {
  return crc_by_table(static_cast<const uint8_t*>(data), size);
}

bool append_frame(const void* data, size_t size, std::vector<uint8_t>& out) {
  if (size == 0 || size > kernel::kMaxRecordBytes) return false;
  const size_t at = out.size();
  out.resize(at + kFrameHeaderBytes + size);
  put_u32(out.data() + at, static_cast<uint32_t>(size));
  put_u32(out.data() + at + 4, crc32c(data, size));
  std::memcpy(out.data() + at + kFrameHeaderBytes, data, size);
  return true;
}

bool only_zeros(const uint8_t* data, size_t size) {
  return std::all_of(data, data + size, [](uint8_t byte) { return byte == 0; });
}

Frame FrameReader::next() {
  Frame frame;
  frame.offset = at_;
  const size_t left = size_ - at_;
  if (left == 0) return frame;
  if (only_zeros(data_ + at_, std::min(left, kLengthBytes))) return frame;
  frame.state = Frame::kTorn;
  if (left < kFrameHeaderBytes) return frame;
  const uint32_t size = get_u32(data_ + at_);
  if (size > kernel::kMaxRecordBytes) {
    frame.state = Frame::kDamaged;
    return frame;
  }
  if (left - kFrameHeaderBytes < size) return frame;
  const uint8_t* bytes = data_ + at_ + kFrameHeaderBytes;
  if (crc32c(bytes, size) != get_u32(data_ + at_ + 4)) {
    frame.state = Frame::kDamaged;
    return frame;
  }
  frame.state = Frame::kOk;
  frame.data = bytes;
  frame.size = size;
  at_ += kFrameHeaderBytes + size;
  return frame;
}

}  // namespace certgate::supervisor
