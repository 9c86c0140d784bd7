// certgate audit sql, reindex.
#include <iostream>

#include "agentd/cli/audit_verbs.h"

namespace certgate::agentd::cli {
namespace {

constexpr uint64_t kMaxRows = 1'000'000;
constexpr int kStepsBetweenLooks = 1'000'000;
constexpr int64_t kMaxSeconds = 60;
constexpr size_t kMaxTextBytes = 1u << 20;

// Nothing but reading: no write, no attach, no pragma, no extension.
int allow_reading(void*, int action, const char*, const char* name, const char*, const char*) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_FUNCTION:
      return name != nullptr && std::string_view(name) == "load_extension" ? SQLITE_DENY
                                                                           : SQLITE_OK;
    default:
      return SQLITE_DENY;
  }
}

int out_of_time(void* deadline) { return now_ns() > *static_cast<int64_t*>(deadline) ? 1 : 0; }

void print_row(const Statement& row, Format format, Screen& screen) {
  if (format == Format::kJson) {
    JsonObject object;
    for (int i = 0; i < row.columns(); ++i) {
      const std::string name = escape(row.name(i));
      std::string key;  // a column's name may hold anything that its query says
      for (const char c : name) key += c == '"' || c == '\\' ? '_' : c;
      if (!row.null(i)) object.text(key, row.text(i));
    }
    screen.out() << object.str() << '\n';
    return;
  }
  std::string line;
  // The index holds escaped text; what a query computes may be anything.
  for (int i = 0; i < row.columns(); ++i) line += (i > 0 ? "\t" : "") + escape(row.text(i));
  screen.line(line);
}

Status run_query(Index& index, const Options& options, Screen& screen) {
  CG_TRY(const uint64_t limit, count_option(options, "limit", kMaxRows, kMaxRows));
  // The file read-only, so without what is not sealed; an index in memory is in this process alone.
  std::optional<Database> own;
  Database* db = &index.db();
  if (index.note().empty() || index.note().find("in memory") == std::string::npos) {
    CG_TRY(own, Database::open(index.state_dir() + "/index.sqlite", Database::Mode::kReadOnly));
    db = &*own;
  }
  ::sqlite3_limit(db->handle(), SQLITE_LIMIT_LENGTH, kMaxTextBytes);
  int64_t deadline = now_ns() + kMaxSeconds * 1'000'000'000;
  ::sqlite3_progress_handler(db->handle(), kStepsBetweenLooks, out_of_time, &deadline);
  ::sqlite3_set_authorizer(db->handle(), allow_reading, nullptr);
  CG_TRY(Statement rows, db->prepare(options.args[0]));
  if (!rows.read_only()) return fail("sql: only reading is allowed");
  if (options.format == Format::kText) {
    std::string head;
    for (int i = 0; i < rows.columns(); ++i) head += (i > 0 ? "\t" : "") + escape(rows.name(i));
    screen.line(screen.colour(1, head));
  }
  for (uint64_t count = 0;; ++count) {
    Result<bool> more = rows.step();
    if (!more && more.error().code == SQLITE_INTERRUPT)
      return fail("sql: it took longer than a minute");
    if (!more) return more.error();
    if (!*more) return ok();
    if (count == limit) {
      std::cerr << "certgate audit: only the first " << limit << " rows are shown\n";
      return ok();
    }
    print_row(rows, options.format, screen);
  }
}

}  // namespace

int audit_sql(const Options& options) {
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  Screen screen(options);
  const Status done = run_query(*index, options, screen);
  return done ? screen.done(0) : trouble(done.error());
}

int audit_reindex(const Options& options) {
  const int64_t start = now_ns();
  Result<Index> index = Index::rebuild(options.state);
  if (!index) return trouble(index.error());
  if (!index->note().empty()) return trouble(fail(index->note()));
  if (options.format == Format::kJson) {
    JsonObject object;
    std::cout << object.number("records", index->sealed()).str() << '\n';
  } else {
    std::cout << index->sealed() << " records in " << (now_ns() - start) / 1'000'000 << " ms\n";
  }
  return std::cout.flush() ? 0 : trouble(fail("the output was closed"));
}

}  // namespace certgate::agentd::cli
