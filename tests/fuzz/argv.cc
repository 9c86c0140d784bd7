// Copies out of another task's memory: paths and argument vectors that end at a hole, cross pages,
// point anywhere and never end. The task is this one; the arena's last page cannot be read.
//
// Input: max_count, max_bytes (2), where the vector lies (2), its length, its pointers (2 each, an
// offset in the arena; 0xffff = wild), then the bytes that fill the arena
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "sandbox/remote.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kReadable = 3 * kPage;
constexpr uint64_t kWild = 0x4141414141414141;  // not an address on this machine
constexpr int kAnything = -1;  // the bytes made a pointer to elsewhere in this process

class Arena {
 public:
  Arena() {
    void* at = ::mmap(nullptr, kReadable + kPage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) std::abort();
    base_ = static_cast<char*>(at);
    if (::mprotect(base_ + kReadable, kPage, PROT_NONE) != 0) std::abort();
  }
  char* data() const { return base_; }
  uint64_t address(size_t offset) const { return reinterpret_cast<uint64_t>(base_) + offset; }
  // From `offset` to the hole.
  std::string_view from(size_t offset) const {
    return offset >= kReadable ? std::string_view()
                               : std::string_view(base_ + offset, kReadable - offset);
  }

 private:
  char* base_ = nullptr;
};

void strings(const Arena& arena, size_t offset, size_t max) {
  std::string copy;
  const int error = sandbox::read_string(::getpid(), arena.address(offset), max, copy);
  const std::string_view there = arena.from(offset);
  const size_t nul = there.find('\0');
  if (nul != std::string_view::npos && nul < max) {
    CG_LAW(error == 0 && copy == there.substr(0, nul));
  } else if (there.size() >= max) {
    CG_LAW(error == ENAMETOOLONG);
  } else {
    CG_LAW(error == EFAULT);
  }
}

// What the kernel's own copy of the vector would be, read without any page tricks.
int slow_vector(const Arena& arena, size_t at, size_t max_count, size_t max_bytes,
                std::vector<std::string>& out) {
  size_t total = 0;
  for (size_t i = 0;; ++i) {
    const std::string_view word = arena.from(at + 8 * i).substr(0, 8);
    if (word.size() < 8) return EFAULT;
    uint64_t pointer = 0;
    std::memcpy(&pointer, word.data(), 8);
    if (pointer == 0) return 0;
    if (i == max_count) return E2BIG;
    const size_t offset = pointer - arena.address(0);
    if (offset >= kReadable + kPage && pointer != kWild) return kAnything;
    if (offset >= kReadable) return EFAULT;
    const std::string_view there = arena.from(offset).substr(0, max_bytes - total + 1);
    const size_t nul = there.find('\0');
    if (nul == std::string_view::npos) return there.size() < max_bytes - total + 1 ? EFAULT : E2BIG;
    total += nul + 1;
    if (total > max_bytes) return E2BIG;
    out.emplace_back(there.substr(0, nul));
  }
}

}  // namespace

FUZZ_TARGET(argv) {
  static const Arena arena;
  fuzz::Bytes in(data, size);
  const size_t max_count = in.byte() % 40;
  const size_t max_bytes = in.number(2);
  const size_t at = in.number(2) % kReadable;
  std::vector<uint64_t> pointers(in.byte() % 48);
  for (uint64_t& p : pointers) {
    const uint64_t offset = in.number(2);
    p = offset == 0xffff ? kWild : offset == 0 ? 0 : arena.address(offset % (kReadable + 64));
  }
  const std::string fill = in.rest();
  for (size_t i = 0; i < kReadable; ++i)
    arena.data()[i] = fill.empty() ? 'x' : fill[i % fill.size()];
  const size_t vector_bytes = std::min(8 * pointers.size(), kReadable - at);
  if (vector_bytes > 0) std::memcpy(arena.data() + at, pointers.data(), vector_bytes);

  strings(arena, at, max_bytes);
  std::vector<std::string> copy, expected;
  const int error =
      sandbox::read_strings(::getpid(), arena.address(at), max_count, max_bytes, copy);
  const int wanted = slow_vector(arena, at, max_count, max_bytes, expected);
  CG_LAW(copy.size() <= max_count);
  if (wanted == kAnything) return 0;
  CG_LAW(error == wanted);
  if (error == 0) CG_LAW(copy == expected);
  return 0;
}
