#include "kernel/mutant.h"

#ifdef CERTGATE_MUTANTS

#include <cstdlib>
#include <string_view>

namespace certgate {
namespace {

Mutant chosen() {
  const char* name = std::getenv("CERTGATE_MUTANT");
  if (name == nullptr) return Mutant::kNone;
#define CERTGATE_MUTANT_NAME(id, text) \
  if (std::string_view(name) == (text)) return Mutant::id;
  CERTGATE_MUTANT_TABLE(CERTGATE_MUTANT_NAME)
#undef CERTGATE_MUTANT_NAME
  std::abort();
}

}  // namespace

bool mutant(Mutant which) {
  static const Mutant active = chosen();
  return active == which;
}

}  // namespace certgate

#endif
