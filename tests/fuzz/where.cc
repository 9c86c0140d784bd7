// Expressions of `audit list --where`: what is accepted is SQL that SQLite understands, and a value is never part of it.
#include "agentd/index/where.h"

#include "agentd/index/ingest.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate::agentd;

namespace {

Database& database() {
  static Database db = [] {
    auto opened = Database::open("", Database::Mode::kMemory);
    CG_LAW(opened && opened->exec(kIndexTables));
    return std::move(*opened);
  }();
  return db;
}

}  // namespace

FUZZ_TARGET(where) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto condition = compile_where(text, 0);
  if (!condition) {
    CG_LAW(condition.error().what.starts_with("where: "));
    return 0;
  }
  auto statement = database().prepare("SELECT pos FROM record r WHERE " + condition->sql);
  CG_LAW(statement && condition->bind(*statement, 1) && statement->step());
  size_t marks = 0;
  for (const char c : condition->sql) marks += c == '?' ? 1 : 0;
  CG_LAW(marks == condition->values.size());
  return 0;
}
