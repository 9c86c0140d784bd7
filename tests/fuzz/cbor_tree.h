// Reads any item of the CBOR subset of kernel/cbor.h and writes it again.
#pragma once

#include "kernel/cbor.h"
#include "tests/fuzz/fuzz.h"

namespace certgate::fuzz {

inline constexpr int kMaxCborDepth = 8;
inline constexpr size_t kMaxCborItems = 4096;

// Item by item; false when the next one is not of the subset, or too deep.
class CborCopy {
 public:
  // `most` items; of what we have made ourselves, as many as there are bytes.
  CborCopy(const uint8_t* data, size_t size, size_t most = kMaxCborItems)
      : data_(data), size_(size), most_(most), in_(data, size) {}

  bool item(int depth = 0) {
    const size_t at = out_.data().size();  // canonical: as many bytes written as read
    if (at >= size_ || depth > kMaxCborDepth || ++items_ > most_) return false;
    switch (data_[at] >> 5) {
      case 0:
        return keep(in_.unsigned_int(), [&](uint64_t v) { out_.unsigned_int(v); });
      case 1:
        return keep(in_.integer(), [&](int64_t v) { out_.integer(v); });
      case 2:
        return keep(in_.bytes(size_), [&](const auto& v) { out_.bytes(v.data(), v.size()); });
      case 3:
        return keep(in_.text(size_), [&](const auto& v) { out_.text(v); });
      case 4: {
        size_t count = 0;
        return keep(in_.array(most_), [&](size_t v) { out_.array(count = v); }) &&
               items(count, depth);
      }
      case 5: {
        size_t count = 0;
        return keep(in_.map(most_), [&](size_t v) { out_.map(count = v); }) &&
               items(2 * count, depth);
      }
      case 7:
        return keep(in_.boolean(), [&](bool v) { out_.boolean(v); });
      default:
        return false;
    }
  }
  bool done() const { return in_.done(); }
  const std::vector<uint8_t>& written() const { return out_.data(); }

 private:
  bool items(size_t count, int depth) {
    for (size_t i = 0; i < count; ++i) {
      if (!item(depth + 1)) return false;
    }
    return true;
  }
  template <typename T, typename Write>
  bool keep(const Result<T>& value, Write write) {
    if (!value) return false;
    write(*value);
    CG_LAW(out_.data().size() <= size_);
    return true;
  }

  const uint8_t* data_;
  size_t size_, most_, items_ = 0;
  kernel::CborReader in_;
  kernel::CborWriter out_;
};

}  // namespace certgate::fuzz
