// Redaction: which values of a record are kept out of it, in the run's blob file (blob_file.h).
//
//   for (const Hidden& h : redaction.hide(record, &env)) …   // the record has "" in their places
//
// Kept out: arguments longer than a record holds, and those beyond its number; any argument or
// object that a pattern is found in; the whole environment of an exec, in two values: "env", and
// "env:secret" with the variables whose name an `env` pattern matches or whose text a pattern is
// found in, so that these can be erased alone.
//
// A pattern is text with `*` for any bytes; it is found anywhere in a value, without backtracking.
// An `env` pattern must match the whole name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernel/record.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxHiddenBytes = 256u << 10;  // of one value: more is cut

// "argv[3]", "object", "asked", "env", "env:secret"; lists are joined by NUL.
struct Hidden {
  std::string name;
  std::string value;
};

struct Redaction {
  std::vector<std::string> patterns, env;

  bool found_in(std::string_view value) const;
  bool hides_variable(std::string_view variable) const;  // NAME=VALUE
  // Empties what must not be in the record. `env` of an exec, else null.
  std::vector<Hidden> hide(kernel::Record& record, const std::vector<std::string>* env) const;
};

bool pattern_found(std::string_view pattern, std::string_view in);     // anywhere
bool pattern_matches(std::string_view pattern, std::string_view all);  // the whole

}  // namespace certgate::supervisor
