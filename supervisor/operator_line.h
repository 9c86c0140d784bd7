// Operator line: what a supervisor and the operators tell each other, through the authority
// (SOCK_SEQPACKET, CBOR arrays). Beside the channel: nothing here is a reply, neither side waits.
//
//   supervisor → authority:  [1, seq, …]            a call waits for an approval
//                            [2, seq]               it waits no longer
//                            [5, taken, text]       what became of the policy: µs, or why not
//   authority → supervisor:  [3, seq, answer, who, why]   verified and logged before
//                            [4]  and beside it, sealed (sealed_text.h), another policy
//                                                   (recorded_policy.h) from now on
//
// A message that the other side does not take at once is not sent: who asks is then refused, who
// answers is told.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "kernel/decide.h"
#include "kernel/result.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxRequestBytes = 32768;
inline constexpr size_t kMaxPolicyBytes = 16u << 20;  // of one that is loaded while an agent runs

// Everything that the action digest covers, and why it is asked.
struct ApprovalRequest {
  uint64_t seq = 0;  // of its record: with the run's id, the id of the request
  uint32_t pid = 0;
  kernel::Digest digest{};
  kernel::Risk risk = kernel::Risk::kLow;
  int64_t deadline_ns = 0;  // CLOCK_REALTIME
  std::string verb, call, object, how, cwd, rule, why, label;
  std::vector<std::string> argv, env;
  std::vector<std::string> images;   // "SHA-256 path" of each file that would run
  std::vector<std::string> came_in;  // how the untrusted origins of the label did

  std::vector<uint8_t> encode() const;
};

struct RequestOver {
  uint64_t seq = 0;
};

struct ApprovalAnswer {
  uint64_t seq = 0;
  kernel::Approval::Answer answer = kernel::Approval::Answer::kDenied;
  std::string who, why;
};

struct NewPolicy {
  std::string body;
};

struct PolicyOutcome {
  enum class What : uint8_t { kLeft, kTaken } what = What::kLeft;  // the old one, the new one
  std::string text;  // taken: the microseconds that calls waited; left: why
};

// `message` as encode() made it. Code EAGAIN: the other side does not read.
Status send_request(int line, const std::vector<uint8_t>& message);
Status send_over(int line, uint64_t seq);
Status send_answer(int line, const ApprovalAnswer& answer);
Status send_policy(int line, const std::string& body);
Status send_outcome(int line, const PolicyOutcome& outcome);

using FromSupervisor = std::variant<ApprovalRequest, RequestOver, PolicyOutcome>;
using FromAuthority = std::variant<ApprovalAnswer, NewPolicy>;

// As ApprovalRequest::encode(), send_over() or send_outcome() made it.
Result<FromSupervisor> decode_asked(const uint8_t* data, size_t size);

// One message; code ECONNRESET: the other side is gone, EAGAIN: there is none.
Result<FromSupervisor> receive_asked(int line);
Result<FromAuthority> receive_answer(int line);

}  // namespace certgate::supervisor
