#include "kernel/record.h"

#include <algorithm>
#include <cstring>

#include "kernel/cbor.h"
#include "kernel/policy.h"

namespace certgate::kernel {
namespace {

enum Key : uint8_t {
  kKind = 1,
  kRun,
  kSeq,
  kWall,
  kBoot,
  kPid,
  kCall,
  kVerb,
  kObject,
  kAsked,
  kRule,
  kReason,
  kToken,
  kOrigins,
  kRaised,
  kCulprit,
  kArgument,
  kWhy,
  kDigest,
  kIno,
  kSha256,
  kArgv,
  kRef,
  kErrno,
  kGrade,
  kCount,
  kDetail,
  kLineage,
  kBody,
  kTool,
  kSources,
  kPermit,
  kIntent,
  kArgs = 35,
  kRisk,
  kSince = 40,
  kBlobs,
  kStarted,
  kExec,
  kParent,
};
constexpr size_t kKeys = 40;

enum Major : uint8_t {
  kUnsignedMajor = 0,
  kNegativeMajor = 1,
  kBytesMajor = 2,
  kTextMajor = 3,
  kArrayMajor = 4,
  kMapMajor = 5
};

constexpr const char* kNoKind = "unknown";
// Limits of the text fields. A label of kMaxOrigins origins always fits whole.
constexpr size_t kWordBytes = 64;        // run, call, reason, token, grade
constexpr size_t kPartBytes = 512;       // culprit, argument
constexpr size_t kSentenceBytes = 2048;  // rule, why
constexpr size_t kLabelBytes = 8448;     // origins, raised
// A record can always be made: the longest one still fits a tlog-tiles entry. A body stands alone.
static_assert(2 * kMaxRecordObjectBytes + kMaxRecordArgs * (kMaxRecordArgBytes + 3) +
                  7 * kWordBytes + 4 * kPartBytes + 2 * kSentenceBytes + 2 * kLabelBytes + 3 * 32 +
                  kMaxRecordDetailBytes + kMaxRecordLineage * kMaxCborHead +
                  kMaxRecordBlobs * (kMaxRecordBlobBytes + 3) + (kKeys + 1) * (2 + kMaxCborHead) <=
              kMaxRecordBytes);
static_assert(kMaxRecordBodyBytes + 1024 <= kMaxRecordBytes);

struct TextField {
  Key key;
  std::string Record::*member;
  size_t max;
};
// Ascending keys, in the three runs that the numbers between them leave.
constexpr TextField kMiddle[] = {
    {kRule, &Record::rule, kSentenceBytes},     {kReason, &Record::reason, kWordBytes},
    {kToken, &Record::token, kWordBytes},       {kOrigins, &Record::origins, kLabelBytes},
    {kRaised, &Record::raised, kLabelBytes},    {kCulprit, &Record::culprit, kPartBytes},
    {kArgument, &Record::argument, kPartBytes}, {kWhy, &Record::why, kSentenceBytes},
};

constexpr TextField kLast[] = {
    {kTool, &Record::tool, kWordBytes},
    {kSources, &Record::sources, kPartBytes},
    {kPermit, &Record::permit, kWordBytes},
    {kIntent, &Record::intent, kPartBytes},
};

struct NumberField {
  Key key;
  uint64_t Record::*member;
};
constexpr NumberField kNumbers[] = {{kSeq, &Record::seq},         {kIno, &Record::ino},
                                    {kRef, &Record::ref},         {kCount, &Record::count},
                                    {kStarted, &Record::started}, {kExec, &Record::exec}};

// Bytes that are not UTF-8 become '?', one each, so that the length stays.
void mend_utf8(uint8_t* data, size_t size) {
  for (size_t i = 0; i < size;) {
    const size_t length = data[i] < 0x80 ? 1 : utf8_length(data + i, size - i);
    if (length == 0) data[i] = '?';
    i += std::max<size_t>(length, 1);
  }
}

// Writes fields into room that was reserved for the longest encoding; empty ones are left out.
class Fields {
 public:
  explicit Fields(uint8_t* at) : at_(at) {}
  void number(Key key, uint64_t value) {
    if (value == 0) return;
    start(key);
    at_ = put_cbor_head(at_, kUnsignedMajor, value);
  }
  void integer(Key key, int64_t value) {
    if (value >= 0) return number(key, static_cast<uint64_t>(value));
    start(key);
    at_ = put_cbor_head(at_, kNegativeMajor, ~static_cast<uint64_t>(value));
  }
  void text(Key key, const std::string& value, size_t max) {
    if (value.empty()) return;
    start(key);
    const size_t size = put(kTextMajor, value.data(), std::min(value.size(), max));
    mend_utf8(at_ - size, size);
  }
  void bytes(Key key, const std::string& value, size_t max) {
    if (value.empty()) return;
    start(key);
    put(kBytesMajor, value.data(), std::min(value.size(), max));
  }
  void digest(Key key, const std::vector<uint8_t>& value) {
    if (value.size() != sizeof(Digest)) return;  // there is no other kind
    start(key);
    put(kBytesMajor, value.data(), value.size());
  }
  void list(Key key, const std::vector<std::string>& values, size_t most, size_t max) {
    if (values.empty()) return;
    start(key);
    const size_t count = std::min(values.size(), most);
    at_ = put_cbor_head(at_, kArrayMajor, count);
    for (size_t i = 0; i < count; ++i) {
      put(kBytesMajor, values[i].data(), std::min(values[i].size(), max));
    }
  }
  void numbers(Key key, const std::vector<uint64_t>& values) {
    if (values.empty()) return;
    start(key);
    const size_t count = std::min(values.size(), kMaxRecordLineage);
    at_ = put_cbor_head(at_, kArrayMajor, count);
    for (size_t i = 0; i < count; ++i) at_ = put_cbor_head(at_, kUnsignedMajor, values[i]);
  }
  uint8_t* end() const { return at_; }
  size_t count() const { return count_; }

 private:
  void start(Key key) {
    at_ = put_cbor_head(at_, kUnsignedMajor, key);
    ++count_;
  }
  size_t put(Major major, const void* data, size_t size) {
    at_ = put_cbor_head(at_, major, size);
    if (size > 0) std::memcpy(at_, data, size);
    at_ += size;
    return size;
  }
  uint8_t* at_;
  size_t count_ = 0;
};

// An upper bound of the encoding; cheap, and close for a typical record.
size_t room_for(const Record& r) {
  size_t room = kMaxCborHead + kKeys * (2 + kMaxCborHead) + 3 * sizeof(Digest);
  room += std::min(r.detail.size(), kMaxRecordDetailBytes) +
          std::min(r.body.size(), kMaxRecordBodyBytes) +
          std::min(r.lineage.size(), kMaxRecordLineage) * kMaxCborHead;
  room += std::min(r.object.size(), kMaxRecordObjectBytes);
  room += std::min(r.asked.size(), kMaxRecordObjectBytes);
  room += std::min(r.run.size(), kWordBytes) + std::min(r.call.size(), kWordBytes) +
          std::min(r.grade.size(), kWordBytes);
  for (const TextField& field : kMiddle) room += std::min((r.*field.member).size(), field.max);
  for (const TextField& field : kLast) room += std::min((r.*field.member).size(), field.max);
  const size_t args = std::min(r.argv.size(), kMaxRecordArgs);
  for (size_t i = 0; i < args; ++i) room += 3 + std::min(r.argv[i].size(), kMaxRecordArgBytes);
  return room + std::min(r.blobs.size(), kMaxRecordBlobs) * (3 + kMaxRecordBlobBytes);
}

struct KindRow {
  RecordKind kind;
  const char* text;
};
constexpr KindRow kKinds[] = {
    {RecordKind::kStart, "start"},
    {RecordKind::kCertificate, "certificate"},
    {RecordKind::kRefusal, "refusal"},
    {RecordKind::kOutcome, "outcome"},
    {RecordKind::kToken, "token"},
    {RecordKind::kStop, "stop"},
    {RecordKind::kGap, "gap"},
    {RecordKind::kRaise, "raise"},
    {RecordKind::kRevoke, "revoke"},
    {RecordKind::kEpoch, "epoch"},
    {RecordKind::kApproval, "approval"},
    {RecordKind::kPolicy, "policy"},
    {RecordKind::kGiven, "given"},
    {RecordKind::kPermit, "permit"},
    {RecordKind::kPolicyChange, "policy-change"},
    {RecordKind::kHalt, "halt"},
    {RecordKind::kThrottle, "throttle"},
    {RecordKind::kErased, "erased"},
    {RecordKind::kPruned, "pruned"},
    {RecordKind::kAuditRead, "audit-read"},
    {RecordKind::kExit, "exit"},
};

}  // namespace

const char* record_kind_text(RecordKind kind) {
  const auto* row = std::find_if(std::begin(kKinds), std::end(kKinds),
                                 [kind](const KindRow& r) { return r.kind == kind; });
  return row == std::end(kKinds) ? kNoKind : row->text;
}

std::string Record::id() const { return run + "-" + std::to_string(seq); }

void encode_record(const Record& r, std::vector<uint8_t>& out) {
  const size_t start = out.size();
  out.resize(start + room_for(r));
  // The number of fields comes first but is known last: leave room for its longest head (2 bytes,
  // 40 keys) and close the gap when one byte is enough.
  uint8_t* const base = out.data() + start;
  Fields fields(base + 2);
  fields.number(kKind, static_cast<uint64_t>(r.kind));
  fields.text(kRun, r.run, kWordBytes);
  fields.number(kSeq, r.seq);
  fields.integer(kWall, r.wall_ns);
  fields.integer(kBoot, r.boot_ns);
  fields.number(kPid, r.pid);
  fields.text(kCall, r.call, kWordBytes);
  fields.number(kVerb, r.verb);
  fields.bytes(kObject, r.object, kMaxRecordObjectBytes);
  fields.bytes(kAsked, r.asked, kMaxRecordObjectBytes);
  for (const TextField& field : kMiddle) fields.text(field.key, r.*field.member, field.max);
  fields.digest(kDigest, r.digest);
  fields.number(kIno, r.ino);
  fields.digest(kSha256, r.sha256);
  fields.list(kArgv, r.argv, kMaxRecordArgs, kMaxRecordArgBytes);
  fields.number(kRef, r.ref);
  fields.number(kErrno, r.error);
  fields.text(kGrade, r.grade, kWordBytes);
  fields.number(kCount, r.count);
  if (r.detail.size() <= kMaxRecordDetailBytes)
    fields.bytes(kDetail, r.detail, kMaxRecordDetailBytes);
  fields.numbers(kLineage, r.lineage);
  fields.bytes(kBody, r.body, kMaxRecordBodyBytes);
  for (const TextField& field : kLast) fields.text(field.key, r.*field.member, field.max);
  fields.digest(kArgs, r.args);
  fields.number(kRisk, r.risk);
  fields.integer(kSince, r.since);
  fields.list(kBlobs, r.blobs, kMaxRecordBlobs, kMaxRecordBlobBytes);
  fields.number(kStarted, r.started);
  fields.number(kExec, r.exec);
  fields.number(kParent, r.parent);

  uint8_t* const head_end = put_cbor_head(base, kMapMajor, fields.count());
  const auto body = static_cast<size_t>(fields.end() - (base + 2));
  if (head_end != base + 2) std::memmove(head_end, base + 2, body);
  out.resize(static_cast<size_t>(head_end - out.data()) + body);
}

namespace {

Status read_number(CborReader& in, uint64_t max, uint64_t& to) {
  CG_TRY(to, in.unsigned_int());
  if (to == 0) return fail("a zero that should be left out");
  if (to > max) return fail("a number is too large");
  return ok();
}

Status read_integer(CborReader& in, int64_t& to) {
  CG_TRY(to, in.integer());
  if (to == 0) return fail("a zero that should be left out");
  return ok();
}

Status read_text(CborReader& in, size_t max, std::string& to) {
  CG_TRY(to, in.text(max));
  if (to.empty()) return fail("an empty text that should be left out");
  return ok();
}

Status read_bytes(CborReader& in, size_t max, std::string& to) {
  CG_TRY(to, in.bytes(max));
  if (to.empty()) return fail("empty bytes that should be left out");
  return ok();
}

Status read_digest(CborReader& in, std::vector<uint8_t>& to) {
  CG_TRY(const std::string bytes, in.bytes(sizeof(Digest)));
  if (bytes.size() != sizeof(Digest)) return fail("a digest is not 32 bytes");
  to.assign(bytes.begin(), bytes.end());
  return ok();
}

Status read_list(CborReader& in, size_t most, size_t max, std::vector<std::string>& to) {
  CG_TRY(const size_t count, in.array(most));
  if (count == 0) return fail("an empty list that should be left out");
  to.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(to.emplace_back(), in.bytes(max));
  }
  return ok();
}

Status read_lineage(CborReader& in, std::vector<uint64_t>& to) {
  CG_TRY(const size_t count, in.array(kMaxRecordLineage));
  if (count == 0) return fail("an empty list that should be left out");
  to.resize(count);
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(to[i], in.unsigned_int());
  }
  return ok();
}

template <typename T>
Status read_small(CborReader& in, uint64_t max, T& to) {
  uint64_t value = 0;
  CG_CHECK(read_number(in, max, value));
  to = static_cast<T>(value);
  return ok();
}

Status read_field(CborReader& in, uint64_t key, Record& r) {
  switch (key) {
    case kKind:
      CG_CHECK(read_small(in, UINT8_MAX, r.kind));
      return record_kind_text(r.kind) == kNoKind ? Status(fail("an unknown kind")) : ok();
    case kRun:
      return read_text(in, kWordBytes, r.run);
    case kWall:
      return read_integer(in, r.wall_ns);
    case kBoot:
      return read_integer(in, r.boot_ns);
    case kPid:
      return read_small(in, UINT32_MAX, r.pid);
    case kCall:
      return read_text(in, kWordBytes, r.call);
    case kVerb:
      return read_small(in, kVerbs, r.verb);
    case kObject:
      return read_bytes(in, kMaxRecordObjectBytes, r.object);
    case kAsked:
      return read_bytes(in, kMaxRecordObjectBytes, r.asked);
    case kDigest:
      return read_digest(in, r.digest);
    case kSha256:
      return read_digest(in, r.sha256);
    case kArgv:
      return read_list(in, kMaxRecordArgs, kMaxRecordArgBytes, r.argv);
    case kErrno:
      return read_small(in, UINT32_MAX, r.error);
    case kGrade:
      return read_text(in, kWordBytes, r.grade);
    case kDetail:
      return read_bytes(in, kMaxRecordDetailBytes, r.detail);
    case kLineage:
      return read_lineage(in, r.lineage);
    case kBody:
      return read_bytes(in, kMaxRecordBodyBytes, r.body);
    case kRisk:
      return read_small(in, kRisks - 1, r.risk);
    case kArgs:
      return read_digest(in, r.args);
    case kSince:
      return read_integer(in, r.since);
    case kBlobs:
      return read_list(in, kMaxRecordBlobs, kMaxRecordBlobBytes, r.blobs);
    case kParent:
      return read_number(in, UINT32_MAX, r.parent);
    default:
      break;
  }
  for (const NumberField& field : kNumbers)
    if (field.key == key) return read_number(in, UINT64_MAX, r.*field.member);
  for (const TextField& field : kMiddle)
    if (field.key == key) return read_text(in, field.max, r.*field.member);
  for (const TextField& field : kLast)
    if (field.key == key) return read_text(in, field.max, r.*field.member);
  return fail("an unknown key");
}

}  // namespace

Result<Record> decode_record(const uint8_t* data, size_t size) {
  if (size > kMaxRecordBytes) return fail("record: longer than an entry may be");
  CborReader in(data, size);
  CG_TRY(const size_t count, in.map(kKeys));
  Record record;
  uint64_t last = 0;
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(const uint64_t key, in.unsigned_int());
    if (key <= last) return fail("record: keys are not in ascending order");
    if (i == 0 && key != kKind) return fail("record: it has no kind");
    last = key;
    if (Status field = read_field(in, key, record); !field) {
      return fail("record: key " + std::to_string(key) + ": " + field.error().what);
    }
  }
  if (count == 0) return fail("record: it has no kind");
  if (!in.done()) return fail("record: bytes after its end");
  return record;
}

}  // namespace certgate::kernel
