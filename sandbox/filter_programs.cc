#include "sandbox/filter_programs.inc"  // made by make_filter.cc

#include "kernel/mutant.h"
#include "sandbox/filter.h"

namespace certgate::sandbox {

Result<FilterView> filter_programs() {
#ifdef CERTGATE_MUTANTS
  static const Result<Filter> built = build_filter();  // what is missing is known only now
  if (!built) return built.error();
  return FilterView{built->program, built->guard};
#else
  return FilterView{kProgram, kGuard};
#endif
}

}  // namespace certgate::sandbox
