// Deterministic CBOR (RFC 8949 §4.2.1): the encoding of records, effects and canonical policies.
// Subset: unsigned and negative integers, byte and text strings, arrays, maps with integer keys in
// ascending order, booleans. Shortest form only, definite lengths only. The decoder refuses all
// else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/result.h"

namespace certgate::kernel {

// Length (1 to 4) of the UTF-8 character at `data`, 0 when there is no valid one (RFC 3629).
size_t utf8_length(const uint8_t* data, size_t size);

inline constexpr size_t kMaxCborHead = 9;
// Writes an item head in its shortest form at `at` (room for kMaxCborHead); returns the byte after
// it.
uint8_t* put_cbor_head(uint8_t* at, uint8_t major, uint64_t value);

class CborWriter {
 public:
  explicit CborWriter(size_t room = 0) { out_.reserve(room); }
  void unsigned_int(uint64_t value);
  void integer(int64_t value);
  void bytes(const void* data, size_t size);
  void text(std::string_view value);  // caller guarantees UTF-8; for untrusted bytes use bytes()
  void array(size_t count);
  void map(size_t count);
  void boolean(bool value);
  const std::vector<uint8_t>& data() const { return out_; }
  std::vector<uint8_t> take() { return std::move(out_); }
  void clear() { out_.clear(); }

 private:
  void head(uint8_t major, uint64_t value);
  std::vector<uint8_t> out_;
};

// Strict pull decoder over borrowed bytes. Every call checks type, shortest form and bounds; one
// that fails moves nothing, so done() is never true after it.
class CborReader {
 public:
  CborReader(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  Result<uint64_t> unsigned_int();
  Result<int64_t> integer();
  Result<std::string> bytes(size_t max);
  Result<std::string> text(size_t max);  // checks UTF-8
  Result<size_t> array(size_t max);
  Result<size_t> map(size_t max);
  Result<bool> boolean();
  bool done() const { return at_ == end_; }

 private:
  Result<uint64_t> head(uint8_t major);
  Result<std::string> string(uint8_t major, size_t max, const char* what);
  Result<size_t> count(uint8_t major, size_t max, const char* what);
  Error refuse(const uint8_t* start, std::string what);  // back to `start`
  const uint8_t* at_;
  const uint8_t* end_;
};

}  // namespace certgate::kernel
