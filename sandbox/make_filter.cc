// Runs when certgate is built: makes both programs of the filter, proves them, and prints them as
// C++ arrays for filter_programs.cc. A program that cannot be proved breaks the build.
#include <cstdio>

#include "sandbox/filter.h"

namespace {

void print(const char* name, const std::vector<sock_filter>& program) {
  std::printf("constexpr sock_filter %s[] = {\n", name);
  for (const sock_filter& s : program)
    std::printf("    {0x%04x, %u, %u, 0x%08x},\n", s.code, s.jt, s.jf, s.k);
  std::printf("};\n");
}

}  // namespace

int main() {
  const auto filter = certgate::sandbox::build_filter();
  if (!filter) {
    std::fprintf(stderr, "certgate_make_filter: %s\n", filter.error().what.c_str());
    return 1;
  }
  std::printf("#include <linux/filter.h>\n");
  print("kProgram", filter->program);
  print("kGuard", filter->guard);
  return 0;
}
