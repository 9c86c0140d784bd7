#include "agentd/approval_statement.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "kernel/mutant.h"
#include "kernel/token.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

bool is_plain(char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

// Takes apart what payload() and dsse_envelope() put together.
class Scan {
 public:
  explicit Scan(std::string_view text) : left_(text) {}
  Status expect(std::string_view literal) {
    if (!left_.starts_with(literal)) return fail("approval: expected " + std::string(literal));
    left_.remove_prefix(literal.size());
    return ok();
  }
  // `before`, then all up to the next quote.
  Result<std::string> text(std::string_view before) {
    CG_CHECK(expect(before));
    const size_t end = left_.find('"');
    if (end == std::string_view::npos) return fail("approval: a string that does not end");
    const std::string out(left_.substr(0, end));
    left_.remove_prefix(end);
    if (!std::all_of(out.begin(), out.end(), is_plain))
      return fail("approval: a string that is not plain");
    return out;
  }
  template <typename T>
  Result<T> number(std::string_view before) {
    CG_CHECK(expect(before));
    T value = 0;
    const auto [end, error] = std::from_chars(left_.data(), left_.data() + left_.size(), value);
    if (error != std::errc()) return fail("approval: not a number");
    left_.remove_prefix(static_cast<size_t>(end - left_.data()));
    return value;
  }

 private:
  std::string_view left_;
};

Result<ApprovalStatement> parse_payload(const std::string& payload) {
  Scan scan(payload);
  ApprovalStatement out;
  CG_TRY(const std::string digest, scan.text("{\"digest\":\""));
  CG_TRY(out.expires_ns, scan.number<int64_t>("\",\"exp\":"));
  CG_TRY(out.issuer, scan.text(",\"iss\":\""));
  CG_TRY(out.nonce, scan.text("\",\"nonce\":\""));
  CG_TRY(out.origins, scan.text("\",\"origins\":\""));
  CG_TRY(out.run, scan.text("\",\"run\":\""));
  CG_TRY(out.seq, scan.number<uint64_t>("\",\"seq\":"));
  CG_TRY(out.time_ns, scan.number<int64_t>(",\"time\":"));
  CG_TRY(out.uid, scan.number<uint64_t>(",\"uid\":"));
  CG_TRY(out.user, scan.text(",\"user\":\""));
  CG_TRY(const std::string verdict, scan.text("\",\"verdict\":\""));
  CG_TRY(out.why, scan.text("\",\"why\":\""));
  out.consent = verdict == "approve" ? Consent::kApprove : Consent::kDeny;
  for (size_t i = 0; i < out.digest.size() && 2 * i + 2 <= digest.size(); ++i) {
    const char* at = digest.data() + 2 * i;
    if (std::from_chars(at, at + 2, out.digest[i], 16).ptr != at + 2)
      return fail("approval: a digest that is not hex");
  }
  // Whatever was passed over above shows here.
  if (out.payload() != payload) return fail("approval: its payload is not canonical");
  return out;
}

}  // namespace

std::string plain(std::string_view text, size_t max) {
  std::string out(text.substr(0, max));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return !is_plain(c); }, '?');
  return out;
}

std::string ApprovalStatement::payload() const {
  return fmt::format(
      R"({{"digest":"{}","exp":{},"iss":"{}","nonce":"{}","origins":"{}","run":"{}","seq":{},)"
      R"("time":{},"uid":{},"user":"{}","verdict":"{}","why":"{}"}})",
      supervisor::hex(digest), expires_ns, issuer, nonce, origins, run, seq, time_ns, uid, user,
      consent == Consent::kApprove ? "approve" : "deny", why);
}

Result<std::string> seal(ApprovalStatement& statement, const SigningKey& key) {
  statement.issuer = key.name();
  const std::string payload = statement.payload();
  CG_TRY(const Signature signature, key.sign(kernel::dsse_pae(kApprovalPayloadType, payload)));
  return kernel::dsse_envelope(kApprovalPayloadType, payload, key.name(),
                               {signature.begin(), signature.end()});
}

Result<ApprovalStatement> open_statement(std::string_view envelope, const VerifierKey& key) {
  if (envelope.size() > kMaxStatementBytes) return fail("approval: longer than 16 KiB");
  Scan scan(envelope);
  CG_TRY(const std::string payload64, scan.text("{\"payload\":\""));
  CG_TRY(const std::string type, scan.text("\",\"payloadType\":\""));
  CG_TRY(const std::string key_name, scan.text("\",\"signatures\":[{\"keyid\":\""));
  CG_TRY(const std::string signature64, scan.text("\",\"sig\":\""));
  CG_TRY(const std::vector<uint8_t> bytes, base64_decode(payload64));
  CG_TRY(const std::vector<uint8_t> raw, base64_decode(signature64));
  const std::string payload(bytes.begin(), bytes.end());
  if (type != kApprovalPayloadType || key_name != key.name)
    return fail("approval: not a statement of this authority's operators");
  if (kernel::dsse_envelope(type, payload, key_name, raw) != envelope)
    return fail("approval: its envelope is not canonical");
  Signature signature{};
  if (raw.size() != signature.size()) return fail("approval: a signature of a wrong length");
  std::copy(raw.begin(), raw.end(), signature.begin());
  if (!mutant(Mutant::kApproval))
    CG_CHECK(verify_ed25519(key.key, kernel::dsse_pae(type, payload), signature));
  CG_TRY(ApprovalStatement out, parse_payload(payload));
  if (out.issuer != key.name) return fail("approval: its issuer is not the key that signed it");
  return out;
}

}  // namespace certgate::agentd
