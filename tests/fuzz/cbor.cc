// Deterministic CBOR: every value has one encoding, so what is read and written again is the same.
#include "kernel/cbor.h"

#include "tests/fuzz/cbor_tree.h"

using namespace certgate;

namespace {

// Each call on arbitrary bytes, also the wrong one for what is there; a failed one moves nothing.
void ask_for_anything(const uint8_t* data, size_t size) {
  kernel::CborReader in(data, size);
  fuzz::Bytes choice(data, size);
  for (size_t i = 0; i < size && !in.done(); ++i) {
    const size_t max = choice.byte();
    switch (max % 7) {
      case 0:
        static_cast<void>(in.unsigned_int());
        break;
      case 1:
        static_cast<void>(in.integer());
        break;
      case 2:
        if (auto v = in.bytes(max)) CG_LAW(v->size() <= max);
        break;
      case 3:
        if (auto v = in.text(max)) CG_LAW(v->size() <= max);
        break;
      case 4:
        if (auto v = in.array(max)) CG_LAW(*v <= max);
        break;
      case 5:
        if (auto v = in.map(max)) CG_LAW(*v <= max);
        break;
      default:
        static_cast<void>(in.boolean());
        break;
    }
  }
}

void numbers_come_back(fuzz::Bytes in) {
  kernel::CborWriter w;
  const uint64_t plain = in.number();
  const auto signed_one = static_cast<int64_t>(in.number());
  w.unsigned_int(plain);
  w.integer(signed_one);
  kernel::CborReader r(w.data().data(), w.data().size());
  const auto first = r.unsigned_int();
  const auto second = r.integer();
  CG_LAW(first && *first == plain);
  CG_LAW(second && *second == signed_one && r.done());
}

}  // namespace

FUZZ_TARGET(cbor) {
  fuzz::CborCopy copy(data, size);
  while (copy.item()) {
  }
  const std::vector<uint8_t>& written = copy.written();
  CG_LAW(std::equal(written.begin(), written.end(), data));
  if (copy.done()) CG_LAW(written.size() == size);
  ask_for_anything(data, size);
  numbers_come_back(fuzz::Bytes(data, size));
  return 0;
}
