// Options of certgate-bench.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernel/result.h"

namespace certgate::bench {

struct Options {
  size_t rounds = 5;
  bool quick = false;
  bool json = false;
  bool check = false;
  bool help = false;
  bool kernel = false;             // the kernel figures instead of the cases
  bool log = false;                // the figures of reading the log
  std::vector<std::string> only;   // names of cases; empty = all
};

extern const char* const kUsage;

Result<Options> parse_options(const std::vector<std::string>& args);

}  // namespace certgate::bench
