#include "bench/options.h"

#include <algorithm>
#include <charconv>

#include "bench/cases.h"

namespace certgate::bench {
namespace {

constexpr size_t kMaxRounds = 1000;

Result<size_t> parse_rounds(const std::string& text) {
  size_t rounds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rounds);
  if (error != std::errc() || end != text.data() + text.size() || rounds == 0 || rounds > kMaxRounds) {
    return fail("--rounds wants a number from 1 to " + std::to_string(kMaxRounds) + ", not " + text);
  }
  return rounds;
}

}  // namespace

const char* const kUsage =
    "usage: certgate-bench [OPTION…]\n"
    "       certgate-bench kernel|log [--quick] [--json] [--check]\n\n"
    "Measures open, exec, connect, the start of a sandbox and one whole workload: natively, through\n"
    "the least that a notifier can do (floor, reference), and under the certgate beside this binary.\n"
    "All variants of a case are interleaved in every round; figures are medians over the rounds.\n"
    "kernel: what a decision with its record costs in the policy kernel alone, with 100 rules and\n"
    "with 10,000, in one thread. log: writing, sealing, verifying, indexing and asking a log of a million records.\n\n"
    "  --rounds N     rounds of each case (default 5)\n"
    "  --quick        small counts, for a smoke test; the figures are rough\n"
    "  --only NAME    just this case: open, exec, connect, connect-own, start, fairness,\n"
    "                 workload, git, python or compile (repeatable)\n"
    "  --json         one object a line\n"
    "  --check        exit 1 when open > 1.5 x floor, exec > 1.6 x native, or the p99 of an\n"
    "                 open beside a flood > 2 x alone; kernel: a decision > 2 us p50 or 10 us\n"
    "                 p99, > 2 x with 10,000 rules, or compiling those > 50 ms;\n"
    "                 log: verify < 500,000 records/s, reindex > 60 s, why or impact > 100 ms p95\n"
    "  --help         this text\n\n"
    "Exit status: 0 measured, 1 a bar was missed or nothing could be measured, 2 wrong usage.\n";

Result<Options> parse_options(const std::vector<std::string>& args) {
  Options options;
  for (size_t i = 0; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    if (i == 0 && args[i] == "kernel") {
      options.kernel = true;
    } else if (i == 0 && args[i] == "log") {
      options.log = true;
    } else if (name == "--rounds" || name == "--only") {
      std::string value;
      if (equals != std::string::npos) value = args[i].substr(equals + 1);
      else if (i + 1 < args.size()) value = args[++i];
      if (value.empty()) return fail(name + " needs a value; see --help");
      if (name == "--rounds") {
        CG_TRY(options.rounds, parse_rounds(value));
        continue;
      }
      const auto names = case_names();
      if (std::find(names.begin(), names.end(), value) == names.end()) {
        return fail("no such case: " + value + "; see --help");
      }
      options.only.push_back(value);
    } else if (args[i] == "--quick") {
      options.quick = true;
    } else if (args[i] == "--json") {
      options.json = true;
    } else if (args[i] == "--check") {
      options.check = true;
    } else if (args[i] == "--help" || args[i] == "-h") {
      options.help = true;
    } else {
      return fail("no such option: " + args[i] + "; see --help");
    }
  }
  if ((options.kernel || options.log) && !options.only.empty()) return fail("kernel and log have no cases; see --help");
  return options;
}

}  // namespace certgate::bench
