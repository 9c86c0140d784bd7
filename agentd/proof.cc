#include "agentd/proof.h"

#include <algorithm>
#include <charconv>

namespace certgate::agentd {
namespace {

using kernel::Digest;

constexpr std::string_view kMagic = "c2sp.org/tlog-proof@v1";

std::string base64_of(const Digest& digest) { return base64_encode(digest.data(), digest.size()); }

// Lines up to the empty one; what follows is the checkpoint.
class Lines {
 public:
  Lines(std::string_view text, const char* what) : rest_(text), what_(what) {}
  Result<std::string_view> next() {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) return wrong("it ends in the middle");
    const std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    ++number_;
    return line;
  }
  std::string_view rest() const { return rest_; }
  Error wrong(const std::string& problem) const {
    return fail(std::string(what_) + ": line " + std::to_string(number_ + 1) + ": " + problem);
  }

 private:
  std::string_view rest_;
  const char* what_;
  size_t number_ = 0;
};

Result<uint64_t> decimal(const Lines& lines, std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text != std::to_string(value))
    return lines.wrong("not a plain decimal number");
  return value;
}

Status read_hashes(Lines& lines, std::vector<Digest>& path) {
  for (;;) {
    CG_TRY(const std::string_view line, lines.next());
    if (line.empty()) return ok();
    if (path.size() == kMaxProofHashes) return lines.wrong("more hashes than a proof can have");
    const Result<std::vector<uint8_t>> bytes = base64_decode(line);
    if (!bytes) return lines.wrong(bytes.error().what);
    Digest digest;
    if (bytes->size() != digest.size()) return lines.wrong("a hash is not 32 bytes");
    std::copy(bytes->begin(), bytes->end(), digest.begin());
    path.push_back(digest);
  }
}

}  // namespace

std::string TlogProof::text() const {
  std::string out = std::string(kMagic) + '\n';
  if (!extra.empty()) out += "extra " + base64_encode(extra.data(), extra.size()) + '\n';
  out += "index " + std::to_string(index) + '\n';
  for (const Digest& hash : path) out += base64_of(hash) + '\n';
  return out + '\n' + checkpoint;
}

Result<TlogProof> TlogProof::parse(std::string_view text) {
  if (text.size() > kMaxProofBytes) return fail("proof: too long");
  Lines lines(text, "proof");
  CG_TRY(const std::string_view magic, lines.next());
  if (magic != kMagic) return fail("proof: the first line is not " + std::string(kMagic));
  TlogProof proof;
  CG_TRY(std::string_view line, lines.next());
  if (line.starts_with("extra ")) {
    const Result<std::vector<uint8_t>> bytes = base64_decode(line.substr(6));
    if (!bytes) return fail("proof: extra: " + bytes.error().what);
    if (bytes->empty()) return fail("proof: extra: empty, and should be left out");
    proof.extra.assign(bytes->begin(), bytes->end());
    CG_TRY(line, lines.next());
  }
  if (!line.starts_with("index ")) return fail("proof: it has no index line");
  CG_TRY(proof.index, decimal(lines, line.substr(6)));
  CG_CHECK(read_hashes(lines, proof.path));
  proof.checkpoint = lines.rest();
  return proof;
}

Result<Checkpoint> open_cosigned(std::string_view note, const VerifierKey& key) {
  CG_TRY(const std::string text, open_note(note, key, nullptr));
  CG_TRY(Checkpoint checkpoint, Checkpoint::parse(text));
  if (checkpoint.origin != key.name) return fail("checkpoint: it is of another log");
  return checkpoint;
}

Result<Checkpoint> TlogProof::check(const VerifierKey& key, std::string_view entry) const {
  CG_TRY(Checkpoint under, open_cosigned(checkpoint, key));
  const Digest leaf = kernel::leaf_hash(entry.data(), entry.size());
  CG_CHECK(kernel::verify_inclusion(index, under.size, leaf, path, under.root));
  return under;
}

std::string ConsistencyProof::text() const {
  std::string out = "old " + std::to_string(old_size) + '\n';
  for (const Digest& hash : path) out += base64_of(hash) + '\n';
  return out + '\n' + checkpoint;
}

Result<ConsistencyProof> ConsistencyProof::parse(std::string_view text) {
  if (text.size() > kMaxProofBytes) return fail("consistency proof: too long");
  Lines lines(text, "consistency proof");
  ConsistencyProof proof;
  CG_TRY(const std::string_view first, lines.next());
  if (!first.starts_with("old "))
    return fail("consistency proof: the first line is not \"old SIZE\"");
  CG_TRY(proof.old_size, decimal(lines, first.substr(4)));
  CG_CHECK(read_hashes(lines, proof.path));
  proof.checkpoint = lines.rest();
  return proof;
}

Result<Checkpoint> ConsistencyProof::check(const VerifierKey& key,
                                           std::string_view old_checkpoint) const {
  CG_TRY(Checkpoint now, open_cosigned(checkpoint, key));
  Result<Checkpoint> old = open_cosigned(old_checkpoint, key);
  if (!old) return fail("the old checkpoint: " + old.error().what);
  if (old->size != old_size) {
    return fail("consistency proof: it is from size " + std::to_string(old_size) +
                ", the old checkpoint has " + std::to_string(old->size));
  }
  if (old_size == 0) {  // every log continues the empty one
    if (!path.empty() || old->root != kernel::empty_root())
      return fail("consistency proof: the empty log has no other proof than none");
    return now;
  }
  CG_CHECK(kernel::verify_consistency(old_size, now.size, path, old->root, now.root));
  return now;
}

Result<TlogProof> prove_inclusion(LogReader& log, uint64_t index) {
  TlogProof proof;
  CG_TRY(proof.extra, log.entry(index));
  proof.index = index;
  CG_TRY(proof.path, log.inclusion_proof(index));
  proof.checkpoint = log.note();
  return proof;
}

Result<ConsistencyProof> prove_consistency(LogReader& log, uint64_t old_size) {
  ConsistencyProof proof;
  proof.old_size = old_size;
  CG_TRY(proof.path, log.consistency_proof(old_size));
  proof.checkpoint = log.note();
  return proof;
}

}  // namespace certgate::agentd
