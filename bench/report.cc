#include "bench/report.h"

#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>

namespace certgate::bench {
namespace {

std::string cell(const std::optional<double>& value, int decimals) {
  return value ? fmt::format("{:.{}f}", *value, decimals) : "-";
}

std::string ratio_cell(const std::optional<double>& value) {
  return value ? fmt::format("{:.2f}x", *value) : "-";
}

std::string json_number(const std::optional<double>& value) {
  return value ? fmt::format("{:.3f}", *value) : "null";
}

std::string json_text(const std::string& text) {
  if (text.empty()) return "null";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7f) out += fmt::format("\\u{:04x}", byte);
    else out += c;
  }
  return out + "\"";
}

struct Bar {
  const char* name;                              // of the case
  const char* variant;                           // the row that is judged
  const char* against;                           // the variant it is compared with
  std::optional<double> Row::* ratio;
  double limit;
};
// First light. The floor has both sides on one CPU, so what it is compared with has too; the rows that
// go where the kernel puts them are printed beside, and vary with where that is.
constexpr Bar kBars[] = {
    {"open", "certgate-pinned", "floor", &Row::ratio_floor, 1.5},
    {"exec", "certgate-pinned", "native-pinned", &Row::ratio_native, 1.6},
    {"fairness", "certgate+certgate", "itself alone, by p99", &Row::ratio_alone, 2.0},
};

}  // namespace

std::string heading(size_t rounds, const Scene& scene) {
  utsname kernel{};
  ::uname(&kernel);
  const auto cpu = pinned_cpu();
  return fmt::format(
      "certgate-bench: Linux {}, {} CPUs, medians of {} rounds, all variants of a case in each round.\n"
      "native-pinned, floor, reference and certgate-pinned have all their processes on CPU {};\n"
      "native, certgate, bubblewrap and strace go where the kernel puts them. xnative compares pinned with\n"
      "native-pinned and the rest with native. Files and sandbox live in {}.\n",
      kernel.release, ::sysconf(_SC_NPROCESSORS_ONLN), rounds, cpu ? std::to_string(*cpu) : "?", scene.dir.path());
}

std::string table(const Case& c, const std::vector<Row>& rows) {
  std::string out = fmt::format("\n{}: {}, {} times a round\n", c.name, c.what, c.operations);
  out += fmt::format("  {:<16}{:>12}{:>12}{:>12}{:>10}{:>10}{:>12}\n", "variant", "median us", "mean us", "p99 us",
                     "xnative", "xfloor", "xreference");
  for (const Row& row : rows) {
    if (!row.skipped.empty()) {
      out += fmt::format("  {:<16}skipped: {}\n", row.variant, row.skipped);
      continue;
    }
    const int decimals = row.median_us < 1000 ? 2 : 0;
    out += fmt::format("  {:<16}{:>12}{:>12}{:>12}{:>10}{:>10}{:>12}\n", row.variant, cell(row.median_us, decimals),
                       cell(row.mean_us, decimals), cell(row.p99_us, decimals), ratio_cell(row.ratio_native),
                       ratio_cell(row.ratio_floor), ratio_cell(row.ratio_reference));
    if (row.ratio_alone) out += fmt::format("    p99 is {:.2f} x that of {} alone\n", *row.ratio_alone, row.variant.substr(0, row.variant.find('+')));
    if (!row.note.empty()) out += fmt::format("    {}\n", row.note);
  }
  return out;
}

std::string json_lines(const std::vector<Row>& rows) {
  std::string out;
  for (const Row& row : rows) {
    const bool measured = row.skipped.empty();
    const auto figure = [measured](double value) { return measured ? std::optional<double>(value) : std::nullopt; };
    out += fmt::format(
        R"({{"name":{},"variant":{},"median_us":{},"p99_us":{},"mean_us":{},"ratio_native":{},"ratio_floor":{},)"
        R"("ratio_reference":{},"rounds":{},"pinned_cpu":{},"skipped":{},"note":{},"ratio_alone":{}}})"
        "\n",
        json_text(row.name), json_text(row.variant), json_number(figure(row.median_us)), json_number(row.p99_us),
        json_number(figure(row.mean_us)), json_number(row.ratio_native), json_number(row.ratio_floor),
        json_number(row.ratio_reference), row.rounds, row.cpu ? std::to_string(*row.cpu) : "null",
        json_text(row.skipped), json_text(row.note), json_number(row.ratio_alone));
  }
  return out;
}

Verdict check_bars(const std::vector<Row>& rows) {
  Verdict verdict;
  for (const Bar& bar : kBars) {
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& row) {
      return row.name == bar.name && row.variant == bar.variant;
    });
    if (found == rows.end()) continue;   // not asked for
    const std::optional<double> ratio = (*found).*bar.ratio;
    if (!ratio) {
      const std::string why = found->skipped.empty() ? fmt::format("{} was not measured", bar.against) : found->skipped;
      verdict.text += fmt::format("check: {} MISSED: {}\n", bar.name, why);
      verdict.passed = false;
      continue;
    }
    const bool good = *ratio <= bar.limit;
    verdict.text += fmt::format("check: {} {}: {} {:.2f} us is {:.2f} x {} (bar {:.1f})\n", bar.name,
                                good ? "ok" : "MISSED", bar.variant, found->median_us, *ratio, bar.against, bar.limit);
    verdict.passed = verdict.passed && good;
  }
  return verdict;
}

}  // namespace certgate::bench
