// Recorded policy: what a log holds of the policy of a run, so that a reviewer needs only the log.
//
//   for (kernel::Record& part : policy_records(policy)) append(part);        // once a run
//   …
//   CG_TRY(RecordedPolicy p, read_recorded_policy(bodies_joined));           // anywhere, later
//   p.policy.digest() == start.digest; p.policy.rules[i].source              // "file:line"
//
// Body, deterministic CBOR, cut into records of kind `policy` in order (count = bytes in all):
//   [ canonical bytes of the policy (kernel/policy.h), [ place of each rule, then of each zone ] ]
// A place in the same file as the one before it is ":line" only.
#pragma once

#include <string>
#include <vector>

#include "kernel/policy.h"
#include "kernel/record.h"
#include "kernel/result.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxRecordedPolicy = 64u << 20;

std::string recorded_body(const kernel::Policy& policy);
// Kind, body and count are filled in; the rest is the caller's.
std::vector<kernel::Record> policy_records(const std::string& body);
// Strict: what it gives has exactly these canonical bytes, and is a policy that may be loaded.
Result<kernel::Policy> read_recorded_policy(const std::string& body);

// What a tool's program was when the run began is in no policy: a policy that comes later has it
// from the one before it. A tool that was not pinned then is an error.
Status keep_pins(const kernel::Policy& before, kernel::Policy& to);

}  // namespace certgate::supervisor
