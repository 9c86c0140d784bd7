// certgate audit tree, diff: the shape of a run.
#include <algorithm>
#include <iostream>

#include "agentd/cli/audit_verbs.h"
#include "kernel/policy.h"

namespace certgate::agentd::cli {
namespace {

using kernel::Record;
using kernel::RecordKind;

constexpr size_t kMaxProcesses = 100'000;
constexpr size_t kShownDepth = 16;  // what lies deeper stands there too

struct Process {
  uint32_t pid = 0;
  uint64_t parent = 0;           // its pid; 0: the record does not say
  std::vector<Record> programs;  // execs, in order; refused ones too
  std::vector<uint32_t> errors;  // of each
  std::optional<Record> exit;    // the last one: pids come again
  uint64_t reads = 0, writes = 0, connects = 0, refused = 0, observed = 0;
};

struct Tree {
  Record start;
  std::optional<Record> stop;
  std::vector<Process> processes;  // in the order of their first record
};

Status add_row(Index& index, const Statement& row, Tree& tree, std::map<uint32_t, size_t>& known) {
  const auto pid = static_cast<uint32_t>(row.number(1));
  const auto [at, made] = known.try_emplace(pid, tree.processes.size());
  if (made) {
    if (known.size() > kMaxProcesses) return fail("tree: more than 100,000 processes");
    tree.processes.push_back({});
    tree.processes.back().pid = pid;
    CG_TRY(const Record first, index.record(static_cast<uint64_t>(row.number(0))));
    tree.processes.back().parent = first.parent;
  }
  Process& process = tree.processes[at->second];
  if (row.number(2) == static_cast<int64_t>(RecordKind::kExit)) {
    CG_TRY(process.exit, index.record(static_cast<uint64_t>(row.number(0))));
    return ok();
  }
  const bool refused = row.number(2) == static_cast<int64_t>(RecordKind::kRefusal);
  const int64_t verb = row.number(3) - 1;
  if (refused) ++process.refused;
  if (row.number(5) != 0) ++process.observed;
  if (verb == static_cast<int64_t>(kernel::Verb::kExec)) {
    CG_TRY(Record exec, index.record(static_cast<uint64_t>(row.number(0))));
    process.programs.push_back(std::move(exec));
    process.errors.push_back(static_cast<uint32_t>(row.number(4)));
  } else if (!refused) {
    process.reads += verb == static_cast<int64_t>(kernel::Verb::kRead) ? 1 : 0;
    process.writes += verb == static_cast<int64_t>(kernel::Verb::kWrite) ? 1 : 0;
    process.connects += verb == static_cast<int64_t>(kernel::Verb::kConnect) ? 1 : 0;
  }
  return ok();
}

Result<Tree> tree_of(Index& index, const std::string& name) {
  Tree tree;
  CG_TRY(const int64_t run, index.find_run(name));
  CG_TRY(Statement ends, index.db().prepare("SELECT first, stop FROM run WHERE id = ?1"));
  CG_CHECK(ends.bind(1, run));
  CG_TRY(const bool known_run, ends.step());
  if (known_run) {
    CG_TRY(tree.start, index.record(static_cast<uint64_t>(ends.number(0))));
  }
  if (known_run && !ends.null(1)) {
    CG_TRY(tree.stop, index.record(static_cast<uint64_t>(ends.number(1))));
  }
  CG_TRY(
      Statement rows,
      index.db().prepare(
          "SELECT r.pos, r.pid, r.kind, r.verb, (SELECT o.error FROM record o WHERE o.of = r.pos), "
          "coalesce(r.grade IN (SELECT id FROM text WHERE value = 'observed'), 0) FROM record r "
          "WHERE r.run = ?1 AND r.kind IN (2, 3, 19) AND r.pid IS NOT NULL AND (r.grade "
          "IS NULL OR r.grade NOT IN (SELECT id FROM text WHERE value = 'self-test')) ORDER BY "
          "r.seq"));
  CG_CHECK(rows.bind(1, run));
  std::map<uint32_t, size_t> known;
  for (;;) {
    CG_TRY(const bool more, rows.step());
    if (!more) return tree;
    CG_CHECK(add_row(index, rows, tree, known));
  }
}

std::string end_of(const Tree& tree) {
  if (!tree.stop) return "not ended";
  if (tree.stop->kind == RecordKind::kGap) return "cut off: its last records may be missing";
  return "exit status " + std::to_string(tree.stop->error);
}

std::string command_text(const Record& exec) {
  std::string text = escape(exec.object);
  for (size_t i = 1; i < exec.argv.size(); ++i) text += ' ' + escape(exec.argv[i]);
  return text;
}

struct Place {
  size_t process = 0, depth = 0;
};

// Each process below its parent, both in the order of their first call. One whose parent made no
// call stands at the top.
std::vector<Place> places_of(const Tree& tree) {
  std::map<uint64_t, size_t> known;
  for (size_t i = 0; i < tree.processes.size(); ++i) known.emplace(tree.processes[i].pid, i);
  std::vector<std::vector<size_t>> children(tree.processes.size());
  std::vector<Place> stack, out;
  for (size_t i = tree.processes.size(); i-- > 0;) {
    const auto parent = known.find(tree.processes[i].parent);
    // A pid that came again could be its own ancestor: only who was there before is a parent.
    if (parent == known.end() || parent->second >= i) {
      stack.push_back({i, 0});
    } else {
      children[parent->second].push_back(i);
    }
  }
  while (!stack.empty()) {
    const Place at = stack.back();
    stack.pop_back();
    out.push_back(at);
    for (const size_t child : children[at.process]) stack.push_back({child, at.depth + 1});
  }
  return out;
}

void print_tree(const Tree& tree, Screen& screen) {
  screen.line(screen.colour(1, "agent " + escape(tree.start.run)) + ": " +
              escape(tree.start.object) + " (" + end_of(tree) + ")");
  for (const Place& place : places_of(tree)) {
    const Process& process = tree.processes[place.process];
    std::string indent;
    for (size_t i = 0; i < std::min(place.depth, kShownDepth); ++i) indent += "│  ";
    std::string did;
    for (const auto& [count, what] : {std::pair{process.reads, " reads"},
                                      {process.writes, " writes"},
                                      {process.connects, " connects"},
                                      {process.observed, " observed"},
                                      {process.refused, " refused"}}) {
      if (count > 0) did += (did.empty() ? "" : ", ") + std::to_string(count) + what;
    }
    std::string end;
    if (process.exit) end = "; ended, " + agentd::end_text(process_end(*process.exit));
    screen.line(indent + "├─ pid " + std::to_string(process.pid) + (did.empty() ? "" : ": " + did) +
                end);
    for (size_t i = 0; i < process.programs.size(); ++i) {
      const Record& exec = process.programs[i];
      std::string line = indent + "│  exec " + escape(exec.id()) + "  " + command_text(exec);
      const bool refused = exec.kind == RecordKind::kRefusal;
      if (refused) line += "  REFUSED " + escape(exec.reason);
      if (is_observed(exec)) line += "  WOULD BE REFUSED " + escape(exec.reason);
      if (process.errors[i] != 0) line += "  errno " + std::to_string(process.errors[i]);
      screen.line(refused ? screen.colour(31, line) : line);
    }
  }
  screen.line(screen.colour(2,
                            "processes stand below their parents, in the order of their first "
                            "call; forks have no record, "
                            "nor has the exit of a process that never made an exec"));
}

void print_tree_json(const Tree& tree, Screen& screen) {
  std::vector<JsonObject> processes;
  for (const Process& process : tree.processes) {
    std::vector<JsonObject> programs;
    for (size_t i = 0; i < process.programs.size(); ++i)
      programs.push_back(
          record_json(process.programs[i], process.errors[i] + process.programs[i].error)
              .list("argv", process.programs[i].argv));
    JsonObject one;
    one.number("pid", process.pid).number("parent", process.parent);
    one.objects("programs", programs).number("reads", process.reads);
    one.number("writes", process.writes)
        .number("connects", process.connects)
        .number("observed", process.observed)
        .number("refused", process.refused);
    if (process.exit) one.object("exit", record_json(*process.exit, 0));
    processes.push_back(one);
  }
  JsonObject object;
  object.text("agent", tree.start.run).text("command", tree.start.object).text("end", end_of(tree));
  screen.out() << object.objects("processes", processes)
                      .list("missing", {"forks", "exits of processes that made no exec"})
                      .str()
               << '\n';
}

// What one run did and another did not: each kind of deed once, however often.
constexpr const char* kOnly =
    "SELECT kind, verb, object, reason FROM record WHERE run = ?1 AND kind IN (2, 3) AND (grade IS "
    "NULL OR grade NOT "
    "IN (SELECT id FROM text WHERE value = 'self-test')) EXCEPT SELECT kind, verb, object, reason "
    "FROM record WHERE "
    "run = ?2";

Result<std::vector<Record>> only_in(Index& index, int64_t run, int64_t other) {
  CG_TRY(Statement rows,
         index.db().prepare(
             std::string("SELECT min(r.pos) FROM record r JOIN (") + kOnly +
             ") d ON r.run = ?1 AND r.kind = d.kind AND r.verb IS d.verb AND r.object IS "
             "d.object AND r.reason IS d.reason GROUP BY d.kind, d.verb, d.object, "
             "d.reason ORDER BY min(r.pos)"));
  CG_CHECK(rows.bind(1, run));
  CG_CHECK(rows.bind(2, other));
  std::vector<Record> all;
  for (;;) {
    CG_TRY(const bool more, rows.step());
    if (!more) return all;
    CG_TRY(Record record, index.record(static_cast<uint64_t>(rows.number(0))));
    all.push_back(std::move(record));
  }
}

std::string deed(const Record& r) {
  const char* const verb =
      r.verb == 0 ? "" : kernel::verb_text(static_cast<kernel::Verb>(r.verb - 1));
  const char* const how = r.kind == RecordKind::kRefusal ? "refused "
                          : is_observed(r)               ? "observed "
                                                         : "";
  return std::string(how) + verb + ' ' + escape(r.object) +
         (r.reason.empty() ? "" : "  " + escape(r.reason)) + "  (" + escape(r.id()) + ')';
}

}  // namespace

int audit_tree(const Options& options) {
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  const Result<Tree> tree = tree_of(*index, options.args[0]);
  if (!tree) return trouble(tree.error());
  Screen screen(options, &*index);
  if (options.format == Format::kJson)
    print_tree_json(*tree, screen);
  else
    print_tree(*tree, screen);
  return screen.done(0);
}

int audit_diff(const Options& options) {
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  auto both = [&]() -> Result<std::pair<std::vector<Record>, std::vector<Record>>> {
    CG_TRY(const int64_t first, index->find_run(options.args[0]));
    CG_TRY(const int64_t second, index->find_run(options.args[1]));
    CG_TRY(std::vector<Record> minus, only_in(*index, first, second));
    CG_TRY(std::vector<Record> plus, only_in(*index, second, first));
    return std::pair(std::move(minus), std::move(plus));
  }();
  if (!both) return trouble(both.error());
  Screen screen(options, &*index);
  const int status = both->first.empty() && both->second.empty() ? 0 : kExitNo;
  if (options.format == Format::kJson) {
    JsonObject object;
    for (const auto& [name, records] :
         {std::pair{"first_only", &both->first}, {"second_only", &both->second}}) {
      std::vector<JsonObject> deeds;
      for (const Record& r : *records) deeds.push_back(record_json(r, r.error));
      object.objects(name, deeds);
    }
    screen.out() << object.str() << '\n';
    return screen.done(status);
  }
  for (const Record& r : both->first) screen.line(screen.colour(31, "- " + deed(r)));
  for (const Record& r : both->second) screen.line(screen.colour(32, "+ " + deed(r)));
  if (status == 0) screen.line("both did the same");
  return screen.done(status);
}

}  // namespace certgate::agentd::cli
