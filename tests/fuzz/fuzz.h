// Fuzz targets: laws of the decoders over arbitrary bytes.
//
//   FUZZ_TARGET(cbor) {                       // data, size
//     fuzz::Bytes in(data, size);
//     CG_LAW(decode(encode(x)) == x);         // a broken law ends the process, as a crash does
//     return 0;
//   }
//
// One file per target, two builds. With CERTGATE_LIBFUZZER a target is LLVMFuzzerTestOneInput of a
// program of its own (clang, -fsanitize=fuzzer). Without, it registers itself with the replay
// driver (replay.cc), which runs corpus/NAME/* and mutations of it in every test run.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace certgate::fuzz {

using Target = int (*)(const uint8_t* data, size_t size);

[[noreturn]] inline void broken(const char* law, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: broken law: %s\n", file, line, law);
  std::abort();
}

// Takes values off the front of an input; an exhausted input gives zeros and empty strings.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), left_(size) {}

  uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
  }
  // Little-endian, `width` bytes.
  uint64_t number(size_t width = 8) {
    uint64_t out = 0;
    for (size_t i = 0; i < width; ++i) out |= uint64_t{byte()} << (8 * i);
    return out;
  }
  // A length byte, then that many bytes (`unit` bytes for each step of the length).
  std::string text(size_t unit = 1) { return take(byte() * unit); }
  std::string take(size_t size) {
    const size_t n = std::min(size, left_);
    std::string out(at_, at_ + n);
    at_ += n;
    left_ -= n;
    return out;
  }
  std::string rest() { return take(left_); }
  // Up to the next `end` byte, which is dropped.
  std::string until(uint8_t end) {
    const uint8_t* stop = std::find(at_, at_ + left_, end);
    std::string out = take(static_cast<size_t>(stop - at_));
    byte();
    return out;
  }
  bool empty() const { return left_ == 0; }

 private:
  const uint8_t* at_;
  size_t left_;
};

inline const uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const uint8_t*>(text.data());  // NOLINT: text as octets
}

// Known to the replay driver from now on.
struct Registered {
  Registered(const char* name, Target target);
};

}  // namespace certgate::fuzz

#define CG_LAW(...)                                               \
  do {                                                            \
    if (!static_cast<bool>(__VA_ARGS__))                          \
      ::certgate::fuzz::broken(#__VA_ARGS__, __FILE__, __LINE__); \
  } while (false)

#ifdef CERTGATE_LIBFUZZER
#define FUZZ_TARGET(name)                                                     \
  extern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t);              \
  extern "C" int LLVMFuzzerTestOneInput([[maybe_unused]] const uint8_t* data, \
                                        [[maybe_unused]] size_t size)
#else
#define FUZZ_TARGET(name)                                                            \
  static int name##_target(const uint8_t* data, size_t size);                        \
  static const ::certgate::fuzz::Registered name##_registered(#name, name##_target); \
  static int name##_target([[maybe_unused]] const uint8_t* data, [[maybe_unused]] size_t size)
#endif
