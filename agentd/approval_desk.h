// Approval desk: the authority's side of approvals: what waits, and whether an answer is one.
//
//   ApprovalDesk desk(run, log, std::move(line));
//   CG_CHECK(desk.take());                       // each message of the supervisor
//   desk.open_to(control);                       // verbs: waiting, request, answer
//
// An answer is taken when its signature holds, it is about a request that waits, names that very
// action digest and label, is in time, and names the uid that hands it in. It is logged (a run of
// its own of three records, admin_record.h) before the supervisor hears of it, and the request is
// then closed: an answer is taken once.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "agentd/approval_statement.h"
#include "agentd/control.h"
#include "agentd/log_store.h"
#include "supervisor/operator_line.h"

namespace certgate::agentd {

inline constexpr size_t kMaxRequests = 256;  // of one run; its supervisor lets 64 wait

class ApprovalDesk {
 public:
  ApprovalDesk(std::string run, LogStore& log, int line);

  // One message of the supervisor. Code EAGAIN: there is none; ECONNRESET: it is gone.
  Status take();
  void open_to(Control& control);
  // Takes messages as they come; `failed` is told of one that no supervisor of ours sends.
  void serve(boost::asio::io_context& io, std::function<void(const Error&)> failed);

  // The numbers of the requests that wait, one a line.
  std::string waiting();
  Result<std::string> request(const std::string& seq);  // as ApprovalRequest::encode()
  Result<std::string> answer(const std::string& envelope, uint64_t uid);
  // Another policy for the run (supervisor/recorded_policy.h): handed on; what became of it is
  // asked for later: "", "taken <µs>" or "left <why>".
  Result<std::string> reload(const std::string& body);
  std::string reloaded();

 private:
  void drop_late();
  void wait();

  const std::string run_;
  LogStore& log_;
  const int line_;
  std::map<uint64_t, supervisor::ApprovalRequest> requests_;
  enum class Reload : uint8_t { kNone, kUnderWay } reload_ = Reload::kNone;
  std::optional<supervisor::PolicyOutcome> outcome_;  // of the last one
  std::unique_ptr<boost::asio::posix::stream_descriptor> wait_;
  std::function<void(const Error&)> failed_;
};

}  // namespace certgate::agentd
