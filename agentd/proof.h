// Proof: what a checker who has only a key needs, as text: inclusion of one record, and
// consistency.
//
//   CG_TRY(TlogProof proof, prove_inclusion(log, 17));         // proof.text() is the .tlog-proof
//   CG_TRY(TlogProof read, TlogProof::parse(text));
//   CG_TRY(Checkpoint under, read.check(key, read.extra));     // an Error: it proves nothing
//
// Inclusion is C2SP tlog-proof, byte for byte; its extra data is the record, so that one file is
// enough:
//   c2sp.org/tlog-proof@v1
//   extra <base64 of the record>
//   index 17
//   <base64 hash>                one a line, from the leaf's sibling to the root's child
//   <empty line>
//   <checkpoint, verbatim>
// Consistency is the body of C2SP tlog-witness add-checkpoint: "old <size>", hashes, empty line,
// checkpoint. Keys are never read from a proof. Cosignatures in the checkpoint are kept and not
// judged here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agentd/log_reader.h"
#include "agentd/note.h"

namespace certgate::agentd {

inline constexpr size_t kMaxProofBytes = 256 * 1024;
inline constexpr size_t kMaxProofHashes = 64;

struct TlogProof {
  std::string extra;  // "": the file has no extra line
  uint64_t index = 0;
  std::vector<kernel::Digest> path;
  std::string checkpoint;  // the note

  std::string text() const;
  static Result<TlogProof> parse(std::string_view text);
  // The checkpoint, when it is signed by `key` and the entry is in its tree at `index`.
  Result<Checkpoint> check(const VerifierKey& key, std::string_view entry) const;
};

struct ConsistencyProof {
  uint64_t old_size = 0;
  std::vector<kernel::Digest> path;
  std::string checkpoint;

  std::string text() const;
  static Result<ConsistencyProof> parse(std::string_view text);
  // The new checkpoint, when both are signed by `key` and the old tree is the start of the new one.
  Result<Checkpoint> check(const VerifierKey& key, std::string_view old_checkpoint) const;
};

Result<TlogProof> prove_inclusion(LogReader& log, uint64_t index);
Result<ConsistencyProof> prove_consistency(LogReader& log, uint64_t old_size);

// A checkpoint as others may have cosigned it: signed by `key`, its origin that key's name.
Result<Checkpoint> open_cosigned(std::string_view note, const VerifierKey& key);

}  // namespace certgate::agentd
