// What operators and supervisors say of approvals: one spelling each, and no answer without the
// key.
//
// Input: mode byte, then  0 an envelope   1 a payload that is signed here   2 a request's message
#include <algorithm>

#include "agentd/approval_statement.h"
#include "kernel/token.h"
#include "supervisor/operator_line.h"
#include "tests/fuzz/signing.h"

using namespace certgate;

namespace {

agentd::VerifierKey verifier() {
  return {"certgate.local/fuzz", fuzz::TestKey::get().public_key()};
}

std::string envelope_of(std::string_view payload) {
  const auto s = fuzz::TestKey::get().sign(kernel::dsse_pae(agentd::kApprovalPayloadType, payload));
  return kernel::dsse_envelope(agentd::kApprovalPayloadType, payload, verifier().name,
                               std::vector<uint8_t>(s.begin(), s.end()));
}

}  // namespace

FUZZ_TARGET(approval) {
  fuzz::Bytes in(data, size);
  const uint8_t mode = in.byte();
  const std::string text = in.rest();
  if (mode % 3 == 2) {
    // NOLINTNEXTLINE: octets
    const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
    const auto asked = supervisor::decode_asked(bytes, text.size());
    if (const auto* request = asked ? std::get_if<supervisor::ApprovalRequest>(&*asked) : nullptr)
      CG_LAW(
          std::ranges::equal(request->encode(), std::vector<uint8_t>(bytes, bytes + text.size())));
    return 0;
  }
  const std::string envelope = mode % 3 == 0 ? text : envelope_of(text);
  const auto statement = agentd::open_statement(envelope, verifier());
  if (!statement) return 0;
  CG_LAW(envelope_of(statement->payload()) == envelope);
  CG_LAW(statement->issuer == verifier().name);
  for (const std::string* part : {&statement->run, &statement->user, &statement->why})
    CG_LAW(agentd::plain(*part, part->size()) == *part);
  return 0;
}
