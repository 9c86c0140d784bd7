// certgate audit list, tail, reads, runs, timeline: what happened, in order.
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "agentd/blob_store.h"
#include "agentd/cli/audit_verbs.h"

namespace certgate::agentd::cli {
namespace {

using kernel::Record;
using kernel::RecordKind;

constexpr uint64_t kMaxRows = uint64_t{1} << 40;
constexpr uint64_t kTailRows = 20;

struct Row {
  uint64_t pos = 0;
  std::optional<uint64_t> outcome;
};

// The rows of a condition in the order of the log; of a limit the first ones, or the last.
Result<Statement> select(Index& index, const Condition& where, uint64_t limit, bool last,
                         int64_t after) {
  std::string sql =
      "SELECT r.pos, (SELECT o.pos FROM record o WHERE o.of = r.pos) FROM record r WHERE " +
      where.sql + " AND r.pos > ? ORDER BY r.pos" + (last ? " DESC" : "") + " LIMIT ?";
  if (last) sql = "SELECT * FROM (" + sql + ") ORDER BY 1";
  CG_TRY(Statement rows, index.db().prepare(sql));
  CG_CHECK(where.bind(rows, 1));
  const int next = static_cast<int>(where.values.size()) + 1;
  CG_CHECK(rows.bind(next, after));
  CG_CHECK(rows.bind(next + 1, static_cast<int64_t>(limit)));
  return rows;
}

struct Shown {
  Record record;
  uint32_t error = 0;  // of its outcome, when it has one
};

// From the log, not from the index.
Result<Shown> evidence(Index& index, const Row& row) {
  Shown shown;
  CG_TRY(shown.record, index.record(row.pos));
  if (!shown.record.blobs.empty()) {
    BlobStore blobs(index.log().snapshot().dir());
    CG_TRY(shown.record, blobs.shown(std::move(shown.record)));
  }
  shown.error = shown.record.error;
  if (!row.outcome) return shown;
  CG_TRY(const Record outcome, index.record(*row.outcome));
  shown.error = outcome.error;
  return shown;
}

std::string coloured(const Screen& screen, const Record& record, const std::string& line) {
  if (record.kind == RecordKind::kRefusal) return screen.colour(31, line);
  if (record.kind == RecordKind::kGap || is_observed(record)) return screen.colour(33, line);
  const bool faint = record.kind == RecordKind::kOutcome || record.kind == RecordKind::kExit;
  return faint ? screen.colour(2, line) : line;
}

struct Listing {
  uint64_t limit = kMaxRows;
  bool last = false;
  int64_t after = -1;  // position
};

Result<int64_t> print_rows(Index& index, const Options& options, const Listing& listing,
                           Screen& screen) {
  CG_TRY(Condition where, filters(options, index, Exits::kHidden));
  // Positions of records that are not sealed yet still change: who follows sees them a second
  // later.
  if (options.has("follow")) where.add({"r.pos < ?", {static_cast<int64_t>(index.sealed())}});
  CG_TRY(Statement rows, select(index, where, listing.limit, listing.last, listing.after));
  int64_t newest = listing.after;
  for (;;) {
    CG_TRY(const bool more, rows.step());
    if (!more) return newest;
    Row row{static_cast<uint64_t>(rows.number(0)), std::nullopt};
    if (!rows.null(1)) row.outcome = static_cast<uint64_t>(rows.number(1));
    CG_TRY(const Shown shown, evidence(index, row));
    if (options.format == Format::kJson) {
      screen.out() << record_json(shown.record, shown.error).str() << '\n';
    } else {
      screen.line(coloured(screen, shown.record, record_text(shown.record, shown.error)));
    }
    if (!screen.out()) return newest;
    newest = static_cast<int64_t>(row.pos);
  }
}

Result<Listing> listing_of(const Options& options, uint64_t last_by_default) {
  Listing listing;
  if (options.has("limit") && options.has("last"))
    return fail("--limit and --last exclude each other");
  CG_TRY(listing.limit, count_option(options, "limit", kMaxRows, kMaxRows));
  listing.last = options.has("last") || (last_by_default > 0 && !options.has("limit"));
  if (listing.last) {
    CG_TRY(listing.limit,
           count_option(options, "last", last_by_default > 0 ? last_by_default : 1, kMaxRows));
  }
  return listing;
}

int list_with(const Options& options, uint64_t last_by_default) {
  Result<Listing> listing = listing_of(options, last_by_default);
  if (!listing) return trouble(listing.error());
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  Screen screen(options, &*index);
  const Result<int64_t> newest = print_rows(*index, options, *listing, screen);
  if (!newest) return trouble(newest.error());
  return screen.done(0);
}

}  // namespace

int audit_list(const Options& options) { return list_with(options, 0); }

int audit_tail(const Options& options) {
  if (!options.has("follow")) return list_with(options, kTailRows);
  Result<Listing> listing = listing_of(options, kTailRows);
  if (!listing) return trouble(listing.error());
  record_reading(options);
  Screen screen(options);
  for (bool first = true;; first = false) {
    Result<Index> index = open_index(options, Reading::kNotEvidence);
    if (!index) return trouble(index.error());
    const Result<int64_t> newest = print_rows(*index, options, *listing, screen);
    if (!newest) return trouble(newest.error());
    if (!screen.out().flush()) return trouble(fail("the output was closed"));
    listing->after = std::max(*newest, listing->after);
    if (first && listing->after < 0) listing->after = static_cast<int64_t>(index->sealed()) - 1;
    listing->limit = kMaxRows;
    listing->last = false;
    const timespec pause{0, 500'000'000};
    ::nanosleep(&pause, nullptr);
  }
}

int audit_reads(const Options& given) {
  Options options = given;
  options.flags.insert("all");
  options.values["kind"] = {"audit-read"};
  Result<Listing> listing = listing_of(options, 0);
  if (!listing) return trouble(listing.error());
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  Screen screen(options, &*index);
  auto print = [&]() -> Status {
    CG_TRY(const Condition where, filters(options, *index));
    CG_TRY(Statement rows, select(*index, where, listing->limit, listing->last, -1));
    for (;;) {
      CG_TRY(const bool more, rows.step());
      if (!more) return ok();
      CG_TRY(const Record read, index->record(static_cast<uint64_t>(rows.number(0))));
      CG_TRY(const uint64_t start, index->find(read.run + "-1"));
      CG_TRY(const Record what, index->record(start));
      if (options.format == Format::kJson) {
        JsonObject line;
        line.text("id", read.id()).text("time", rfc3339(read.wall_ns)).text("who", read.object);
        screen.out() << line.number("pid", read.pid).text("what", what.object).str() << '\n';
      } else {
        screen.line(rfc3339(read.wall_ns) + "  " + escape(read.object) + "  pid " +
                    std::to_string(read.pid) + "  " + escape(what.object));
      }
    }
  };
  const Status done = print();
  return done ? screen.done(0) : trouble(done.error());
}

namespace {

constexpr const char* kRuns =
    "SELECT run.name, run.first, run.stop, count(r.pos), sum(r.kind = 2), sum(r.kind = 3 AND "
    "(r.grade IS NULL OR "
    "r.grade NOT IN (SELECT id FROM text WHERE value = 'self-test'))), run.id, coalesce(sum(r.kind "
    "= 2 AND r.grade IN (SELECT id FROM text WHERE value = 'observed')), 0) FROM run JOIN record "
    "r ON r.run = "
    "run.id WHERE (NOT run.reading OR ?1) GROUP BY run.id ORDER BY run.first";

struct RunLine {
  Record first;
  std::optional<Record> stop;
  std::string label;
  int64_t records = 0, allowed = 0, refused = 0, observed = 0;
};

Result<std::string> last_label(Index& index, int64_t run, const Record& first) {
  CG_TRY(Statement find,
         index.db().prepare("SELECT pos FROM record WHERE run = ?1 AND raised IS NOT NULL "
                            "ORDER BY pos DESC LIMIT 1"));
  CG_CHECK(find.bind(1, run));
  CG_TRY(const bool row, find.step());
  if (!row) return first.origins;
  CG_TRY(const Record raise, index.record(static_cast<uint64_t>(find.number(0))));
  return raise.raised;
}

std::string end_text(const RunLine& run) {
  if (!run.stop) return "not ended";
  if (run.stop->kind == RecordKind::kGap) return "cut off";
  return "exit " + std::to_string(run.stop->error);
}

void print_run(const RunLine& run, const Options& options, Screen& screen) {
  if (options.format == Format::kJson) {
    JsonObject line;
    line.text("agent", run.first.run).text("time", rfc3339(run.first.wall_ns));
    line.text("command", run.first.kind == RecordKind::kStart ? run.first.object : "");
    line.number("records", static_cast<uint64_t>(run.records))
        .number("allowed", static_cast<uint64_t>(run.allowed));
    line.number("observed", static_cast<uint64_t>(run.observed));
    line.number("refused", static_cast<uint64_t>(run.refused)).text("label", run.label);
    screen.out() << line.text("end", end_text(run)).str() << '\n';
    return;
  }
  const std::string refused = std::to_string(run.refused) + " refused";
  screen.line(rfc3339(run.first.wall_ns) + "  " + screen.colour(1, escape(run.first.run)) + "  " +
              std::to_string(run.allowed) + " allowed, " +
              (run.observed > 0
                   ? screen.colour(33, std::to_string(run.observed) + " observed") + ", "
                   : "") +
              (run.refused > 0 ? screen.colour(31, refused) : refused) + ", " + end_text(run) +
              "  label " + escape(run.label) + "  " + escape(run.first.object));
}

}  // namespace

int audit_runs(const Options& options) {
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  Screen screen(options, &*index);
  auto print = [&]() -> Status {
    CG_TRY(Statement rows, index->db().prepare(kRuns));
    CG_CHECK(rows.bind(1, int64_t{options.has("all")}));
    for (;;) {
      CG_TRY(const bool more, rows.step());
      if (!more) return ok();
      RunLine run;
      CG_TRY(run.first, index->record(static_cast<uint64_t>(rows.number(1))));
      if (!rows.null(2)) {
        CG_TRY(run.stop, index->record(static_cast<uint64_t>(rows.number(2))));
      }
      run.records = rows.number(3), run.refused = rows.number(5), run.observed = rows.number(7);
      run.allowed = rows.number(4) - run.observed;
      CG_TRY(run.label, last_label(*index, rows.number(6), run.first));
      print_run(run, options, screen);
    }
  };
  const Status done = print();
  return done ? screen.done(0) : trouble(done.error());
}

namespace {

bool is_notable(const Record& r) {
  const auto verb = r.verb == 0 ? 0 : r.verb - 1;
  const bool read = verb == static_cast<int>(kernel::Verb::kRead);
  return r.kind != RecordKind::kCertificate || !read || r.verb == 0 || !r.raised.empty() ||
         is_observed(r);
}

std::string since_start(int64_t ns) {
  char text[32];
  std::snprintf(text, sizeof text, "%+12.6f s", static_cast<double>(ns) / 1e9);
  return text;
}

std::string timeline_text(const Record& r, uint32_t error) {
  std::string line =
      r.kind == RecordKind::kCertificate ? "" : std::string(record_kind_text(r.kind)) + " ";
  if (r.kind == RecordKind::kRefusal) line = "REFUSED ";
  if (is_observed(r)) line = "WOULD BE REFUSED ";
  if (r.kind == RecordKind::kExit)
    return "exit of pid " + std::to_string(r.pid) + " (exec " + r.run + '-' +
           std::to_string(r.exec) + "): " + end_text(process_end(r));
  const std::string& object = r.kind == RecordKind::kToken ? r.token : r.object;
  line += escape(r.call) + (r.call.empty() ? "" : " ") + escape(object);
  for (size_t i = 1; i < r.argv.size(); ++i) line += ' ' + escape(r.argv[i]);
  if (!r.raised.empty()) line += "  → label " + escape(r.raised);
  if (!r.reason.empty())
    line += "  " + escape(r.reason) + (r.culprit.empty() ? "" : " " + escape(r.culprit));
  if (r.kind == RecordKind::kStop) line += "exit " + std::to_string(r.error);
  if (r.kind == RecordKind::kCertificate && error != 0) line += "  errno " + std::to_string(error);
  return line;
}

}  // namespace

int audit_timeline(const Options& given) {
  Options options = given;
  if (!given.args.empty()) options.values["agent"] = {given.args[0]};
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  Screen screen(options, &*index);
  auto print = [&]() -> Status {
    CG_TRY(Listing listing, listing_of(options, 0));
    CG_TRY(const Condition where, filters(options, *index));
    Condition shown = where;
    shown.add({"r.kind != 4", {}});  // outcomes stand at their certificates
    CG_TRY(Statement rows, select(*index, shown, listing.limit, listing.last, -1));
    std::optional<int64_t> start;
    uint64_t reads = 0;
    auto flush = [&] {
      if (reads > 0 && options.format == Format::kText)
        screen.line(screen.colour(2, "               … " + std::to_string(reads) + " reads"));
      reads = 0;
    };
    for (;;) {
      CG_TRY(const bool more, rows.step());
      if (!more) break;
      Row row{static_cast<uint64_t>(rows.number(0)), std::nullopt};
      if (!rows.null(1)) row.outcome = static_cast<uint64_t>(rows.number(1));
      CG_TRY(const Shown step, evidence(*index, row));
      if (!start) start = step.record.wall_ns;
      if (options.format == Format::kJson) {
        screen.out() << record_json(step.record, step.error).str() << '\n';
        continue;
      }
      if (!is_notable(step.record) && !options.has("all")) {
        ++reads;
        continue;
      }
      flush();
      screen.line(since_start(step.record.wall_ns - *start) + "  " + escape(step.record.id()) +
                  "  " + coloured(screen, step.record, timeline_text(step.record, step.error)));
    }
    flush();
    return ok();
  };
  const Status done = print();
  return done ? screen.done(0) : trouble(done.error());
}

}  // namespace certgate::agentd::cli
