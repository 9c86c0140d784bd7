// Operator line: what a supervisor and the operators tell each other, through the authority
// (SOCK_SEQPACKET, CBOR arrays). Beside the channel: nothing here is a reply, neither side waits.
//
//   supervisor → authority:  [1, seq, …]            a call waits for an approval
//                            [2, seq]               it waits no longer
//   authority → supervisor:  [3, seq, answer, who, why]   verified and logged before
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

// `message` as encode() made it. Code EAGAIN: the other side does not read.
Status send_request(int line, const std::vector<uint8_t>& message);
Status send_over(int line, uint64_t seq);
Status send_answer(int line, const ApprovalAnswer& answer);

// As ApprovalRequest::encode() or send_over() made it.
Result<std::variant<ApprovalRequest, RequestOver>> decode_asked(const uint8_t* data, size_t size);

// One message; code ECONNRESET: the other side is gone, EAGAIN: there is none.
Result<std::variant<ApprovalRequest, RequestOver>> receive_asked(int line);
Result<ApprovalAnswer> receive_answer(int line);

}  // namespace certgate::supervisor
