// Kernel figures: what one decision of the policy kernel costs, in this process, without a system call: decide, the labels, the
// record's encoding and framing, as a supervisor does them; and what loading a large policy costs.
#pragma once

#include <string>
#include <vector>

#include "kernel/result.h"

namespace certgate::bench {

struct KernelFigure {
  std::string name;               // stable: open-read, open-write, connect, exec, refusal, mixed, …
  std::string what;
  double median_us = 0, p99_us = 0, per_second = 0;
  double ratio = 0;               // to the same with 100 rules; 0 = not compared
  double max_median_us = 0, max_p99_us = 0, min_per_second = 0, max_ratio = 0, min_ratio = 0;   // the bar; 0 = none
};

// `directory`: where a policy file may be written and removed.
Result<std::vector<KernelFigure>> kernel_figures(bool quick, const std::string& directory);

std::string kernel_table(const std::string& title, const std::vector<KernelFigure>& figures);
// One object a line; every key is always there: name, median_us, p99_us, per_second, ratio.
std::string kernel_json(const std::vector<KernelFigure>& figures);
// One line for each bar, and whether all were kept.
bool check_kernel_bars(const std::vector<KernelFigure>& figures, std::string& text);

}  // namespace certgate::bench
