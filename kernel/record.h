// Record: one leaf of the log. Deterministic CBOR, integer keys ascending, empty fields left out.
//
//   key field      type   meaning
//   1   kind       uint   RecordKind
//   2   run        text   run id of the agent (8 characters)
//   3   seq        uint   per-run sequence number from 1, without gaps
//   4   wall_ns    int    CLOCK_REALTIME
//   5   boot_ns    int    CLOCK_BOOTTIME
//   6   pid        uint   pid on the host
//   7   call       text   system call name ("openat", "execve", …); empty for run events
//   8   verb       uint   Verb + 1
//   9   object     bytes  resolved path, host:port, or for start the command line
//   10  asked      bytes  as the agent wrote it, when different from object
//   11  rule       text   rule id(s), joined by '+'
//   12  reason     text   refusal: reason code
//   13  token      text   token id
//   14  origins    text   label that was judged, canonical text
//   15  raised     text   sandbox label after the call, when it rose
//   16  culprit    text   refusal: the origin that broke it
//   17  argument   text   refusal: which part carried it
//   18  why        text   refusal: the rule's sentence
//   19  digest     bytes  32: action digest (certificate) or policy digest (start)
//   20  ino        uint   inode of the object
//   21  sha256     bytes  32: content of the executable
//   22  argv       array of bytes  exec: arguments, at most kMaxRecordArgs, each cut at
//   kMaxRecordArgBytes 23  ref        uint   outcome: seq of the certificate it reports on 24 errno
//   uint   outcome or refusal: errno the agent saw 25  grade      text   evidence grade:
//   "emulated", "exec-proved", "killed:proof" 26  count      uint   stop/gap: how many (see
//   kind); certificate: 1 + the calls that its tokens have left, absent without a budget
//   27  detail     bytes  certificate: the rest of what its digest covers (certificate.h)
//   28  lineage    array of uint  certificate, refusal: for each origin and tag of `origins`, in
//   order, the seq of the record that brought it in, 0 = the start; absent when all are 0
//   29  body       bytes  policy: a part of it (supervisor/recorded_policy.h); count = bytes in all
//   35  args       bytes  32: digest of all arguments, when argv holds them not whole
//   36  risk       uint   Risk, absent when low
//   ref of a certificate, refusal or approval: also the seq of the request that was asked
//   30  tool       text   tool of the call, or that was pinned at the start
//   31  sources    text   exec by a tool: arguments that are not the agent's words
//                         (supervisor/tool_sources.h)
//   32  permit     text   exec: id of the permit that it used
//   33  intent     text   request: what the agent says it is for; never trusted
//   40  since  int  halt, throttle: CLOCK_BOOTTIME when it began; count = ms that it lasted
//   41  blobs  array of bytes  values kept out: commitment (32) | name (supervisor/blob_file.h)
//   of pid: 42 started (clock ticks), 43 exec (seq of its image's certificate), 44 parent (a pid)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"

namespace certgate::kernel {

inline constexpr size_t kMaxRecordBytes = 65535;  // tlog-tiles entries are uint16-prefixed
inline constexpr size_t kMaxRecordArgs = 64;
inline constexpr size_t kMaxRecordArgBytes = 256;
inline constexpr size_t kMaxRecordObjectBytes = 8192;
inline constexpr size_t kMaxRecordDetailBytes = 4096;  // a longer one is left out
inline constexpr size_t kMaxRecordLineage = 40;
inline constexpr size_t kMaxRecordBodyBytes = 60000;
// In a lineage: the record that it is in. Whoever gives it its seq puts that here.
inline constexpr uint64_t kThisRecord = UINT64_MAX;
inline constexpr size_t kMaxRecordBlobs = 48, kMaxRecordBlobBytes = 64;

// The grade of refusals that the self-test at the start provoked; no other refusal has a grade.
inline constexpr const char* kSelfTestGrade = "self-test";
// The grade of certificates that the policy would have refused, for `reason`, `why` and `culprit`:
// the operator let it only look on (`certgate run --observe`). Also of that run's start record.
inline constexpr const char* kObservedGrade = "observed";

enum class RecordKind : uint8_t {
  kStart = 1,  // a run began: object = command line, digest = policy digest; asked = the workspace,
               // argument = the home inside; grade "observed" = see kObservedGrade
  kCertificate = 2,
  kRefusal = 3,
  kOutcome = 4,  // what came of a certificate: errno, grade; ref = its seq
  kToken = 5,    // a token was made: token id, object = its DSSE envelope
  kStop = 6,     // a run ended: count = last seq before it, errno = exit status
  kGap = 7,      // records of a run may be missing: count = bytes that could not be read
  kRaise = 8,    // the label rose because of another run: raised = to, ino = of the file, why
  kRevoke = 9,   // token: no call by this one or one made from it any more
  kEpoch = 10,   // count: the authority's epoch from now on; tokens of another are over
  // grade: asked, approved, denied, expired, withdrawn; digest: of the action
  kApproval = 11,
  kPolicy = 12,  // a part of the policy that the run began with
  kGiven = 20,   // given at the start: object = message N or a pinned tool's program, sha256
  kPermit = 21,  // a request was answered with a permit for one exec: object, argv, tool, sources
  kPolicyChange = 13,  // digest: of the policy from now on, object: of the one before, in hex

  kHalt = 15,      // the disk is full: no call is taken; with ref = its seq: there is room again
  kThrottle = 16,  // calls were slowed down, as the agent made too many records
  kErased = 17,    // the blob `argument` of the record `object` was erased
  kPruned = 18,    // count: index of the first record that is kept
  kAuditRead = 14,  // somebody read the log: object = who
  kExit = 19,       // the process of pid, started, exec ended; count = 1 + its wait status, if known
};
const char* record_kind_text(RecordKind kind);  // "start", "certificate", …

struct Record {
  RecordKind kind = RecordKind::kRefusal;
  std::string run;
  uint64_t seq = 0;
  int64_t wall_ns = 0;
  int64_t boot_ns = 0;
  uint32_t pid = 0;
  std::string call;
  uint8_t verb = 0;  // Verb + 1, 0 = none
  std::string object, asked;
  std::string rule, reason, token, origins, raised, culprit, argument, why;
  std::vector<uint8_t> digest;  // empty or 32 bytes
  uint64_t ino = 0;
  std::vector<uint8_t> sha256;  // empty or 32 bytes
  std::vector<std::string> argv;
  uint64_t ref = 0;
  uint32_t error = 0;  // errno
  std::string grade;
  uint64_t count = 0;
  std::string detail, body;
  std::vector<uint64_t> lineage;
  std::vector<uint8_t> args;  // empty or 32 bytes
  uint8_t risk = 0;
  std::string tool, sources, permit, intent;
  int64_t since = 0;
  std::vector<std::string> blobs;
  uint64_t started = 0, exec = 0, parent = 0;

  std::string id() const;  // "<run>-<seq>"
  bool operator==(const Record&) const = default;
};

// Appends to `out`. Strings beyond their limit are cut at encoding, never refused: a record must
// always be possible. Text fields that are not UTF-8 have their bad bytes replaced by '?'.
void encode_record(const Record& record, std::vector<uint8_t>& out);
// Strict: unknown keys, wrong order, wrong types, empty fields that should be absent are errors.
Result<Record> decode_record(const uint8_t* data, size_t size);

}  // namespace certgate::kernel
