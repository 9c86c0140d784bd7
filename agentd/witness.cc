#include "agentd/witness.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "agentd/state_dir.h"
#include "kernel/merkle.h"
#include "kernel/mutant.h"

namespace certgate::agentd {
namespace {

using kernel::Digest;

constexpr uint8_t kCosignatureType = 0x04;
constexpr std::string_view kPrefix = "\xE2\x80\x94 ";  // em dash, space
constexpr size_t kTimeBytes = 8;
constexpr size_t kCosignatureBytes = 4 + kTimeBytes + 64;

Result<std::string_view> take_line(std::string_view& rest) {
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) return fail("a line without its end");
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  return line;
}

std::optional<uint64_t> decimal(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (text.size() > 1 && text[0] == '0') return std::nullopt;
  return value;
}

void put_big_endian(std::string& out, uint64_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
}

std::string hex(const uint8_t* data, size_t size) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (size_t i = 0; i < size; ++i) {
    out += kDigits[data[i] >> 4];
    out += kDigits[data[i] & 15];
  }
  return out;
}

// One file for each origin, whose name cannot be chosen by whoever sends it.
std::string path_of(const std::string& origin) {
  const Digest name = kernel::sha256(origin.data(), origin.size());
  return "witness/" + hex(name.data(), name.size());
}

std::string signed_text(const std::string& text, uint64_t unix_time) {
  return "cosignature/v1\ntime " + std::to_string(unix_time) + "\n" + text;
}

std::string tagged_key(const PublicKey& key) {
  std::string out(1, static_cast<char>(kCosignatureType));
  out.append(key.begin(), key.end());
  return out;
}

// The text of a note is what stands before its blank line.
std::string_view text_part(std::string_view note) {
  const size_t end = note.find("\n\n");
  return end == std::string_view::npos ? std::string_view() : note.substr(0, end + 1);
}

}  // namespace

Result<AddCheckpoint> parse_add_checkpoint(std::string_view body) {
  if (body.size() > kMaxWitnessBody) return fail("the request is too long");
  AddCheckpoint out;
  CG_TRY(const std::string_view first, take_line(body));
  if (!first.starts_with("old ")) return fail("the first line is not \"old SIZE\"");
  const auto old_size = decimal(first.substr(4));
  if (!old_size) return fail("the old size is not a decimal number");
  out.old_size = *old_size;
  for (;;) {
    CG_TRY(const std::string_view line, take_line(body));
    if (line.empty()) break;
    if (out.proof.size() == kMaxProofLines) return fail("more than 63 proof lines");
    CG_TRY(const std::vector<uint8_t> bytes, base64_decode(line));
    if (bytes.size() != sizeof(Digest)) return fail("a proof hash is not 32 bytes");
    std::copy(bytes.begin(), bytes.end(), out.proof.emplace_back().begin());
  }
  if (body.empty() || body.size() > kMaxNoteBytes) return fail("no checkpoint, or one too long");
  out.note = body;
  return out;
}

std::string add_checkpoint_body(const AddCheckpoint& request) {
  std::string out = "old " + std::to_string(request.old_size) + "\n";
  for (const Digest& hash : request.proof) out += base64_encode(hash.data(), hash.size()) + "\n";
  return out + "\n" + request.note;
}

uint32_t CosignerKey::id() const {
  const std::string all = name + "\n" + tagged_key(key);
  const Digest digest = kernel::sha256(all.data(), all.size());
  return uint32_t{digest[0]} << 24 | uint32_t{digest[1]} << 16 | uint32_t{digest[2]} << 8 |
         uint32_t{digest[3]};
}

std::string CosignerKey::text() const {
  std::string number;
  put_big_endian(number, id(), 4);
  const std::string tagged = tagged_key(key);
  return name + '+' + hex(reinterpret_cast<const uint8_t*>(number.data()), 4) + '+' +
         base64_encode(tagged.data(), tagged.size());
}

Result<CosignerKey> CosignerKey::parse(std::string_view text) {
  const size_t first = text.find('+');
  const size_t second = first == std::string_view::npos ? first : text.find('+', first + 1);
  if (second == std::string_view::npos) return fail("a witness key has the form NAME+ID+KEY");
  CG_TRY(const std::vector<uint8_t> bytes, base64_decode(text.substr(second + 1)));
  CosignerKey out;
  if (bytes.size() != 1 + out.key.size() || bytes[0] != kCosignatureType)
    return fail("not the key of a witness (cosignature/v1, type 0x04)");
  out.name = text.substr(0, first);
  std::copy(bytes.begin() + 1, bytes.end(), out.key.begin());
  if (out.name.empty() || out.text() != text) return fail("the id does not belong to this key");
  return out;
}

Result<std::string> cosign(const CosignerKey& as, const HolderKey& key, const std::string& text,
                           uint64_t unix_time) {
  CG_TRY(const Signature signature, key.sign(signed_text(text, unix_time)));
  std::string bytes;
  put_big_endian(bytes, as.id(), 4);
  put_big_endian(bytes, unix_time, kTimeBytes);
  bytes.append(signature.begin(), signature.end());
  return std::string(kPrefix) + as.name + ' ' + base64_encode(bytes.data(), bytes.size()) + '\n';
}

Result<uint64_t> check_cosignature(const CosignerKey& key, const std::string& text,
                                   std::string_view line) {
  const std::string begin = std::string(kPrefix) + key.name + ' ';
  if (!line.starts_with(begin) || !line.ends_with('\n'))
    return fail("not a signature line of the witness " + key.name);
  line.remove_prefix(begin.size());
  line.remove_suffix(1);
  CG_TRY(const std::vector<uint8_t> bytes, base64_decode(line));
  if (bytes.size() != kCosignatureBytes) return fail("the cosignature has a wrong length");
  std::string number;
  put_big_endian(number, key.id(), 4);
  if (!std::equal(number.begin(), number.end(), bytes.begin(),
                  [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; }))
    return fail("the cosignature is by another key");
  uint64_t time = 0;
  for (size_t i = 4; i < 4 + kTimeBytes; ++i) time = time << 8 | bytes[i];
  Signature signature;
  std::copy(bytes.begin() + 4 + kTimeBytes, bytes.end(), signature.begin());
  CG_CHECK(verify_ed25519(key.key, signed_text(text, time), signature));
  return time;
}

Result<Witness> Witness::open(int dir, CosignerKey name, HolderKey key,
                              const std::vector<VerifierKey>& logs) {
  if (logs.empty() || logs.size() > kMaxWitnessedLogs)
    return fail("a witness needs the keys of the logs that it is for: --log VKEY, 1 to 1024 times");
  CG_CHECK(make_dir(dir, "witness"));
  CG_CHECK(make_dir(dir, "tmp"));
  Witness out(dir, std::move(name), std::move(key));
  for (const VerifierKey& log : logs) {
    const auto [at, fresh] = out.logs_.emplace(log.name, log);
    if (!fresh && at->second.key != log.key) return fail("two keys of one log: " + log.name);
  }
  return out;
}

WitnessAnswer Witness::add_checkpoint(std::string_view body) const {
  const Result<AddCheckpoint> request = parse_add_checkpoint(body);
  if (!request) return {400, request.error().what + "\n"};
  const auto text = text_part(request->note);
  const Result<Checkpoint> claimed = Checkpoint::parse(text);
  if (!claimed) return {400, claimed.error().what + "\n"};
  const auto log = logs_.find(claimed->origin);
  if (log == logs_.end()) return {404, "this witness does not know that log\n"};
  const Result<std::string> opened = open_note(request->note, log->second, nullptr);
  if (!opened) return {403, opened.error().what + "\n"};
  if (request->old_size > claimed->size) return {400, "the old size is beyond the checkpoint\n"};
  Result<WitnessAnswer> answer = judge(*request, *claimed);
  if (!answer) return {500, "the witness cannot keep what it signs\n"};
  return *std::move(answer);
}

// Under the lock: two requests for one log are answered one after the other.
Result<WitnessAnswer> Witness::judge(const AddCheckpoint& request, const Checkpoint& asked) const {
  CG_TRY(const DirLock lock, DirLock::exclusive(dir_));
  const std::string path = path_of(asked.origin);
  Checkpoint last{asked.origin, 0, kernel::empty_root()};
  const Result<std::string> kept = read_file(dir_, path, kMaxNoteBytes);
  if (kept) {
    CG_TRY(last, Checkpoint::parse(*kept));
  } else if (kept.error().code != ENOENT) {
    return kept.error();
  }
  const WitnessAnswer conflict{409, std::to_string(last.size) + "\n", "text/x.tlog.size"};
  if (request.old_size != last.size) return conflict;
  if (asked.size == last.size && asked.root != last.root) return conflict;
  const Status grown =
      last.size == 0 || asked.size == last.size
          ? (request.proof.empty() ? ok() : Status(fail("a proof where there is nothing to prove")))
          : kernel::verify_consistency(last.size, asked.size, request.proof, last.root, asked.root);
  if (!grown && !mutant(Mutant::kWitness)) return WitnessAnswer{422, grown.error().what + "\n"};
  const std::string text = asked.text();
  DurableWriter writer(dir_);
  CG_CHECK(writer.put(path, text.data(), text.size()));
  CG_CHECK(writer.flush());
  CG_TRY(std::string line, cosign(as_, key_, text, static_cast<uint64_t>(::time(nullptr))));
  return WitnessAnswer{200, std::move(line)};
}

}  // namespace certgate::agentd
