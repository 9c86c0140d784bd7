// Report: rows as a table for a human or as JSON lines for a program, and the bars of --check.
#pragma once

#include <string>
#include <vector>

#include "bench/cases.h"

namespace certgate::bench {

// What the figures were taken on and how, in a few lines.
std::string heading(size_t rounds, const Scene& scene);
std::string table(const Case& c, const std::vector<Row>& rows);

// One object a line; every key is always there: name, variant, median_us, p99_us, mean_us,
// ratio_native, ratio_floor, ratio_reference, rounds, pinned_cpu, skipped, note, ratio_alone.
std::string json_lines(const std::vector<Row>& rows);

struct Verdict {
  std::string text;   // one line for each bar
  bool passed = true;
};
// Judges the bars of the cases among `rows`. A bar that could not be measured is missed.
Verdict check_bars(const std::vector<Row>& rows);

}  // namespace certgate::bench
