#include "bench/cases.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>
#include <utility>

namespace certgate::bench {
namespace {

using Words = std::vector<std::string>;

constexpr const char* kNeedle = "certgate-bench-needle";
constexpr const char* kGrepFoundNothing = "1";

Words operator+(Words left, const Words& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream dirs(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string dir; std::getline(dirs, dir, ':');) {
    const std::string candidate = dir + "/" + name;
    if (!dir.empty() && dir[0] == '/' && ::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return {};
}

// The inner loop with its counts: a tenth of the operations, at least one, is warm-up.
Words inner(const Scene& scene, const std::string& verb, size_t operations) {
  return {scene.inner_program, "--inner", verb, std::to_string(operations), std::to_string(operations / 10 + 1)};
}

Words certgate_run(const Scene& scene) {
  return {scene.certgate, "run", "--policy", scene.policy, "--workspace", scene.workspace, "--state", scene.state, "--"};
}

Words bubblewrap(const std::string& program, const Scene& scene) {
  return {program, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
          "--tmpfs", "/tmp", "--bind", scene.workspace, scene.workspace, "--"};
}

std::string certgate_missing(const Scene& scene) {
  if (::access(scene.certgate.c_str(), X_OK) == 0) return {};
  return "there is no certgate beside this binary (" + scene.certgate + "); build it";
}

std::string not_installed(const std::string& found, const std::string& name) {
  return found.empty() ? name + " is not installed" : std::string();
}

// The variants that every case with an inner loop has.
Case common(const Scene& scene, std::string name, std::string what, size_t operations, const Words& loop, Trap floor) {
  Case c{std::move(name), std::move(what), true, operations, {}};
  c.variants.push_back({"native", {loop, Trap::kNone, false}, {}});
  c.variants.push_back({"native-pinned", {loop, Trap::kNone, true}, {}});
  c.variants.push_back({"floor", {loop, floor, true}, {}});
  if (floor == Trap::kOpen) c.variants.push_back({"reference", {loop, Trap::kOpenReference, true}, {}});
  const Words gated = certgate_run(scene) + loop;
  const std::string missing = certgate_missing(scene);
  c.variants.push_back({"certgate", {gated, Trap::kNone, false}, missing});
  c.variants.push_back({"certgate-pinned", {gated, Trap::kNone, true}, missing});
  return c;
}

Case open_case(const Scene& scene, size_t operations) {
  const Words loop = inner(scene, "open", operations) + Words{scene.small_file};
  Case c = common(scene, "open", "open and close of a small file", operations, loop, Trap::kOpen);
  const std::string bwrap = find_program("bwrap");
  c.variants.push_back({"bubblewrap", {bubblewrap(bwrap, scene) + loop, Trap::kNone, false},
                        not_installed(bwrap, "bubblewrap")});
  const std::string strace = find_program("strace");
  const Words traced{strace, "--seccomp-bpf", "-f", "-qq", "-e", "trace=openat", "-o", "/dev/null"};
  c.variants.push_back({"strace", {traced + loop, Trap::kNone, false}, not_installed(strace, "strace")});
  return c;
}

Case exec_case(const Scene& scene, size_t operations) {
  const Words loop = inner(scene, "spawn", operations) + Words{"0", "/bin/true"};
  return common(scene, "exec", "posix_spawn of /bin/true and wait", operations, loop, Trap::kExec);
}

Case connect_case(const Scene& scene, size_t operations) {
  const Words loop = inner(scene, "connect", operations) + Words{std::to_string(scene.host.port())};
  return common(scene, "connect", "socket, connect to host loopback, close", operations, loop, Trap::kConnect);
}

Case connect_own_case(const Scene& scene, size_t operations) {
  const Words loop = inner(scene, "connect-own", operations);
  return common(scene, "connect-own", "the same to a listener of the agent's own", operations, loop, Trap::kConnect);
}

// A second agent's opens while a first one floods with 64 threads. How much of it is the machine's
// two CPUs and not ours is told by the same flood without certgate.
Case fairness_case(const Scene& scene, size_t operations) {
  const Words loop = inner(scene, "open", operations) + Words{scene.small_file};
  const Words flood{scene.inner_program, "--inner", "flood", "64", "0", scene.small_file};
  const Words gated = certgate_run(scene) + loop, gated_flood = certgate_run(scene) + flood;
  Case c{"fairness", "opens of one agent beside 64 threads that open", true, operations, {}};
  const std::string missing = certgate_missing(scene);
  c.variants.push_back({"native", {loop, Trap::kNone, false}, {}});
  c.variants.push_back({"native+native", {loop, Trap::kNone, false, flood}, {}, "native"});
  c.variants.push_back({"native+certgate", {loop, Trap::kNone, false, gated_flood}, missing, "native"});
  c.variants.push_back({"certgate", {gated, Trap::kNone, false}, missing});
  c.variants.push_back({"certgate+native", {gated, Trap::kNone, false, flood}, missing, "certgate"});
  c.variants.push_back({"certgate+certgate", {gated, Trap::kNone, false, gated_flood}, missing, "certgate"});
  return c;
}

Case start_case(const Scene& scene, size_t operations) {
  const Words loop = inner(scene, "spawn", operations) + Words{"0"};
  const Words program{"/bin/true"};
  Case c{"start", "a whole sandbox around /bin/true", false, operations, {}};
  c.variants.push_back({"native", {loop + program, Trap::kNone, false}, {}});
  c.variants.push_back({"certgate", {loop + certgate_run(scene) + program, Trap::kNone, false}, certgate_missing(scene)});
  const std::string bwrap = find_program("bwrap");
  c.variants.push_back({"bubblewrap", {loop + bubblewrap(bwrap, scene) + program, Trap::kNone, false},
                        not_installed(bwrap, "bubblewrap")});
  return c;
}

Case workload_case(const Scene& scene, size_t operations) {
  const std::string grep = find_program("grep");
  const Words loop = inner(scene, "spawn", operations) +
                     Words{kGrepFoundNothing, grep, "-r", kNeedle, scene.tree};
  Case c = common(scene, "workload", "grep -r over " + scene.tree_note, operations, loop, Trap::kOpen);
  c.tail = false;
  for (Variant& v : c.variants) {
    if (grep.empty()) v.missing = "grep is not installed";
  }
  return c;
}

// What people's agents do all day. Each runs in a directory of its own in the workspace.
struct Program {
  const char* name;
  const char* needs;
  const char* what;
  const char* script;
};
constexpr Program kGit = {
    "git", "git", "git init, add, commit and log of 100 files",
    "git init -q . && i=0; while [ $i -lt 100 ]; do echo $i >f$i; i=$((i+1)); done; git add . && "
    "git -c user.name=a -c user.email=a@b commit -qm x && git log --stat >/dev/null && git status >/dev/null"};
constexpr Program kPython = {
    "python", "python3", "python3 importing asyncio, json, http.client and sqlite3",
    "python3 -c 'import asyncio, json, http.client, sqlite3, subprocess'"};
constexpr Program kCompile = {
    "compile", "g++", "g++ -O1 of a small C++ file with <iostream>, <map> and <string>",
    "printf '#include <iostream>\\n#include <map>\\n#include <string>\\nint main(){std::map<std::string,int> m;"
    "std::cout<<m.size();}\\n' >a.cc && g++ -O1 -o a a.cc && ./a >/dev/null"};

Case program_case(const Scene& scene, const Program& program, size_t operations) {
  const std::string script = std::string("PATH=/usr/bin:/bin; export PATH; d=\"$0/work.$$\"; mkdir \"$d\" && cd \"$d\" && { ") + program.script +
                             "; }; s=$?; cd / && rm -rf \"$d\"; exit $s";
  const Words loop = inner(scene, "spawn", operations) + Words{"0", "/bin/sh", "-c", script, scene.workspace};
  Case c{program.name, program.what, false, operations, {}};
  const std::string missing = not_installed(find_program(program.needs), program.needs);
  const Words gated = certgate_run(scene) + loop;
  c.variants.push_back({"native", {loop, Trap::kNone, false}, missing});
  c.variants.push_back({"native-pinned", {loop, Trap::kNone, true}, missing});
  const std::string ours = missing.empty() ? certgate_missing(scene) : missing;
  c.variants.push_back({"certgate", {gated, Trap::kNone, false}, ours});
  c.variants.push_back({"certgate-pinned", {gated, Trap::kNone, true}, ours});
  return c;
}

struct CaseRow {
  const char* name;
  Case (*make)(const Scene&, size_t);
  size_t operations, quick_operations;
};
constexpr CaseRow kCases[] = {
    {"open", open_case, 10'000, 2'000},      {"exec", exec_case, 100, 20},
    {"connect", connect_case, 500, 100},     {"connect-own", connect_own_case, 500, 100},
    {"fairness", fairness_case, 5'000, 500}, {"start", start_case, 5, 1},             {"workload", workload_case, 2, 1},
    {"git", [](const Scene& s, size_t n) { return program_case(s, kGit, n); }, 3, 1},
    {"python", [](const Scene& s, size_t n) { return program_case(s, kPython, n); }, 5, 1},
    {"compile", [](const Scene& s, size_t n) { return program_case(s, kCompile, n); }, 2, 1},
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// What the rounds of one variant gave so far.
struct Series {
  std::vector<double> medians, p99s, means;
  bool same_cpu = true;
  std::string failure;

  void add(const Sample& s) {
    medians.push_back(s.timing.median_ns / 1000);
    p99s.push_back(s.timing.p99_ns / 1000);
    means.push_back(s.timing.mean_ns / 1000);
    same_cpu = same_cpu && s.same_cpu;
  }
};

Row make_row(const Case& c, const Variant& v, const Series& s, std::optional<int> cpu) {
  Row row;
  row.name = c.name;
  row.variant = v.name;
  if (v.job.pinned) row.cpu = cpu;
  row.skipped = s.failure;
  if (!s.failure.empty()) return row;
  row.rounds = s.medians.size();
  row.median_us = median(s.medians);
  row.mean_us = median(s.means);
  if (c.tail) row.p99_us = median(s.p99s);
  if (!s.same_cpu) row.note = "this kernel has no SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (Linux 6.6): a slower floor";
  return row;
}

// Round by round: a busy moment of the machine is in both.
std::optional<double> ratio_alone(const Case& c, const std::vector<Series>& series, size_t i) {
  for (size_t j = 0; j < c.variants.size(); ++j) {
    if (c.variants[j].name != c.variants[i].alone) continue;
    const std::vector<double>&with = series[i].p99s, &without = series[j].p99s;
    std::vector<double> ratios;
    for (size_t round = 0; round < std::min(with.size(), without.size()); ++round) {
      if (without[round] > 0) ratios.push_back(with[round] / without[round]);
    }
    if (!ratios.empty()) return median(ratios);
  }
  return std::nullopt;
}

void add_ratios(std::vector<Row>& rows) {
  std::map<std::string, double> by_variant;
  for (const Row& row : rows) {
    if (row.skipped.empty()) by_variant[row.variant] = row.median_us;
  }
  const auto ratio = [&](const Row& row, const std::string& variant) -> std::optional<double> {
    const auto found = by_variant.find(variant);
    if (found == by_variant.end() || found->second <= 0) return std::nullopt;
    return row.median_us / found->second;
  };
  for (Row& row : rows) {
    if (!row.skipped.empty()) continue;
    row.ratio_native = ratio(row, row.cpu ? "native-pinned" : "native");
    row.ratio_floor = ratio(row, "floor");
    row.ratio_reference = ratio(row, "reference");
  }
}

}  // namespace

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const CaseRow& row : kCases) names.emplace_back(row.name);
  return names;
}

std::vector<Case> make_cases(const Scene& scene, bool quick) {
  std::vector<Case> cases;
  for (const CaseRow& row : kCases) cases.push_back(row.make(scene, quick ? row.quick_operations : row.operations));
  return cases;
}

std::vector<Row> measure(const Case& c, size_t rounds, const Scene& scene) {
  std::vector<Series> series(c.variants.size());
  for (size_t i = 0; i < c.variants.size(); ++i) series[i].failure = c.variants[i].missing;
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t step = 0; step < c.variants.size(); ++step) {
      const size_t i = (round + step) % c.variants.size();
      if (interrupted()) return {};
      if (!series[i].failure.empty()) continue;
      const auto sample = run_job(c.variants[i].job, scene);
      if (sample) series[i].add(*sample);
      else series[i].failure = sample.error().what;
    }
  }
  const auto cpu = pinned_cpu();
  std::vector<Row> rows;
  for (size_t i = 0; i < c.variants.size(); ++i) {
    rows.push_back(make_row(c, c.variants[i], series[i], cpu ? std::optional<int>(*cpu) : std::nullopt));
    if (!series[i].failure.empty()) continue;
    rows.back().ratio_alone = ratio_alone(c, series, i);
  }
  add_ratios(rows);
  return rows;
}

}  // namespace certgate::bench
