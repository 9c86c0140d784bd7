// Log figures: what the log costs with a million records of 250 runs: sealing, disk space, verifying it, making the index, asking
// why and what was influenced; and what a record costs who waits for it (log_writing.h). Beside each its floor in the same run:
// hashing the same bytes, writing them, or reading one record with its proof.
#pragma once

#include <string>
#include <vector>

#include "bench/kernel_figures.h"

namespace certgate::bench {

// `directory`: where a state directory of about 400 MB may be made and removed.
Result<std::vector<KernelFigure>> log_figures(bool quick, const std::string& directory);

}  // namespace certgate::bench
