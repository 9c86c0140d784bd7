#include "kernel/cbor.h"

namespace certgate::kernel {
namespace {

enum Major : uint8_t {
  kUnsigned = 0,
  kNegative = 1,
  kBytes = 2,
  kText = 3,
  kArray = 4,
  kMap = 5,
  kSimple = 7,
};
constexpr uint64_t kFalse = 20;
constexpr uint64_t kTrue = 21;

bool continuation(uint8_t byte) { return (byte & 0xC0) == 0x80; }

}  // namespace

size_t utf8_length(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t first = data[0];
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;  // a continuation, overlong or beyond U+10FFFF
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (size < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if (!continuation(data[i])) return 0;
  }
  if (first == 0xE0 && data[1] < 0xA0) return 0;  // overlong
  if (first == 0xED && data[1] > 0x9F) return 0;  // surrogates
  if (first == 0xF0 && data[1] < 0x90) return 0;  // overlong
  if (first == 0xF4 && data[1] > 0x8F) return 0;  // beyond U+10FFFF
  return length;
}

uint8_t* put_cbor_head(uint8_t* at, uint8_t major, uint64_t value) {
  const auto type = static_cast<uint8_t>(major << 5);
  if (value < 24) {
    *at = static_cast<uint8_t>(type | value);
    return at + 1;
  }
  const unsigned log2 = value <= 0xFF ? 0 : value <= 0xFFFF ? 1 : value <= 0xFFFFFFFF ? 2 : 3;
  const unsigned bytes = 1u << log2;
  *at++ = static_cast<uint8_t>(type | (24 + log2));
  for (unsigned i = bytes; i > 0; --i) *at++ = static_cast<uint8_t>(value >> (8 * (i - 1)));
  return at;
}

void CborWriter::head(uint8_t major, uint64_t value) {
  if (value < 24) return out_.push_back(static_cast<uint8_t>(major << 5 | value));  // most
  uint8_t buffer[kMaxCborHead];
  out_.insert(out_.end(), buffer, put_cbor_head(buffer, major, value));
}

void CborWriter::unsigned_int(uint64_t value) { head(kUnsigned, value); }

void CborWriter::integer(int64_t value) {
  // -1 - value, without overflow
  head(value >= 0 ? kUnsigned : kNegative, static_cast<uint64_t>(value >= 0 ? value : ~value));
}

void CborWriter::bytes(const void* data, size_t size) {
  head(kBytes, size);
  const auto* from = static_cast<const uint8_t*>(data);
  out_.insert(out_.end(), from, from + size);
}

void CborWriter::text(std::string_view value) {
  head(kText, value.size());
  out_.insert(out_.end(), value.begin(), value.end());
}

void CborWriter::array(size_t count) { head(kArray, count); }
void CborWriter::map(size_t count) { head(kMap, count); }
void CborWriter::boolean(bool value) { head(kSimple, value ? kTrue : kFalse); }

Result<uint64_t> CborReader::head(uint8_t major) {
  if (at_ == end_) return fail("cbor: the data ends where an item should start");
  if (*at_ >> 5 != major) {
    return fail("cbor: expected major type " + std::to_string(major) + ", found " +
                std::to_string(*at_ >> 5));
  }
  const uint8_t info = *at_ & 0x1F;
  if (info < 24) {
    ++at_;
    return uint64_t{info};
  }
  if (info > 27) return fail("cbor: an indefinite length or a reserved form");
  const size_t bytes = size_t{1} << (info - 24);
  if (static_cast<size_t>(end_ - at_) < 1 + bytes) return fail("cbor: the data ends inside a head");
  uint64_t value = 0;
  for (size_t i = 1; i <= bytes; ++i) value = value << 8 | at_[i];
  const uint64_t least = bytes == 1 ? 24 : uint64_t{1} << (4 * bytes);
  if (value < least) return fail("cbor: a number is not in its shortest form");
  at_ += 1 + bytes;
  return value;
}

Result<uint64_t> CborReader::unsigned_int() { return head(kUnsigned); }

Error CborReader::refuse(const uint8_t* start, std::string what) {
  at_ = start;
  return fail(std::move(what));
}

Result<int64_t> CborReader::integer() {
  const uint8_t* const start = at_;
  const bool negative = at_ != end_ && *at_ >> 5 == kNegative;
  CG_TRY(const uint64_t value, head(negative ? kNegative : kUnsigned));
  if (value > static_cast<uint64_t>(INT64_MAX))
    return refuse(start, "cbor: a number does not fit 64 bits");
  return static_cast<int64_t>(negative ? ~value : value);
}

Result<std::string> CborReader::string(uint8_t major, size_t max, const char* what) {
  const uint8_t* const start = at_;
  CG_TRY(const uint64_t size, head(major));
  if (size > max)
    return refuse(start, std::string("cbor: ") + what + " is longer than " + std::to_string(max));
  if (size > static_cast<size_t>(end_ - at_))
    return refuse(start, std::string("cbor: the data ends inside ") + what);
  std::string value(at_, at_ + size);
  at_ += size;
  return value;
}

Result<std::string> CborReader::bytes(size_t max) { return string(kBytes, max, "a byte string"); }

Result<std::string> CborReader::text(size_t max) {
  const uint8_t* const start = at_;
  CG_TRY(std::string value, string(kText, max, "a text"));
  const uint8_t* const from = at_ - value.size();
  for (size_t i = 0; i < value.size();) {
    const size_t length = utf8_length(from + i, value.size() - i);
    if (length == 0) return refuse(start, "cbor: a text is not UTF-8");
    i += length;
  }
  return value;
}

Result<size_t> CborReader::count(uint8_t major, size_t max, const char* what) {
  const uint8_t* const start = at_;
  CG_TRY(const uint64_t count, head(major));
  if (count > max) {
    return refuse(
        start, std::string("cbor: ") + what + " has more than " + std::to_string(max) + " items");
  }
  return static_cast<size_t>(count);
}

Result<size_t> CborReader::array(size_t max) { return count(kArray, max, "an array"); }
Result<size_t> CborReader::map(size_t max) { return count(kMap, max, "a map"); }

Result<bool> CborReader::boolean() {
  const uint8_t* const start = at_;
  CG_TRY(const uint64_t value, head(kSimple));
  if (value != kFalse && value != kTrue) return refuse(start, "cbor: expected a boolean");
  return value == kTrue;
}

}  // namespace certgate::kernel
