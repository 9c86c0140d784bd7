// SQLite as the index uses it: a connection, statements, errors in words.
//
//   CG_TRY(Database db, Database::open("/state/index.sqlite", Database::Mode::kReadWrite));
//   CG_TRY(Statement find, db.prepare("SELECT pos FROM record WHERE run = ?1"));
//   CG_CHECK(find.bind(1, run));
//   for (;;) { CG_TRY(const bool row, find.step()); if (!row) break; use(find.number(0)); }
//
// Statements end before their connection. Not thread-safe: one thread per connection.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "kernel/result.h"

namespace certgate::agentd {

class Statement {
 public:
  Status bind(int at, int64_t value);
  Status bind(int at, std::string_view value);  // text; copied
  Status bind_null(int at);
  Result<bool> step();  // true: there is a row
  Status run();         // to the end, then reset
  void reset();

  int columns() const { return ::sqlite3_column_count(handle_.get()); }
  bool null(int column) const;
  int64_t number(int column) const { return ::sqlite3_column_int64(handle_.get(), column); }
  std::string text(int column) const;
  const char* name(int column) const { return ::sqlite3_column_name(handle_.get(), column); }
  bool read_only() const { return ::sqlite3_stmt_readonly(handle_.get()) != 0; }

 private:
  friend class Database;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { ::sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

class Database {
 public:
  enum class Mode : uint8_t { kReadWrite, kReadOnly, kMemory };
  // The file is made when missing, 0600; a symlink is refused. kMemory: `path` is not used.
  static Result<Database> open(const std::string& path, Mode mode);

  Status exec(const std::string& sql);
  // One statement; the error names the byte where SQLite stopped understanding.
  Result<Statement> prepare(std::string_view sql);
  sqlite3* handle() const { return handle_.get(); }

 private:
  struct Close {
    void operator()(sqlite3* database) const { ::sqlite3_close(database); }
  };
  std::unique_ptr<sqlite3, Close> handle_;
};

}  // namespace certgate::agentd
