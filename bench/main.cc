// certgate-bench: what certgate costs, beside what the kernel makes anyone pay. See options.cc.

#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "bench/cases.h"
#include "bench/inner.h"
#include "bench/kernel_figures.h"
#include "bench/log_figures.h"
#include "bench/options.h"
#include "bench/report.h"
#include "bench/scene.h"

namespace certgate::bench {
namespace {

constexpr int kExitMissed = 1;
constexpr int kExitUsage = 2;

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

Result<bool> run(const Options& options) {
  watch_interrupts();
  CG_TRY(Scene scene, Scene::make(options.quick ? Scene::Size::kSmall : Scene::Size::kFull));
  // An ordinary user's label store stays out of it; inodes of ours will be reused by others.
  if (::setenv("XDG_STATE_HOME", scene.labels.c_str(), 1) != 0) return fail("set XDG_STATE_HOME: no memory");
  if (!options.json) print(heading(options.rounds, scene));
  std::vector<Row> all;
  for (const Case& c : make_cases(scene, options.quick)) {
    const auto& only = options.only;
    if (!only.empty() && std::find(only.begin(), only.end(), c.name) == only.end()) continue;
    const std::vector<Row> rows = measure(c, options.rounds, scene);
    if (interrupted()) return fail("interrupted");
    print(options.json ? json_lines(rows) : table(c, rows));
    all.insert(all.end(), rows.begin(), rows.end());
  }
  const bool measured = std::any_of(all.begin(), all.end(), [](const Row& row) { return row.skipped.empty(); });
  if (!options.check) return measured;
  const Verdict verdict = check_bars(all);
  std::fputs(verdict.text.c_str(), options.json ? stderr : stdout);
  return measured && verdict.passed;
}

// kernel and log: figures without a sandbox.
Result<bool> run_kernel(const Options& options) {
  const char* directory = ::getenv("TMPDIR");
  const std::string place = directory != nullptr ? directory : options.log ? "/var/tmp" : "/tmp";
  CG_TRY(const auto figures, options.log ? log_figures(options.quick, place) : kernel_figures(options.quick, place));
  const char* const title = options.log ? "log: one thread, one log of runs of 4,000 records" : "kernel: one thread, 100 rules unless said";
  print(options.json ? kernel_json(figures) : kernel_table(title, figures));
  if (!options.check) return true;
  std::string text;
  const bool kept = check_kernel_bars(figures, text);
  std::fputs(text.c_str(), options.json ? stderr : stdout);
  return kept;
}

int bench_main(const std::vector<std::string>& args) {
  if (!args.empty() && args[0] == "--inner") return inner_main({args.begin() + 1, args.end()});
  const auto options = parse_options(args);
  if (!options) {
    std::fprintf(stderr, "certgate-bench: %s\n", options.error().what.c_str());
    return kExitUsage;
  }
  if (options->help) {
    print(kUsage);
    return 0;
  }
  const auto passed = options->kernel || options->log ? run_kernel(*options) : run(*options);
  if (!passed) {
    std::fprintf(stderr, "certgate-bench: %s\n", passed.error().what.c_str());
    return kExitMissed;
  }
  return *passed ? 0 : kExitMissed;
}

}  // namespace
}  // namespace certgate::bench

int main(int argc, char** argv) { return certgate::bench::bench_main({argv + 1, argv + argc}); }
