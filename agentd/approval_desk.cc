#include "agentd/approval_desk.h"

#include <fcntl.h>
#include <time.h>

#include <cerrno>
#include <charconv>
#include <utility>

#include "agentd/admin_record.h"
#include "supervisor/recorded_policy.h"

namespace certgate::agentd {
namespace {

using supervisor::ApprovalRequest;

constexpr int64_t kClockSlack_ns = 1'000'000'000;

int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

}  // namespace

ApprovalDesk::ApprovalDesk(std::string run, LogStore& log, int line)
    : run_(std::move(run)), log_(log), line_(line) {}

Status ApprovalDesk::take() {
  CG_TRY(auto asked, supervisor::receive_asked(line_));
  if (const auto* over = std::get_if<supervisor::RequestOver>(&asked)) {
    requests_.erase(over->seq);
    return ok();
  }
  if (auto* outcome = std::get_if<supervisor::PolicyOutcome>(&asked)) {
    reload_ = Reload::kNone;
    outcome_ = std::move(*outcome);
    return ok();
  }
  drop_late();
  auto& request = std::get<ApprovalRequest>(asked);
  if (requests_.size() >= kMaxRequests) return fail("more than 256 requests for approval wait");
  const uint64_t seq = request.seq;
  if (!requests_.emplace(seq, std::move(request)).second)
    return fail("two requests for approval have the number " + std::to_string(seq));
  return ok();
}

void ApprovalDesk::drop_late() {
  const int64_t now = now_ns();
  std::erase_if(requests_, [now](const auto& one) { return one.second.deadline_ns <= now; });
}

void ApprovalDesk::open_to(Control& control) {
  control.on("waiting",
             [this](const std::string&, uid_t) -> Result<std::string> { return waiting(); });
  control.on("request", [this](const std::string& body, uid_t) { return request(body); });
  control.on("reload", [this](const std::string& body, uid_t) { return reload(body); });
  control.on("reloaded",
             [this](const std::string&, uid_t) -> Result<std::string> { return reloaded(); });
  control.on("answer", [this](const std::string& body, uid_t uid) { return answer(body, uid); });
}

void ApprovalDesk::serve(boost::asio::io_context& io, std::function<void(const Error&)> failed) {
  failed_ = std::move(failed);
  wait_ = std::make_unique<boost::asio::posix::stream_descriptor>(
      io, ::fcntl(line_, F_DUPFD_CLOEXEC, 0));
  wait();
}

void ApprovalDesk::wait() {
  using boost::asio::posix::stream_descriptor;
  wait_->async_wait(stream_descriptor::wait_read, [this](boost::system::error_code e) {
    if (e) return;
    const Status taken = take();
    if (!taken && taken.error().code == ECONNRESET) return;  // its pidfd says the rest
    if (!taken && taken.error().code != EAGAIN) return failed_(taken.error());
    wait();
  });
}

std::string ApprovalDesk::waiting() {
  drop_late();
  std::string out;
  for (const auto& [seq, request] : requests_) out += std::to_string(seq) + "\n";
  return out;
}

Result<std::string> ApprovalDesk::request(const std::string& text) {
  drop_late();
  uint64_t seq = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seq);
  const auto found = requests_.find(seq);
  if (error != std::errc() || end != text.data() + text.size() || found == requests_.end())
    return fail("no request " + run_ + "-" + text + " waits: answered, too late, or never made");
  const std::vector<uint8_t> bytes = found->second.encode();
  return std::string(bytes.begin(), bytes.end());
}

Result<std::string> ApprovalDesk::reload(const std::string& body) {
  if (reload_ == Reload::kUnderWay) return fail("another policy is being loaded; try again");
  // What the supervisor would refuse is told at once.
  CG_TRY(const kernel::Policy policy, supervisor::read_recorded_policy(body));
  CG_CHECK(supervisor::send_policy(line_, body));
  reload_ = Reload::kUnderWay;
  outcome_.reset();
  return std::string();
}

std::string ApprovalDesk::reloaded() {
  if (!outcome_) return "";
  const bool taken = outcome_->what == supervisor::PolicyOutcome::What::kTaken;
  return (taken ? "taken " : "left ") + outcome_->text;
}

Result<std::string> ApprovalDesk::answer(const std::string& envelope, uint64_t uid) {
  CG_TRY(const ApprovalStatement statement, open_statement(envelope, log_.key().verifier()));
  const std::string id = statement.run + "-" + std::to_string(statement.seq);
  if (statement.run != run_) return fail("the answer is about " + id + ", not about this run");
  drop_late();
  const auto found = requests_.find(statement.seq);
  if (found == requests_.end())
    return fail("no request " + id + " waits: answered, too late, or never made");
  const ApprovalRequest& request = found->second;
  if (statement.digest != request.digest)
    return fail("the answer to " + id + " is about another action");
  if (statement.origins != plain(request.label, request.label.size()))
    return fail("the answer to " + id + " was given under another label");
  const int64_t now = now_ns();
  if (statement.time_ns > now + kClockSlack_ns || statement.expires_ns <= now)
    return fail("the answer to " + id + " is not of now");
  if (statement.uid != uid) return fail("the answer to " + id + " names another user");
  const bool approved = statement.consent == Consent::kApprove;
  supervisor::ApprovalAnswer answer;
  answer.seq = statement.seq;
  answer.answer =
      approved ? kernel::Approval::Answer::kApproved : kernel::Approval::Answer::kDenied;
  answer.who = statement.user + " (uid " + std::to_string(statement.uid) + ")";
  answer.why = statement.why;
  AdminAct act;
  act.command = std::string("certgate ") + (approved ? "approve " : "deny ") + id;
  act.kind = kernel::RecordKind::kApproval;
  act.object = envelope;
  act.grade = approved ? "approved" : "denied";
  act.digest.assign(statement.digest.begin(), statement.digest.end());
  requests_.erase(found);
  CG_CHECK(record_admin(log_, act));
  CG_CHECK(supervisor::send_answer(line_, answer));
  return std::string();
}

}  // namespace certgate::agentd
