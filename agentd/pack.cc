#include "agentd/pack.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <sstream>

#include "agentd/audit_view.h"
#include "agentd/proof.h"

namespace certgate::agentd {
namespace {

using kernel::Digest;
using kernel::Record;

constexpr std::string_view kMagic = "certgate-pack@v1";
constexpr const char* kRoles[] = {"subject", "start", "outcome", "step"};

// The explanation that these records, and nothing else, allow.
struct Told {
  Explanation why;
  void take(const std::string& role, uint64_t index, Record record) {
    if (role == "subject") {
      why.index = index;
      why.origin = record.culprit;
      why.record = std::move(record);
    } else if (role == "start") {
      why.start = std::move(record);
    } else if (role == "outcome") {
      why.outcome = std::move(record);
    } else {
      why.chain.push_back(Step{index, std::move(record), ""});
    }
  }
  std::string report() const {
    std::ostringstream out;
    print_explanation(why, Format::kText, out);
    return out.str();
  }
};

class Writer {
 public:
  explicit Writer(Index& index) : index_(index) {}
  Status add(const char* role, uint64_t pos) {
    CG_TRY(const std::string bytes, index_.bytes(pos));
    CG_TRY(const std::vector<Digest> path, index_.log().inclusion_proof(pos));
    CG_TRY(Record record, index_.record(pos));
    std::string numbers;
    for (const Digest& hash : path) {
      const auto [at, made] = numbers_.try_emplace(hash, hashes_.size());
      if (made) hashes_.push_back(hash);
      numbers += (numbers.empty() ? "" : ".") + std::to_string(at->second);
    }
    records_ += std::string("record ") + role + ' ' + std::to_string(pos) + ' ' +
                (numbers.empty() ? "-" : numbers) + ' ' +
                base64_encode(bytes.data(), bytes.size()) + '\n';
    told_.take(role, pos, std::move(record));
    return ok();
  }
  Status subject(const std::string& id) {
    CG_TRY(const uint64_t pos, index_.find(id));
    CG_TRY(const Explanation why, explain(index_, id));
    told_ = Told();
    CG_CHECK(add("subject", pos));
    auto related = [&](const char* role, const std::optional<Record>& record) -> Status {
      if (!record) return ok();
      CG_TRY(const uint64_t at, index_.find(record->id()));
      return add(role, at);
    };
    CG_CHECK(related("start", why.start));
    CG_CHECK(related("outcome", why.outcome));
    for (const Step& step : why.chain) CG_CHECK(add("step", step.pos));
    report_ += told_.report();
    return ok();
  }
  std::string text() const {
    std::string out = std::string(kMagic) + '\n';
    for (size_t at = 0; at < report_.size();) {
      const size_t end = report_.find('\n', at);
      out += "# " + report_.substr(at, end + 1 - at);
      at = end + 1;
    }
    out += records_;
    for (const Digest& hash : hashes_)
      out += "hash " + base64_encode(hash.data(), hash.size()) + '\n';
    return out + '\n' + index_.log().note();
  }

 private:
  Index& index_;
  Told told_;
  std::map<Digest, size_t> numbers_;
  std::vector<Digest> hashes_;
  std::string records_, report_;
};

struct Line {
  std::string role, path;
  uint64_t index = 0;
  std::string bytes;
};

struct Parsed {
  std::string report;
  std::vector<Line> records;
  std::vector<Digest> hashes;
  std::string_view checkpoint;
};

Error wrong(size_t line, const std::string& what) {
  return fail("pack: line " + std::to_string(line) + ": " + what);
}

Result<std::vector<std::string_view>> words_of(std::string_view line, size_t count, size_t number) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at <= line.size();) {
    const size_t end = std::min(line.find(' ', at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  if (words.size() != count)
    return wrong(number, "it should have " + std::to_string(count) + " words");
  return words;
}

Result<uint64_t> decimal(std::string_view text, size_t line) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text != std::to_string(value))
    return wrong(line, "not a plain decimal number");
  return value;
}

Status parse_record(std::string_view line, size_t number, Parsed& out) {
  if (out.records.size() == kMaxPackRecords) return wrong(number, "too many records");
  CG_TRY(const std::vector<std::string_view> words, words_of(line, 5, number));
  Line record;
  record.role = words[1];
  if (std::find(std::begin(kRoles), std::end(kRoles), record.role) == std::end(kRoles))
    return wrong(number, "an unknown role");
  if (out.records.empty() && record.role != "subject")
    return wrong(number, "a subject comes first");
  CG_TRY(record.index, decimal(words[2], number));
  record.path = words[3];
  const Result<std::vector<uint8_t>> bytes = base64_decode(words[4]);
  if (!bytes) return wrong(number, bytes.error().what);
  record.bytes.assign(bytes->begin(), bytes->end());
  out.records.push_back(std::move(record));
  return ok();
}

Status parse_hash(std::string_view line, size_t number, Parsed& out) {
  const Result<std::vector<uint8_t>> bytes = base64_decode(line.substr(5));
  Digest digest;
  if (!bytes || bytes->size() != digest.size())
    return wrong(number, "a hash is not 32 bytes of base64");
  if (out.hashes.size() == kMaxPackRecords * kMaxProofHashes)
    return wrong(number, "too many hashes");
  std::copy(bytes->begin(), bytes->end(), digest.begin());
  out.hashes.push_back(digest);
  return ok();
}

Result<Parsed> parse_pack(std::string_view text) {
  if (text.size() > kMaxPackBytes) return fail("pack: too long");
  Parsed out;
  size_t number = 0;
  for (std::string_view rest = text;;) {
    ++number;
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) return wrong(number, "it ends in the middle");
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    if (number == 1) {
      if (line != kMagic) return fail("pack: the first line is not " + std::string(kMagic));
    } else if (line.empty()) {
      out.checkpoint = rest;
      return out;
    } else if (line.starts_with("# ") && out.records.empty()) {
      out.report.append(line.substr(2)).push_back('\n');
    } else if (line.starts_with("record ") && out.hashes.empty()) {
      CG_CHECK(parse_record(line, number, out));
    } else if (line.starts_with("hash ")) {
      CG_CHECK(parse_hash(line, number, out));
    } else {
      return wrong(number, "not in its place");
    }
  }
}

Result<std::vector<Digest>> path_of(const Line& line, const Parsed& pack) {
  std::vector<Digest> path;
  if (line.path == "-") return path;
  for (size_t at = 0; at <= line.path.size();) {
    const size_t end = std::min(line.path.find('.', at), line.path.size());
    CG_TRY(const uint64_t number, decimal(std::string_view(line.path).substr(at, end - at), 0));
    if (number >= pack.hashes.size() || path.size() == kMaxProofHashes)
      return fail("pack: a record's path has a hash that is not there");
    path.push_back(pack.hashes[number]);
    at = end + 1;
  }
  return path;
}

}  // namespace

Result<std::string> make_pack(Index& index, const std::vector<std::string>& ids) {
  Writer writer(index);
  for (const std::string& id : ids) CG_CHECK(writer.subject(id));
  std::string text = writer.text();
  if (text.size() > kMaxPackBytes) return fail("pack: larger than 4 MiB; pack fewer decisions");
  return text;
}

Result<PackContent> check_pack(std::string_view text, const VerifierKey& key) {
  CG_TRY(const Parsed pack, parse_pack(text));
  PackContent content;
  CG_TRY(content.checkpoint, open_cosigned(pack.checkpoint, key));
  Told told;
  for (const Line& line : pack.records) {
    CG_TRY(const std::vector<Digest> path, path_of(line, pack));
    const Digest leaf = kernel::leaf_hash(line.bytes.data(), line.bytes.size());
    if (Status in = kernel::verify_inclusion(line.index, content.checkpoint.size, leaf, path,
                                             content.checkpoint.root);
        !in)
      return fail("pack: record " + std::to_string(line.index) + " (" + line.role +
                  ") is not in the log: " + in.error().what);
    CG_TRY(Record record, kernel::decode_record(reinterpret_cast<const uint8_t*>(line.bytes.data()),
                                                line.bytes.size()));
    if (line.role == "subject") {
      if (!content.subjects.empty()) content.report += told.report();
      told = Told();
      content.subjects.push_back(record.id());
    } else if ((line.role == "start" || line.role == "outcome") &&
               record.run != told.why.record.run) {
      return fail("pack: record " + std::to_string(line.index) +
                  " is of another run than its subject");
    } else if (line.role == "outcome" && record.ref != told.why.record.seq) {
      return fail("pack: record " + std::to_string(line.index) +
                  " is the outcome of another certificate");
    }
    told.take(line.role, line.index, std::move(record));
  }
  if (content.subjects.empty()) return fail("pack: it has no record");
  content.report += told.report();
  content.records = pack.records.size();
  if (content.report != pack.report)
    return fail("pack: its report does not say what its records say");
  return content;
}

}  // namespace certgate::agentd
