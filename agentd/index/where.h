// Where: the expression language of `certgate audit list --where`, compiled to SQL over the index.
//
//   CG_TRY(Condition c, compile_where("verdict=refused and object~\"/etc/*\" and origin=web:*",
//   now)); db.prepare("SELECT pos FROM record r WHERE " + c.sql); c.bind(statement, 1);
//
//   expression = term { "or" term }         term = factor { "and" factor }
//   factor     = "not" factor | "(" expression ")" | field operator value
//   operator   = "=" | "!=" | "~" | "!~" | "<" | "<=" | ">" | ">="
//   value      = word | '"' any character, with \" and \\ '"'
//
// "~" is a glob (* ? [abc]); texts are compared as they are shown, escaped. origin and raised are
// labels:
// "=" asks whether one of their origins is this one ("web:*": any of the class). < and > are for
// numbers and time, which is RFC 3339 ("2026-11-28", "2026-11-28T17:00:00Z") or before now ("-2h",
// "-15m"). Values never become SQL: they are bound. Errors name the character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "agentd/index/sql.h"

namespace certgate::agentd {

inline constexpr size_t kMaxWhereBytes = 4096;

struct Condition {
  std::string sql = "1";  // over "record r"
  std::vector<std::variant<int64_t, std::string>> values;
  bool by_kind =
      false;  // it asks for a kind of record: none is hidden for being of little interest

  Status bind(Statement& statement, int first) const;
  // Both must hold.
  void add(const Condition& other);
};

Result<Condition> compile_where(std::string_view expression, int64_t now_ns);
// One comparison, as the filters of the command line make them: where_one("verb", "=", "exec",
// now).
Result<Condition> where_one(const std::string& field, const std::string& op,
                            const std::string& value, int64_t now_ns);
// "time, agent, …": every field, for help and errors.
std::string where_fields();
// What the expression could go on with, each as the whole text so far with it; empty where nothing
// is known (an object's path, an error before the end). From the tables that compile_where uses.
std::vector<std::string> complete_where(std::string_view text);
// The names that a field may have, when they are known: kind, verdict, verb.
std::vector<std::string> where_values(std::string_view field);
// Nanoseconds since 1970 of a time as above.
Result<int64_t> parse_time(std::string_view text, int64_t now_ns);

}  // namespace certgate::agentd
