// Call table: one row for every x86_64 system call that this project has judged.
//
//   const CallRow* row = find_call(SYS_openat);
//   row->name                       // "openat"
//   row->call_class                 // CallClass::kTrap
//
// The table is data: the filter is made from it, the tests prove the filter against it, and a call
// that is in no row gets ENOSYS. A new system call is one new row here and nothing else.
// Rows whose verdict also depends on arguments are kAllow or kTrap here; their tests are in
// filter.cc.
#pragma once

#include <span>
#include <string_view>

#include "sandbox/filter.h"

namespace certgate::sandbox {

struct CallRow {
  int nr;
  const char* name;
  CallClass call_class;
  int error;  // errno of a kErrno row, 0 otherwise
};

// Sorted by number, no number twice.
std::span<const CallRow> call_table();

// The row of a number, or nullptr for a call that nobody has judged.
const CallRow* find_call(int nr);

// The name of a call for messages, "unknown" when it is in no row.
std::string_view call_name(int nr);

}  // namespace certgate::sandbox
