// Exit watch: one `exit` record for each process whose image was proved, when it ends.
//
//   ExitWatch exits(io, recorder, [&](const std::string& what) { session.fatal(what); });
//   exits.watch(pid, started, seq);     // by any thread, while the process is stopped at its exec
//   exits.finish();                     // all inside are dead: those whose end was not seen yet
//
// watched → ended (recorded once), however often the process makes an exec in between: the record
// names the last one. A process that was forked and never made an exec is not watched. At most
// kMaxWatched at once, and a quarter of our descriptors: beyond, a process has no exit record.
//
// All of it is the io thread's but one pidfd_open, so no decision waits for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace boost::asio {
class io_context;
}

namespace certgate::supervisor {

class Recorder;

inline constexpr size_t kMaxWatched = 2048;

// How the process behind a pidfd ended, as wait(2) would say it; none while it lives, or where
// nothing tells: Linux before 6.15 when its parent was the first to ask.
std::optional<int> wait_status_of(int pidfd, int pid, uint64_t started);

class ExitWatch {
 public:
  ExitWatch(boost::asio::io_context& io, Recorder& recorder,
            std::function<void(const std::string&)> on_failure);
  ~ExitWatch();
  void watch(int pid, uint64_t started, uint64_t exec);
  void finish();

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace certgate::supervisor
