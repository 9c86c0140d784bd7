// What goes over the tool gate: one JSON object a line, each way. The schema is
// policies/gate.schema.json.
//
//   {"v":1,"tool":"commit","args":[{"value":"-q"},{"value":"fix","from":{"message":0,"start":4,"end":7}}],
//    "cwd":"/ws","intent":"commit the fix","taint":["web:page.test"]}
//   {"permit":{"id":"abcdefgh-12","tool":"commit","program":"/usr/bin/git","argv":[…],"sha256":"…",
//              "label":"…","sources":"…","expires_ms":30000}}
//                and where the exec will wait for an operator: "asks":{"rule":"publish","why":"…"}
//   {"refusal":{"id":"abcdefgh-13","code":"SCHEMA_BREAKOUT","why":"…","at":"argv[2]","help":"…"}}
//   {"error":"…"}                         not a request; nothing was decided
//
// Strict: unknown keys, other types, doubled keys, more than the limits below are errors.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/decide.h"
#include "kernel/result.h"
#include "supervisor/permits.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxGateLine = 128 * 1024;
inline constexpr size_t kMaxGateArgs = 512;
inline constexpr size_t kMaxGateTaint = 16;
inline constexpr size_t kMaxIntentBytes = 2048;

struct GateRequest {
  std::string tool;
  std::vector<std::string> args;                // after argv[0]
  std::vector<kernel::ArgumentSource> sources;  // by place in argv
  std::string cwd;                              // empty: where the agent began
  std::string intent;
  kernel::Label taint;
  bool operator==(const GateRequest&) const = default;
};
Result<GateRequest> parse_gate_request(std::string_view line);

struct GatePermit {
  std::string id, tool, program, label, sources;
  kernel::Digest sha256{};
  std::vector<std::string> argv;
  int64_t expires_ms = 0;
  std::optional<Asks> asks{};
};
// Each ends with a newline.
std::string gate_answer(const GatePermit& permit);
std::string gate_answer(const std::string& id, const kernel::Refusal& refusal);
std::string gate_error(const std::string& what);

}  // namespace certgate::supervisor
