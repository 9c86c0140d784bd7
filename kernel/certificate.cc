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
    {Reason::kApprovalRequired, "APPROVAL_REQUIRED"},
    {Reason::kApprovalDenied, "APPROVAL_DENIED"},
    {Reason::kApprovalExpired, "APPROVAL_EXPIRED"},
    {Reason::kClearanceMissing, "CLEARANCE_MISSING"},
    {Reason::kSchemaBreakout, "SCHEMA_BREAKOUT"},
    {Reason::kToolMismatch, "TOOL_MISMATCH"},
    {Reason::kProvenanceLoss, "PROVENANCE_LOSS"},
};

constexpr size_t kTypicalRoom = 256;
std::string text(const CborWriter& w) { return {w.data().begin(), w.data().end()}; }

struct Form {
  ActionForm operator()(const OpenEffect& e) const {
    const bool bits[] = {e.read, e.write, e.create, e.inside, e.replaces, e.other_names};
    uint64_t set = 0;
    for (size_t i = 0; i < std::size(bits); ++i) set |= uint64_t{bits[i]} << i;
    CborWriter w(kTypicalRoom);
    w.array(7);
    w.unsigned_int(e.file.fsid);
    w.integer(e.file.btime_ns);
    w.unsigned_int(static_cast<uint64_t>(e.kind));
    w.unsigned_int(set);
    w.unsigned_int(e.flags);
    w.unsigned_int(e.mode);
    w.bytes(e.how.data(), e.how.size());
    return {ActionForm::Kind::kOpen, e.path, e.file.ino, nullptr, {}, text(w)};
  }
  ActionForm operator()(const ExecEffect& e) const {
    static const ExecImage kNone;
    const ExecImage& first = e.images.empty() ? kNone : e.images[0];
    CborWriter w(kTypicalRoom);
    w.array(6);
    w.unsigned_int(first.file.fsid);
    w.integer(first.file.btime_ns);
    w.boolean(first.inside);
    w.array(e.images.empty() ? 0 : e.images.size() - 1);
    for (size_t i = 1; i < e.images.size(); ++i) {
      const ExecImage& image = e.images[i];
      w.array(6);
      w.bytes(image.path.data(), image.path.size());
      w.unsigned_int(image.file.fsid);
      w.unsigned_int(image.file.ino);
      w.integer(image.file.btime_ns);
      w.bytes(image.sha256.data(), image.sha256.size());
      w.boolean(image.inside);
    }
    const Digest env = strings_digest(e.env);
    w.bytes(env.data(), env.size());
    w.bytes(e.cwd.data(), e.cwd.size());
    return {ActionForm::Kind::kExec, first.path, first.file.ino, &first.sha256,
            strings_digest(e.argv),  text(w)};
  }
  ActionForm operator()(const ConnectEffect& e) const {
    CborWriter w(kTypicalRoom);
    w.array(6);
    w.unsigned_int(static_cast<uint64_t>(e.transport));
    w.bytes(e.host.data(), e.host.size());
    w.bytes(e.address.data(), e.address.size());
    w.unsigned_int(e.port);
    w.bytes(e.path.data(), e.path.size());
    w.boolean(e.inside);
    return {ActionForm::Kind::kConnect, {}, 0, nullptr, {}, text(w)};
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

ActionForm action_form(const Effects& effect) { return std::visit(Form{}, effect); }

Digest strings_digest(const std::vector<std::string>& strings) {
  CborWriter w(2 * kTypicalRoom);
  w.array(strings.size());
  for (const std::string& s : strings) w.bytes(s.data(), s.size());
  return sha256(w.data().data(), w.data().size());
}

Digest action_digest(const ActionForm& form) {
  CborWriter w(form.path.size() + form.detail.size() + kTypicalRoom);
  w.array(6);
  // Domain separation: the first item says which kind of effect follows.
  w.unsigned_int(static_cast<uint64_t>(form.kind));
  w.bytes(form.path.data(), form.path.size());
  w.unsigned_int(form.ino);
  w.bytes(form.sha256, form.sha256 == nullptr ? 0 : sizeof(Digest));
  w.bytes(form.argv.data(), form.argv.size());
  w.bytes(form.detail.data(), form.detail.size());
  return sha256(w.data().data(), w.data().size());
}

Digest action_digest(const Effects& effect) { return action_digest(action_form(effect)); }

}  // namespace certgate::kernel
