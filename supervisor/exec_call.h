// execve, execveat: judged at the notification, proved at PTRACE_EVENT_EXEC.
//
//   decode   copies path, argv, envp once; pins and hashes the named file, every script interpreter
//            of its #! chain and the ELF loader
//   perform  lets the kernel exec while the thread is seized; at the one stop, before the new
//   image's
//            first instruction, compares what really runs with what was certified:
//            executable and loader (inode, content), argv, envp, AT_EXECFN, uids and gids
//   A difference kills the process and leaves an outcome "killed:proof".
// All of it runs on one tracer thread per agent, one exec at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "supervisor/content.h"
#include "supervisor/script_binding.h"
#include "supervisor/trap.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxExecStrings = 65536;
inline constexpr size_t kMaxExecBytes = 8u << 20;
inline constexpr int kMaxInterpreters = 5;  // as in the kernel

struct PinnedImage {
  sandbox::UniqueFd fd;  // readable
  ObjectFacts facts;
  kernel::ExecImage image;
  bool labelled = true;
};

struct PinnedExec {
  std::string asked;
  std::vector<PinnedImage> images;      // named file, interpreters, binary; loader not included
  std::vector<PinnedImage> loader;      // zero or one
  std::vector<std::string> argv, env;   // as the caller passed them
  std::vector<std::string> final_argv;  // after the kernel's script rewriting
  std::string execfn;                   // what AT_EXECFN must say
  std::string cwd;
  std::string script_path;  // what the last interpreter will open, "" = no script
  std::vector<int> inherited;  // above 2, where a tool asks
  bool stdio_only = false;     // certified as a tool that is handed on nothing else

  kernel::ExecEffect effect() const;
  const PinnedImage& binary() const { return images.back(); }
};

class ExecCalls {
 public:
  ExecCalls(Trap& trap, ScriptBindings& bindings, ContentDigests& digests);
  ~ExecCalls();
  // Hands the call to the tracer thread; returns at once.
  void submit(const sandbox::TrappedCall& call);
  // Runs `job` on the tracer thread, between execs.
  void run_apart(std::function<void()> job);
  // For the tool gate, on the tracer thread: pins what an exec of `path` would. 0 or errno.
  int pin_program(const std::string& path, PinnedExec& pin);
  Result<kernel::Label> images_label(const PinnedExec& pin, Reads reads) const;
  // Whether any exec has succeeded yet (the first is the command itself).
  bool started() const { return started_; }

 private:
  void run();
  void handle(const sandbox::TrappedCall& call);
  int decode(const sandbox::TrappedCall& call, PinnedExec& pin);
  int pin_named(const sandbox::TrappedCall& call, PinnedExec& pin);
  int pin_chain(int tid, Base cwd, PinnedExec& pin);
  void look_at_descriptors(int tid, PinnedExec& pin) const;
  int pin_image(int tid, Base base, const std::string& path, PinnedImage& out);
  int finish_image(PinnedImage& image);
  void perform(const sandbox::TrappedCall& call, Judged judged, PinnedExec& pin);
  // Empty when the stopped process is what was certified, else what differs.
  std::string difference(pid_t pid, const PinnedExec& pin);

  Trap& trap_;
  ScriptBindings& bindings_;
  ContentDigests& digests_;
  std::mutex mutex_;  // guards queue_, jobs_, stop_
  std::condition_variable wake_;
  std::deque<sandbox::TrappedCall> queue_;
  std::deque<std::function<void()>> jobs_;
  bool stop_ = false;
  std::atomic<bool> started_ = false;
  std::thread tracer_;
};

}  // namespace certgate::supervisor
