// Witness client: asks another host's witness to cosign this log's latest checkpoint.
//
//   CG_TRY(Cosigned done, ask_witness(state_dir, {"http://10.0.0.7:7380", witness_key}));
//
// The consistency proof is made from the hash tiles, so a pruned log has it too. What comes back is
// believed only when `witness_key` verifies it. The checkpoint with all its cosignatures is then in
// the file `cosigned` of the state directory, which is served beside log/checkpoint, and what this
// witness cosigned last in `cosignatures/` (log_witnessed.h), where `audit verify --witness` looks.
#pragma once

#include <cstdint>
#include <string>

#include "agentd/witness.h"
#include "kernel/result.h"

namespace certgate::agentd {

struct WitnessAt {
  std::string url;  // http://HOST[:PORT][/PREFIX]
  CosignerKey key;
};

struct Cosigned {
  uint64_t size = 0;  // of the checkpoint
  uint64_t time = 0;  // the witness's, Unix
};

Result<Cosigned> ask_witness(const std::string& state_dir, const WitnessAt& witness);

}  // namespace certgate::agentd
