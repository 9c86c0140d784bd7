// Terminal: between the operator's terminal and the private pty of the agent.
//
//   const auto terminal = OperatorTerminal::find();          // any of stdin, stdout, stderr
//   spec.terminal = terminal ? terminal->streams() : 0;
//   ... launch() ...
//   CG_TRY(auto pump, TerminalPump::make(io, *terminal, std::move(box.terminal), end_agent));
//   pump->start();                                            // then release() the agent
//   ... io.run() until the agent has ended ...
//   pump->finish();                                           // drains, gives the terminal back
//
// The agent never holds a descriptor of the operator's terminal; it has the slave of a pty of its
// sandbox. Two threads carry the bytes, since the operator's descriptors are shared with his shell
// and must stay blocking: what waits for the screen must hold up neither keys nor connections.
// One buffer each way, so a slow reader slows the writer.
//
// Modes of the operator's terminal: as found ⇄ raw. Raw only while our process group is in the
// foreground, so that Ctrl-C and Ctrl-Z travel as bytes and the inner line discipline makes signals
// of them. Keys are for whoever asked for them, since another program may be using the terminal (a
// password prompt before us in a pipeline, less behind us):
//   - none are read before the agent has its terminal as stdin, or opens it for reading;
//   - in a pipeline (stdin or stdout a pipe) it goes raw only when the agent has made its pty so,
//     and until then whole lines are read, while the terminal is as a shell leaves it.
// Pump: made → running ⇄ suspended (SIGTSTP … SIGCONT) → drained | hung up (the operator's terminal
// has gone: the agent gets SIGHUP, and is ended when that does not end it).
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>

#include "kernel/result.h"
#include "sandbox/fd.h"
#include "supervisor/operator_terminal.h"

namespace boost::asio {
class io_context;
}

namespace certgate::supervisor {

struct ObjectFacts;

// Which object the agent's own terminal is: what a person types there is `user`.
struct AgentTerminal {
  dev_t dev = 0;
  ino_t ino = 0;
  std::function<void()> keys_wanted;  // to be called when the agent has opened it for reading
  bool is(const ObjectFacts& facts) const;
};

class TerminalPump {
 public:
  // Before any other thread is started: blocks the signals it watches. `end_agent` runs on the io
  // thread when the agent has outlived its terminal.
  static Result<std::unique_ptr<TerminalPump>> make(boost::asio::io_context& io,
                                                    const OperatorTerminal& terminal,
                                                    sandbox::UniqueFd master,
                                                    std::function<void()> end_agent);
  ~TerminalPump();

  // The agent's side, below the sandbox's root.
  Result<AgentTerminal> inside(int root) const;
  void start();
  // The operator's terminal has gone. Any thread.
  void hang_up();
  // The agent has ended: shows what it still wrote, then gives the terminal back. Waits as long as
  // the screen takes bytes, at most a few seconds for each.
  void finish();

 private:
  struct Shared;  // with the threads
  struct Watch;   // on the io thread
  explicit TerminalPump(std::shared_ptr<Shared> shared);
  std::shared_ptr<Shared> shared_;
  std::unique_ptr<Watch> watch_;
};

}  // namespace certgate::supervisor
