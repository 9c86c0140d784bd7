// Admin record: what an operator did to standing authority, in the log like any run.
//
//   CG_CHECK(record_admin(log, {"certgate token revoke 3b6a…", RecordKind::kRevoke, {}, id, 0}));
//
// It is a run of its own of three records (start, the act, stop), so that completeness is checked
// as for every other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agentd/log_store.h"
#include "kernel/record.h"

namespace certgate::agentd {

struct AdminAct {
  std::string command;  // escaped
  kernel::RecordKind kind = kernel::RecordKind::kToken;
  std::string object;                // token, approval: its envelope
  std::string token;                 // id
  uint64_t count = 0;                // epoch: the new one; pruned: the first record that is kept
  std::string grade = {};            // approval: approved or denied
  std::vector<uint8_t> digest = {};  // approval: of the action
  std::string argument = {};         // erased: the blob's name
  std::string why = {};              // erased, pruned
};

Status record_admin(LogStore& log, const AdminAct& act);

}  // namespace certgate::agentd
