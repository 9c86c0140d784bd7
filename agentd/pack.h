// Pack: everything about some decisions in one file, that can be checked with a key alone.
//
//   CG_TRY(std::string file, make_pack(index, {"k3u7x2qa-17"}));
//   CG_TRY(PackContent content, check_pack(file, key));   // every record proven, the report made
//   again
//
//   certgate-pack@v1
//   # the report, for people: what `certgate audit why` says. Made of the records below, and
//   compared record <role> <index> <numbers of its hashes, joined by '.', or '-'> <base64 of the
//   record> hash <base64>            each once: neighbours in the log share most of their paths
//   <empty line>
//   <checkpoint, verbatim>
//
// Roles: "subject" begins a decision; start (it names command and policy digest), outcome, program,
// raised, wrote, step belong to the subject before them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agentd/index/lineage.h"
#include "agentd/note.h"

namespace certgate::agentd {

inline constexpr size_t kMaxPackBytes = 4u << 20;
inline constexpr size_t kMaxPackRecords = 1024;

struct PackContent {
  Checkpoint checkpoint;
  size_t records = 0;
  std::vector<std::string> subjects;  // ids
  std::string report;
};

Result<std::string> make_pack(Index& index, const std::vector<std::string>& ids);
Result<PackContent> check_pack(std::string_view text, const VerifierKey& key);

}  // namespace certgate::agentd
