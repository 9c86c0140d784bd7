#include "kernel/mutant.h"

#ifdef CERTGATE_MUTANTS

#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace certgate {
namespace {

constexpr uint64_t bit(Mutant which) { return uint64_t{1} << static_cast<unsigned>(which); }

uint64_t find(std::string_view name) {
#define CERTGATE_MUTANT_NAME(id, text) \
  if (name == (text)) return bit(Mutant::id);
  CERTGATE_MUTANT_TABLE(CERTGATE_MUTANT_NAME)
#undef CERTGATE_MUTANT_NAME
  std::abort();
}

uint64_t chosen() {
  const char* text = std::getenv("CERTGATE_MUTANT");
  std::string_view rest = text == nullptr ? "none" : text;
  uint64_t all = 0;
  for (;;) {
    const size_t comma = rest.find(',');
    all |= find(rest.substr(0, comma));
    if (comma == std::string_view::npos) return all;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace

bool mutant(Mutant which) {
  static const uint64_t active = chosen();
  return (active & bit(which)) != 0;
}

}  // namespace certgate

#endif
