// Control: how an operator's command speaks to a running authority: one socket for each run,
// control/<run> in the state directory (which is 0700; the socket 0600).
//
//   CG_TRY(Control control, Control::make(state_dir_fd, run));   // before the authority confines
//   control.on("answer", [&](const std::string& body, uid_t peer) -> Result<std::string> { … });
//   control.serve(io);
//   // in the operator's process
//   CG_TRY(const std::string reply, control_call(state_dir_fd, run, "answer", envelope));
//
// SOCK_SEQPACKET, one message each way: "<verb>\n<body>", then "ok\n<body>" or "no\n<why>". A body
// that is too long for one goes beside it, sealed (supervisor/sealed_text.h).
// Having come this way proves nothing but the uid of who asked: what gives a right is signed.
// A socket whose run was killed is removed by the next command that finds it dead.
#pragma once

#include <sys/types.h>

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::agentd {

inline constexpr size_t kMaxControlBytes = 65536;     // of one message
inline constexpr size_t kMaxControlText = 17u << 20;  // of what goes beside it
inline constexpr size_t kMaxControlPeers = 16;        // at once
inline constexpr int kControlSeconds = 10;            // for one message

class Control {
 public:
  using Handler = std::function<Result<std::string>(const std::string& body, uid_t peer)>;

  static Result<Control> make(int state_dir, const std::string& run);
  Control(Control&&) noexcept;
  ~Control();  // removes the socket

  void on(const std::string& verb, Handler handler);
  void serve(boost::asio::io_context& io);  // which must outlive this

 private:
  struct Served;
  Control(sandbox::UniqueFd dir, std::string run, sandbox::UniqueFd listener);
  sandbox::UniqueFd dir_;  // of the sockets
  std::string run_;
  sandbox::UniqueFd listener_;
  std::map<std::string, Handler> handlers_;
  std::shared_ptr<Served> served_;
};

// The runs whose authority listens.
Result<std::vector<std::string>> running_controls(int state_dir);
// Code ECONNREFUSED or ENOENT: that run has ended.
Result<std::string> control_call(int state_dir, const std::string& run, const std::string& verb,
                                 const std::string& body);

}  // namespace certgate::agentd
