// Approval statement: an operator's signed word on one request, good for one action, once.
//
//   {"digest":"9f86…","exp":1795485414000000000,"iss":"certgate.local/k3u7x2qa","nonce":"5f0c…",
//    "origins":"operator,user","run":"k3u7x2qa","seq":17,"time":1795485354000000000,"uid":1000,
//    "user":"ann","verdict":"approve","why":""}
//
//   CG_TRY(std::string line, seal(statement, key));             // its DSSE envelope
//   CG_TRY(ApprovalStatement s, open_statement(line, verifier));  // signature, form
//
// Restricted RFC 8785 JSON as of tokens (kernel/token.h), type kApprovalPayloadType, signed with
// the key of the state directory: `openssl pkeyutl -verify -rawin` checks it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "agentd/signing_key.h"
#include "kernel/call.h"
#include "kernel/result.h"

namespace certgate::agentd {

inline constexpr std::string_view kApprovalPayloadType =
    "application/vnd.certgate.approval.v1+json";
inline constexpr size_t kMaxStatementBytes = 16384;
inline constexpr size_t kMaxWhyBytes = 500;

enum class Consent : uint8_t { kApprove, kDeny };

struct ApprovalStatement {
  std::string run;
  uint64_t seq = 0;  // of the request
  kernel::Digest digest{};
  std::string origins;  // plain(): the label that the operator was shown
  Consent consent = Consent::kDeny;
  uint64_t uid = 0;  // who says so
  std::string user;
  int64_t time_ns = 0;     // CLOCK_REALTIME
  int64_t expires_ns = 0;  // to be handed in until then
  std::string nonce;       // 16 lower-case hex digits
  std::string why;
  std::string issuer;  // the key's name

  std::string payload() const;
};

// What is not printable ASCII, and quotes and backslashes, become '?'; cut at `max` bytes.
std::string plain(std::string_view text, size_t max);

// Sets `issuer`.
Result<std::string> seal(ApprovalStatement& statement, const SigningKey& key);
// Any other spelling of the same content is an error too.
Result<ApprovalStatement> open_statement(std::string_view envelope, const VerifierKey& key);

}  // namespace certgate::agentd
