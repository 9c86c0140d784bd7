#include "agentd/index/sql.h"

namespace certgate::agentd {
namespace {

constexpr int kWaitMs = 10'000;
constexpr int kMaxSqlBytes = 64 * 1024;

Error sql_error(sqlite3* database) {
  const int code = ::sqlite3_errcode(database);
  std::string what = ::sqlite3_errmsg(database);
  if (code == SQLITE_BUSY) what += " (another audit command is working on the index; try again)";
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) what += " (cure: certgate audit reindex)";
  return fail("index: " + what, code);
}

}  // namespace

Status Statement::bind(int at, int64_t value) {
  if (::sqlite3_bind_int64(handle_.get(), at, value) == SQLITE_OK) return ok();
  return sql_error(::sqlite3_db_handle(handle_.get()));
}

Status Statement::bind(int at, std::string_view value) {
  if (::sqlite3_bind_text64(handle_.get(), at, value.data(), value.size(), SQLITE_TRANSIENT,
                            SQLITE_UTF8) == SQLITE_OK)
    return ok();
  return sql_error(::sqlite3_db_handle(handle_.get()));
}

Status Statement::bind_null(int at) {
  if (::sqlite3_bind_null(handle_.get(), at) == SQLITE_OK) return ok();
  return sql_error(::sqlite3_db_handle(handle_.get()));
}

Result<bool> Statement::step() {
  const int code = ::sqlite3_step(handle_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return sql_error(::sqlite3_db_handle(handle_.get()));
}

Status Statement::run() {
  const int code = ::sqlite3_step(handle_.get());
  if (code != SQLITE_DONE && code != SQLITE_ROW)
    return sql_error(::sqlite3_db_handle(handle_.get()));
  ::sqlite3_reset(handle_.get());
  return ok();
}

void Statement::reset() { ::sqlite3_reset(handle_.get()); }

bool Statement::null(int column) const {
  return ::sqlite3_column_type(handle_.get(), column) == SQLITE_NULL;
}

std::string Statement::text(int column) const {
  const auto* const bytes = static_cast<const char*>(::sqlite3_column_blob(handle_.get(), column));
  const auto size = static_cast<size_t>(::sqlite3_column_bytes(handle_.get(), column));
  return bytes == nullptr ? std::string() : std::string(bytes, size);
}

Result<Database> Database::open(const std::string& path, Mode mode) {
  int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW;
  flags |=
      mode == Mode::kReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
  sqlite3* opened = nullptr;
  const std::string name = mode == Mode::kMemory ? ":memory:" : path;
  const int code = ::sqlite3_open_v2(name.c_str(), &opened, flags, nullptr);
  Database database;
  database.handle_.reset(opened);
  if (opened == nullptr) return fail("index: no memory");
  if (code != SQLITE_OK) {
    const char* const cure =
        code == SQLITE_CANTOPEN
            ? " (a symlink, or not yours to open? It is only a cache: remove it)"
            : "";
    return fail("index " + name + ": " + ::sqlite3_errmsg(opened) + cure, code);
  }
  ::sqlite3_busy_timeout(opened, kWaitMs);
  ::sqlite3_limit(opened, SQLITE_LIMIT_SQL_LENGTH, kMaxSqlBytes);
  ::sqlite3_limit(opened, SQLITE_LIMIT_ATTACHED, 0);
  // Nothing that the file says is code.
  ::sqlite3_db_config(opened, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  ::sqlite3_db_config(opened, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  return database;
}

Status Database::exec(const std::string& sql) {
  if (::sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK)
    return ok();
  return sql_error(handle_.get());
}

Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* made = nullptr;
  const char* rest = nullptr;
  const int code =
      ::sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &made, &rest);
  Statement statement;
  statement.handle_.reset(made);
  if (code != SQLITE_OK) {
    const int at = ::sqlite3_error_offset(handle_.get());
    Error error = sql_error(handle_.get());
    return at < 0 ? error : fail(error.what + " at byte " + std::to_string(at + 1), error.code);
  }
  if (made == nullptr) return fail("index: there is no statement");
  for (const char* c = rest; c < sql.data() + sql.size(); ++c) {
    if (*c != ' ' && *c != '\n' && *c != '\t' && *c != ';')
      return fail("index: one statement at a time; the second one begins at byte " +
                  std::to_string(c - sql.data() + 1));
  }
  return statement;
}

}  // namespace certgate::agentd
