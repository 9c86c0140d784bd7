// Cases: what is measured, and every way of running it. A new case or variant is a new entry here.
//
//   for (const Case& c : make_cases(scene, quick)) print(measure(c, rounds, scene));
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/runner.h"
#include "bench/scene.h"

namespace certgate::bench {

struct Variant {
  std::string name;      // stable: native, native-pinned, floor, reference, certgate, …
  Job job;
  std::string missing;   // why it cannot run on this machine, empty when it can
  std::string alone = {};// the variant that does the same with nothing beside it
};

struct Case {
  std::string name;      // stable: see case_names()
  std::string what;      // one operation of it, for the reader
  bool tail = true;      // so many operations a round that a 99th percentile means something
  size_t operations = 0; // in each round, of each variant
  std::vector<Variant> variants;
};

std::vector<std::string> case_names();
std::vector<Case> make_cases(const Scene& scene, bool quick);

// One line of the result: the medians over the rounds.
struct Row {
  std::string name, variant;
  double median_us = 0, mean_us = 0;
  std::optional<double> p99_us;
  std::optional<double> ratio_native, ratio_floor, ratio_reference;
  std::optional<double> ratio_alone;  // of the 99th percentiles, median of the rounds' ratios
  size_t rounds = 0;          // that succeeded
  std::optional<int> cpu;     // pinned there
  std::string skipped;        // why there are no figures
  std::string note;           // what the reader must know about the figures
};

// Runs every variant once a round, each round beginning with another one. A variant that fails is
// left out from then on, and its row says why. Native rows compare like with like: pinned variants
// with native-pinned, the others with native. No rows after an interruption.
std::vector<Row> measure(const Case& c, size_t rounds, const Scene& scene);

}  // namespace certgate::bench
