// Runner: runs one job, an inner loop with whatever surrounds it, and reads its result.
//
//   CG_TRY(Sample sample, run_job(job, scene));
//
// The benchmark must be single-threaded (it forks), and its children end with it or on time.
#pragma once

#include <string>
#include <vector>

#include "bench/floor.h"
#include "bench/inner.h"
#include "bench/scene.h"
#include "kernel/result.h"

namespace certgate::bench {

struct Job {
  std::vector<std::string> argv;   // argv[0] is a path
  Trap trap = Trap::kNone;         // kNone: nothing of ours answers calls
  bool pinned = false;             // the whole job, and we who answer, on one CPU
  std::vector<std::string> beside = {}; // runs meanwhile, from when it has written a byte to when the job ends
};

struct Sample {
  Timing timing;
  bool same_cpu = true;            // false: the floor ran without SYNC_WAKE_UP
};

// The CPU that pinned jobs run on: the last one we may use (the first ones serve interrupts).
Result<int> pinned_cpu();

// After SIGINT, SIGTERM or SIGHUP: jobs end early and interrupted() is true, so that the caller can
// leave by the usual way and clean up.
void watch_interrupts();
bool interrupted();

Result<Sample> run_job(const Job& job, const Scene& scene);

}  // namespace certgate::bench
