// Requests to a witness: whatever the bytes are, what is read has one form and its limits.
#include "agentd/witness.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

FUZZ_TARGET(add_checkpoint) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto request = agentd::parse_add_checkpoint(body);
  if (!request) return 0;
  CG_LAW(request->proof.size() <= agentd::kMaxProofLines);
  CG_LAW(!request->note.empty() && request->note.size() <= agentd::kMaxNoteBytes);
  CG_LAW(agentd::add_checkpoint_body(*request) == body);
  return 0;
}
