// Log writing: what a record costs who waits for it. `ordered`: one append of a supervisor, beside the bare write(2) of as many
// bytes; `strict`: 64 callers who each wait for the disk, beside the disk's bare fdatasync after each such write.
#pragma once

#include <string>
#include <vector>

#include "bench/kernel_figures.h"
#include "kernel/record.h"

namespace certgate::bench {

// `state`: where a state directory may be made; `record`: one of the log that is measured.
Result<std::vector<KernelFigure>> writing_figures(const std::string& state, const kernel::Record& record, bool quick);

}  // namespace certgate::bench
