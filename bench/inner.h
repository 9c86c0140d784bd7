// Inner loop: the program that every variant runs, so that only what surrounds it differs.
//
//   certgate-bench --inner open N WARM-UP FILE
//   certgate-bench --inner connect N WARM-UP PORT          127.0.0.1:PORT
//   certgate-bench --inner connect-own N WARM-UP           a listener of its own
//   certgate-bench --inner spawn N WARM-UP STATUS PROGRAM [ARG…]
//
// Times each operation (less the cost of reading the clock) and prints one line on stdout:
//   certgate-bench-result <median ns> <p99 ns> <mean ns>
#pragma once

#include <string>
#include <vector>

#include "kernel/result.h"

namespace certgate::bench {

struct Timing {
  double median_ns = 0, p99_ns = 0, mean_ns = 0;
};

// The hidden verb: `args` follow "--inner". Returns the exit status.
int inner_main(const std::vector<std::string>& args);

// The other end: finds the result line in what the inner loop printed.
Result<Timing> parse_timing(const std::string& output);

}  // namespace certgate::bench
