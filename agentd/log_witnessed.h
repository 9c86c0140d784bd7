// Witnessed: whether a checkpoint that others hold, or have cosigned, is the start of this log.
//
//   CG_TRY(Verdict verdict, judge_witnessed(state_dir, {"", {witness_key}}));
//   "yes": "by witness.test up to 15 of 20 records, at 2026-11-28T10:00:00.000000000Z"
//
// Without a checkpoint from outside, what `audit witness add` has brought back is looked at: the
// file `cosigned` (the latest checkpoint with all its cosignatures) and, for each witness, the last
// one that it cosigned (kCosignaturesDir). Whoever can write the log can remove these: so a given
// witness without a cosignature is never passed over, and a "yes" is about all that were given.
#pragma once

#include <string>

#include "agentd/log_verify.h"

namespace certgate::agentd {

inline constexpr char kCosignedPath[] = "cosigned";
// The note that the witness of this id (8 hex digits) cosigned last.
std::string cosignature_path(uint32_t id);

Result<Verdict> judge_witnessed(const std::string& state_dir, const OutsideView& outside);

}  // namespace certgate::agentd
