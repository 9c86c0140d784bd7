// Witness: the memory and the signature of a C2SP tlog-witness, without the network.
//
//   CG_TRY(Witness witness, Witness::open(state_dir_fd, name, key, {log_vkey, …}));
//   const WitnessAnswer answer = witness.add_checkpoint(body);      // status, body, content type
//
// Request body of add-checkpoint:
//   old 20852163\n          size that the witness is believed to have signed last; 0 at first
//   <base64 hash>\n …       consistency proof from it, at most 63 lines
//   \n
//   <checkpoint note>
// Answers: 200 and the cosignature line; 400 not of this form; 404 no log of that origin; 403 no
// signature of that log; 409 another size was signed last (the body says which), or another root of
// the same size; 422 the proof does not hold.
// Laws: what was signed last is durable before a signature leaves; for one origin sizes never go
// back and every tree signed is a prefix of the next. A cosignature/v1 is over the text and a time.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agentd/holder_key.h"
#include "agentd/note.h"
#include "kernel/result.h"

namespace certgate::agentd {

inline constexpr size_t kMaxWitnessBody = 65536;
inline constexpr size_t kMaxProofLines = 63;
inline constexpr size_t kMaxWitnessedLogs = 1024;

struct AddCheckpoint {
  uint64_t old_size = 0;
  std::vector<kernel::Digest> proof;
  std::string note;
};
Result<AddCheckpoint> parse_add_checkpoint(std::string_view body);
std::string add_checkpoint_body(const AddCheckpoint& request);

struct WitnessAnswer {
  unsigned status = 0;
  std::string body;
  const char* type = "text/plain";
};

// A witness's public key: "name+<id>+base64(0x04||key)", id over the same with 0x04.
struct CosignerKey {
  std::string name;
  PublicKey key{};
  uint32_t id() const;
  std::string text() const;
  static Result<CosignerKey> parse(std::string_view text);
};

// The line "— name base64(id || time (8, big endian) || signature)\n" and its check.
Result<std::string> cosign(const CosignerKey& as, const HolderKey& key, const std::string& text,
                           uint64_t unix_time);
Result<uint64_t> check_cosignature(const CosignerKey& key, const std::string& text,
                                   std::string_view line);  // its time

class Witness {
 public:
  // Remembers in `dir`/witness/. `logs`: their verifier keys; a log's origin is its key's name.
  static Result<Witness> open(int dir, CosignerKey name, HolderKey key,
                              const std::vector<VerifierKey>& logs);
  WitnessAnswer add_checkpoint(std::string_view body) const;
  const CosignerKey& key() const { return as_; }

 private:
  Witness(int dir, CosignerKey as, HolderKey key)
      : dir_(dir), as_(std::move(as)), key_(std::move(key)) {}
  Result<WitnessAnswer> judge(const AddCheckpoint& request, const Checkpoint& asked) const;

  int dir_;  // lent
  CosignerKey as_;
  HolderKey key_;
  std::map<std::string, VerifierKey> logs_;  // by origin
};

}  // namespace certgate::agentd
