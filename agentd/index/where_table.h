// The language of --where, as tables: what the parser (where.cc) takes and what completion
// (where_complete.cc) offers.
#pragma once

#include <cstdint>
#include <string_view>

namespace certgate::agentd::where {

inline constexpr int kMaxKinds = 64;  // of records

enum class Type : uint8_t {
  kText,
  kRule,
  kLabel,
  kRun,
  kCommand,
  kId,
  kNumber,
  kErrno,
  kTime,
  kName,
  kVerdict
};

// As verdict_of() says it; an observed call has a certificate, and is not "allowed" for that.
struct VerdictName {
  const char* text;
  const char* other;
  const char* sql;
};
inline constexpr VerdictName kVerdicts[] = {
    {"allowed", "allow",
     "r.kind = 2 AND coalesce(r.grade NOT IN (SELECT id FROM text WHERE value = 'observed'), 1)"},
    {"observed", "observe",
     "r.kind = 2 AND r.grade IN (SELECT id FROM text WHERE value = 'observed')"},
    {"refused", "refuse", "r.kind = 3"},
};

struct Field {
  const char* name;
  Type type;
  const char* column;
};
inline constexpr Field kFields[] = {
    {"agent", Type::kRun, ""},          {"run", Type::kRun, ""},
    {"command", Type::kCommand, ""},    {"id", Type::kId, ""},
    {"kind", Type::kName, "kind"},      {"verdict", Type::kVerdict, ""},
    {"verb", Type::kName, "verb"},      {"call", Type::kText, "call"},
    {"object", Type::kText, "object"},  {"rule", Type::kRule, "rule"},
    {"reason", Type::kText, "reason"},  {"token", Type::kText, "token"},
    {"grade", Type::kText, "grade"},    {"origin", Type::kLabel, "label"},
    {"raised", Type::kLabel, "raised"}, {"culprit", Type::kText, "culprit"},
    {"pid", Type::kNumber, "pid"},      {"seq", Type::kNumber, "seq"},
    {"ino", Type::kNumber, "ino"},      {"errno", Type::kErrno, ""},
    {"time", Type::kTime, "wall"},
};

inline bool is_ordered(const Field& field) {
  return field.type == Type::kNumber || field.type == Type::kTime || field.type == Type::kErrno;
}
inline bool is_text(const Field& field) {
  return !is_ordered(field) && field.type != Type::kId && field.type != Type::kName &&
         field.type != Type::kVerdict;
}

struct Operator {
  const char* text;
  const char* sql;
  bool negated, glob, order;
};
inline constexpr Operator kOperators[] = {
    {"!=", "=", true, false, false},  {"!~", "GLOB", true, true, false},
    {"<=", "<=", false, false, true}, {">=", ">=", false, false, true},
    {"=", "=", false, false, false},  {"~", "GLOB", false, true, false},
    {"<", "<", false, false, true},   {">", ">", false, false, true},
};

inline const Operator* operator_at(std::string_view text) {
  for (const Operator& one : kOperators) {  // the longer ones come first
    if (text.starts_with(one.text)) return &one;
  }
  return nullptr;
}

}  // namespace certgate::agentd::where
