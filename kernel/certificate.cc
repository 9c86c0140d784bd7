#include "kernel/certificate.h"

#include <array>
#include <iterator>

#include "kernel/cbor.h"
#include "kernel/merkle.h"

namespace certgate::kernel {
namespace {

struct ReasonRow {
  Reason reason;
  const char* text;
};
constexpr ReasonRow kReasons[] = {
    {Reason::kUntrustedOrigin, "UNTRUSTED_ORIGIN"},
    {Reason::kScopeMissing, "SCOPE_MISSING"},
    {Reason::kForbidden, "FORBIDDEN"},
    {Reason::kTokenExpired, "TOKEN_EXPIRED"},
    {Reason::kTokenMissing, "TOKEN_MISSING"},
    {Reason::kRuleExpired, "RULE_EXPIRED"},
    {Reason::kBudgetExhausted, "BUDGET_EXHAUSTED"},
    {Reason::kHeldWritable, "HELD_WRITABLE"},
    {Reason::kConstraint, "CONSTRAINT_VIOLATION"},
    {Reason::kInternal, "INTERNAL"},
    {Reason::kTokenStaleEpoch, "TOKEN_STALE_EPOCH"},
    {Reason::kTokenRevoked, "TOKEN_REVOKED"},
    {Reason::kTokenWrongHolder, "TOKEN_WRONG_HOLDER"},
    {Reason::kRateLimited, "RATE_LIMITED"},
    {Reason::kClearanceMissing, "CLEARANCE_MISSING"},
};

// Domain separation: the first item of the encoding says which kind of effect follows.
enum class Domain : uint8_t { kOpen = 1, kExec = 2, kConnect = 3 };

void put_file(CborWriter& w, const FileIdentity& file) {
  w.unsigned_int(file.fsid);
  w.unsigned_int(file.ino);
  w.integer(file.btime_ns);
}

void put_strings(CborWriter& w, const std::vector<std::string>& all) {
  w.array(all.size());
  for (const std::string& s : all) w.bytes(s.data(), s.size());
}

struct Encode {
  CborWriter& w;

  void operator()(const OpenEffect& e) const {
    w.array(14);
    w.unsigned_int(static_cast<uint64_t>(Domain::kOpen));
    w.bytes(e.path.data(), e.path.size());
    w.unsigned_int(static_cast<uint64_t>(e.kind));
    put_file(w, e.file);
    w.boolean(e.read);
    w.boolean(e.write);
    w.boolean(e.create);
    w.boolean(e.inside);
    w.boolean(e.replaces);
    w.boolean(e.other_names);
    w.unsigned_int(e.flags);
    w.unsigned_int(e.mode);
  }
  void operator()(const ExecEffect& e) const {
    w.array(5);
    w.unsigned_int(static_cast<uint64_t>(Domain::kExec));
    w.array(e.images.size());
    for (const ExecImage& i : e.images) {
      w.array(6);
      w.bytes(i.path.data(), i.path.size());
      put_file(w, i.file);
      w.bytes(i.sha256.data(), i.sha256.size());
      w.boolean(i.inside);
    }
    put_strings(w, e.argv);
    put_strings(w, e.env);
    w.bytes(e.cwd.data(), e.cwd.size());
  }
  void operator()(const ConnectEffect& e) const {
    w.array(7);
    w.unsigned_int(static_cast<uint64_t>(Domain::kConnect));
    w.unsigned_int(static_cast<uint64_t>(e.transport));
    w.bytes(e.host.data(), e.host.size());
    w.bytes(e.address.data(), e.address.size());
    w.unsigned_int(e.port);
    w.bytes(e.path.data(), e.path.size());
    w.boolean(e.inside);
  }
};

}  // namespace

const char* reason_text(Reason reason) {
  for (const ReasonRow& row : kReasons) {
    if (row.reason == reason) return row.text;
  }
  return "INTERNAL";
}

Result<Reason> parse_reason(std::string_view text) {
  for (const ReasonRow& row : kReasons) {
    if (text == row.text) return row.reason;
  }
  return fail("no such reason code");
}

Digest action_digest(const Effects& effect) {
  CborWriter w;
  std::visit(Encode{w}, effect);
  return sha256(w.data().data(), w.data().size());
}

}  // namespace certgate::kernel
