#include "supervisor/operator_line.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "kernel/cbor.h"
#include "sandbox/wire.h"
#include "supervisor/sealed_text.h"

namespace certgate::supervisor {
namespace {

enum class Kind : uint8_t { kRequest = 1, kOver = 2, kAnswer = 3, kPolicy = 4, kOutcome = 5 };
constexpr size_t kMaxMessage = 65536;
constexpr size_t kRequestItems = 18;
constexpr size_t kMaxStrings = 16384;
constexpr size_t kMaxWords = 1024;

constexpr std::string ApprovalRequest::*kTexts[] = {
    &ApprovalRequest::verb, &ApprovalRequest::call, &ApprovalRequest::object,
    &ApprovalRequest::how,  &ApprovalRequest::cwd,  &ApprovalRequest::rule,
    &ApprovalRequest::why,  &ApprovalRequest::label};
constexpr std::vector<std::string> ApprovalRequest::*kLists[] = {
    &ApprovalRequest::argv, &ApprovalRequest::env, &ApprovalRequest::images,
    &ApprovalRequest::came_in};

Status send_message(int line, const std::vector<uint8_t>& data, int fd = -1) {
  const int error = -sandbox::send_message(line, data.data(), data.size(), fd, MSG_DONTWAIT);
  return error == 0 ? ok() : Status(fail_errno("send to the operators", error));
}

struct Received {
  std::vector<uint8_t> data;
  sandbox::UniqueFd beside;
};

Result<Received> receive_message(int line) {
  Received out;
  out.data.resize(kMaxMessage);
  const ssize_t n =
      sandbox::receive_message(line, out.data.data(), out.data.size(), out.beside, MSG_DONTWAIT);
  if (n == -EPROTO) return fail("a message too long for the operator line", EMSGSIZE);
  if (n < 0) return fail_errno("receive on the operator line", static_cast<int>(-n));
  if (n == 0) return fail("the operator line is closed", ECONNRESET);
  out.data.resize(static_cast<size_t>(n));
  return out;
}

void put(kernel::CborWriter& w, const std::string& bytes) { w.bytes(bytes.data(), bytes.size()); }

Result<ApprovalRequest> read_request(kernel::CborReader& in) {
  ApprovalRequest out;
  CG_TRY(out.seq, in.unsigned_int());
  CG_TRY(const uint64_t pid, in.unsigned_int());
  CG_TRY(const std::string digest, in.bytes(out.digest.size()));
  CG_TRY(const uint64_t risk, in.unsigned_int());
  CG_TRY(out.deadline_ns, in.integer());
  if (digest.size() != out.digest.size() || pid > UINT32_MAX || risk >= kernel::kRisks)
    return fail("a damaged request", EPROTO);
  out.pid = static_cast<uint32_t>(pid);
  std::memcpy(out.digest.data(), digest.data(), digest.size());
  out.risk = static_cast<kernel::Risk>(risk);
  for (const auto text : kTexts) {
    CG_TRY(out.*text, in.bytes(kMaxRequestBytes));
  }
  for (const auto list : kLists) {
    CG_TRY(const size_t count, in.array(kMaxStrings));
    for (size_t i = 0; i < count; ++i) {
      CG_TRY(std::string one, in.bytes(kMaxRequestBytes));
      (out.*list).push_back(std::move(one));
    }
  }
  return out;
}

}  // namespace

std::vector<uint8_t> ApprovalRequest::encode() const {
  kernel::CborWriter w;
  w.array(kRequestItems);
  w.unsigned_int(static_cast<uint64_t>(Kind::kRequest));
  w.unsigned_int(seq);
  w.unsigned_int(pid);
  w.bytes(digest.data(), digest.size());
  w.unsigned_int(static_cast<uint64_t>(risk));
  w.integer(deadline_ns);
  for (const auto text : kTexts) put(w, this->*text);
  for (const auto list : kLists) {
    w.array((this->*list).size());
    for (const std::string& one : this->*list) put(w, one);
  }
  return w.take();
}

Status send_request(int line, const std::vector<uint8_t>& message) {
  if (message.size() > kMaxRequestBytes) return fail("too long to be shown whole", EMSGSIZE);
  return send_message(line, message);
}

Status send_over(int line, uint64_t seq) {
  kernel::CborWriter w;
  w.array(2);
  w.unsigned_int(static_cast<uint64_t>(Kind::kOver));
  w.unsigned_int(seq);
  return send_message(line, w.data());
}

Status send_answer(int line, const ApprovalAnswer& answer) {
  kernel::CborWriter w;
  w.array(5);
  w.unsigned_int(static_cast<uint64_t>(Kind::kAnswer));
  w.unsigned_int(answer.seq);
  w.unsigned_int(static_cast<uint64_t>(answer.answer));
  put(w, answer.who);
  put(w, answer.why);
  return send_message(line, w.data());
}

Status send_policy(int line, const std::string& body) {
  if (body.size() > kMaxPolicyBytes)
    return fail("the policy is larger than 16 MiB; end the agent and start it again with it");
  CG_TRY(const sandbox::UniqueFd sealed, seal_text(body));
  kernel::CborWriter w;
  w.array(1);
  w.unsigned_int(static_cast<uint64_t>(Kind::kPolicy));
  return send_message(line, w.data(), sealed.get());
}

Status send_outcome(int line, const PolicyOutcome& outcome) {
  kernel::CborWriter w;
  w.array(3);
  w.unsigned_int(static_cast<uint64_t>(Kind::kOutcome));
  w.unsigned_int(static_cast<uint64_t>(outcome.what));
  put(w, outcome.text.substr(0, kMaxWords));
  return send_message(line, w.data());
}

Result<FromSupervisor> decode_asked(const uint8_t* data, size_t size) {
  kernel::CborReader in(data, size);
  CG_TRY(const size_t items, in.array(kRequestItems));
  CG_TRY(const uint64_t kind, in.unsigned_int());
  FromSupervisor out;
  if (kind == static_cast<uint64_t>(Kind::kRequest) && items == kRequestItems) {
    CG_TRY(out, read_request(in));
  } else if (kind == static_cast<uint64_t>(Kind::kOver) && items == 2) {
    RequestOver over;
    CG_TRY(over.seq, in.unsigned_int());
    out = over;
  } else if (kind == static_cast<uint64_t>(Kind::kOutcome) && items == 3) {
    PolicyOutcome outcome;
    CG_TRY(const uint64_t what, in.unsigned_int());
    if (what > static_cast<uint64_t>(PolicyOutcome::What::kTaken))
      return fail("an unexpected message on the operator line", EPROTO);
    outcome.what = static_cast<PolicyOutcome::What>(what);
    CG_TRY(outcome.text, in.bytes(kMaxWords));
    out = std::move(outcome);
  } else {
    return fail("an unexpected message on the operator line", EPROTO);
  }
  if (!in.done()) return fail("bytes after a message on the operator line", EPROTO);
  return out;
}

Result<FromSupervisor> receive_asked(int line) {
  CG_TRY(const Received got, receive_message(line));
  return decode_asked(got.data.data(), got.data.size());
}

Result<FromAuthority> receive_answer(int line) {
  CG_TRY(const Received got, receive_message(line));
  kernel::CborReader in(got.data.data(), got.data.size());
  CG_TRY(const size_t items, in.array(kRequestItems));
  CG_TRY(const uint64_t kind, in.unsigned_int());
  if (kind == static_cast<uint64_t>(Kind::kPolicy) && items == 1) {
    NewPolicy policy;
    if (!in.done() || !got.beside)
      return fail("an unexpected message on the operator line", EPROTO);
    CG_TRY(policy.body, read_sealed(got.beside.get(), kMaxPolicyBytes));
    return FromAuthority(std::move(policy));
  }
  ApprovalAnswer out;
  CG_TRY(out.seq, in.unsigned_int());
  CG_TRY(const uint64_t answer, in.unsigned_int());
  CG_TRY(out.who, in.bytes(kMaxWords));
  CG_TRY(out.why, in.bytes(kMaxWords));
  out.answer = static_cast<kernel::Approval::Answer>(answer);
  if (items != 5 || kind != static_cast<uint64_t>(Kind::kAnswer) || !in.done() ||
      answer > static_cast<uint64_t>(kernel::Approval::Answer::kDenied)) {
    return fail("an unexpected message on the operator line", EPROTO);
  }
  return FromAuthority(std::move(out));
}

}  // namespace certgate::supervisor
