#include "supervisor/supervise.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <thread>

#include "kernel/mutant.h"
#include "supervisor/confine.h"
#include "supervisor/connect_call.h"
#include "supervisor/datagrams.h"
#include "supervisor/exec_call.h"
#include "supervisor/exit_watch.h"
#include "supervisor/home_archive.h"
#include "supervisor/limit_watch.h"
#include "supervisor/open_call.h"
#include "supervisor/own_root.h"
#include "supervisor/path_change.h"
#include "supervisor/path_read.h"
#include "supervisor/raise_requests.h"
#include "supervisor/record_rate.h"
#include "supervisor/report.h"
#include "supervisor/resolver.h"
#include "supervisor/self_test.h"
#include "supervisor/terminal.h"
#include "supervisor/token_ledger.h"
#include "supervisor/tool_gate.h"

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;

// "." holds only the places where others are mounted, /var or the directories above the workspace.
constexpr const char* kPrivatePlaces[] = {".",   "tmp",     "var/tmp", "run",
                                          "dev", "dev/shm", "dev/pts", "proc"};

PrivatePlaces private_places(int root, const std::string& home) {
  PrivatePlaces out;
  const auto add = [&](const char* path) {
    struct stat s {};
    if (::fstatat(root, path, &s, AT_SYMLINK_NOFOLLOW) == 0) out.devs.insert(s.st_dev);
  };
  for (const char* path : kPrivatePlaces) add(path);
  add(home.c_str() + 1);
  return out;
}

void prepare_process() {
  ::prctl(PR_SET_DUMPABLE, 0);
  ::umask(0);  // creation modes are computed from the agent's umask, and must arrive unchanged
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGINT, SIG_IGN);  // Ctrl-C is for the agent
  ::signal(SIGQUIT, SIG_IGN);
  ::signal(SIGIO, SIG_IGN);  // a read lease that someone broke while we looked
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
}

sandbox::UniqueFd copy_of(const sandbox::UniqueFd& fd) {
  return sandbox::UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
}

void kill_sandbox(int init_pidfd) {
  ::syscall(SYS_pidfd_send_signal, init_pidfd, SIGKILL, nullptr, 0);
}

// Opens are served where this is called; all that may take longer is handed on.
void dispatch(const sandbox::TrappedCall& call, const sandbox::Listener& listener, OpenCalls& opens,
              ExecCalls& execs, NetCalls& net, PathChanges& changes, PathReads& reads) {
  switch (call.nr) {
    case SYS_open:
    case SYS_openat:
    case SYS_openat2:
    case SYS_creat:
      return opens.handle(call);
    case SYS_execve:
    case SYS_execveat:
      return execs.submit(call);
    case SYS_connect:
    case SYS_bind:
      return net.handle(call);
    default:
      if (PathChanges::handles(call.nr)) return changes.handle(call);
      if (PathReads::handles(call.nr)) return reads.handle(call);
      listener.refuse(call.id, ENOSYS);  // the filter and this list disagree: nothing happens
  }
}

// The notify thread: on the CPU the caller trapped on.
void serve_calls(const sandbox::Listener& listener, OpenCalls& opens, ExecCalls& execs,
                 NetCalls& net, PathChanges& changes, PathReads& reads, RecordRate& rate,
                 Recorder& recorder) {
  for (;;) {
    rate.wait_for_room();
    recorder.wait_for_room();
    const auto call = listener.receive();
    if (!call) return;
    dispatch(*call, listener, opens, execs, net, changes, reads);
  }
}

int exit_status(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

// An outer sandbox may deny what we cannot work without; better said now than at the first call.
Status probe_calls() {
  char byte = 1, copy = 0;
  iovec from{&byte, 1}, to{&copy, 1};
  if (::process_vm_readv(::getpid(), &to, 1, &from, 1, 0) != 1) {
    return fail_errno("process_vm_readv is not available; `certgate doctor` names the cure", errno);
  }
  constexpr pid_t kNobody = 0x7ffffffe;
  if (::ptrace(PTRACE_SEIZE, kNobody, nullptr, nullptr) != -1 || errno != ESRCH) {
    return fail_errno("ptrace is not available; `certgate doctor` names the cure", errno);
  }
  if (::syscall(SYS_pidfd_getfd, -1, 0, 0) != -1 || errno != EBADF) {
    return fail_errno("pidfd_getfd is not available; `certgate doctor` names the cure", errno);
  }
  return ok();
}

Status check_policy(const kernel::TokenChain& chain, const kernel::Policy& policy) {
  const kernel::Digest digest = policy.digest();
  for (const kernel::Token& token : chain) {
    if (token.policy != kernel::Digest{} && token.policy != digest) {
      return fail("token " + token.id +
                  " was made for another policy; run with that one (certgate token show)");
    }
  }
  return ok();
}

// Ends the agent, and knows for what. The end has a limit too: after it we go ourselves, and with
// us everything that a supervisor may be holding.
class End {
 public:
  End(asio::io_context& io, int init_pidfd) : init_pidfd_(init_pidfd), limit_(io) {}
  void by_timeout() {
    timeout_ = true;
    kill();
  }
  void by_signal(int signal) {
    signal_ = signal;
    kill();
  }
  // The exit status, nullopt when it was not us.
  std::optional<int> status() const {
    if (timeout_) {
      print_line("certgate: the time given by --timeout is up; the agent was ended");
      return kExitTimeout;
    }
    return signal_ != 0 ? std::optional<int>(128 + signal_) : std::nullopt;
  }

 private:
  void kill() {
    kill_sandbox(init_pidfd_);
    if (std::exchange(killed_, true)) return;
    limit_.expires_after(kEndsWithin);
    limit_.async_wait([](const boost::system::error_code& e) {
      if (e) return;
      print_line("certgate: the sandbox was killed and has not ended; the supervisor ends itself");
      std::_Exit(kExitFailed);
    });
  }

  static constexpr std::chrono::seconds kEndsWithin{5};
  const int init_pidfd_;
  asio::steady_timer limit_;
  bool killed_ = false;
  bool timeout_ = false;
  int signal_ = 0;
};

// SIGTERM ends the agent, SIGHUP takes its terminal away when there is one.
void await_signals(asio::signal_set& signals, End& end, TerminalPump* terminal) {
  signals.async_wait([&signals, &end, terminal](const boost::system::error_code& e, int signal) {
    if (e) return;
    if (signal == SIGHUP && terminal != nullptr) {
      terminal->hang_up();
    } else {
      end.by_signal(signal);
    }
    await_signals(signals, end, terminal);
  });
}

// One record for each time in which the agent was slowed down.
Status record_throttle(Recorder& recorder, const std::optional<Throttled>& episode) {
  if (!episode) return ok();
  kernel::Record record;
  record.kind = kernel::RecordKind::kThrottle;
  record.since = episode->since_ns;
  record.count = static_cast<uint64_t>((episode->until_ns - episode->since_ns) / 1'000'000);
  record.why = fmt::format("records came too fast: its calls waited {} ms of these {} ms",
                           episode->waited_ns / 1'000'000, record.count);
  CG_CHECK(recorder.append(std::move(record), kernel::Durability::kOrdered));
  return ok();
}

// However supervise() ends, no thread that it must join waits for room.
struct EndOfWaits {
  Recorder& recorder;
  ~EndOfWaits() { recorder.end_waits(); }
};

// Looks at the limits once a second, and at what has become of the log's room and rate.
class LimitTimer {
 public:
  LimitTimer(asio::io_context& io, LimitWatch& watch, Recorder& recorder, RecordRate& rate,
             const Session& session)
      : timer_(io), watch_(watch), recorder_(recorder), rate_(rate), session_(session) {
    wait();
  }

 private:
  void wait() {
    timer_.expires_after(std::chrono::seconds(1));
    timer_.async_wait([this](const boost::system::error_code& e) {
      if (e) return;
      watch_.look();
      Status looked = recorder_.look_for_room();
      if (looked) looked = record_throttle(recorder_, rate_.take_episode(Episode::kOver));
      if (!looked) session_.fatal(looked.error().what);
      wait();
    });
  }

  using Episode = RecordRate::Episode;
  asio::steady_timer timer_;
  LimitWatch& watch_;
  Recorder& recorder_;
  RecordRate& rate_;
  const Session& session_;
};

// Runs the io loop until init has ended. Returns the exit status.
Result<int> run_until_end(asio::io_context& io, sandbox::Sandbox& box, TerminalPump* terminal,
                          std::optional<uint64_t> timeout_ns, LimitWatch& limits) {
  End end(io, box.init_pidfd.get());
  asio::posix::stream_descriptor ended(io, ::fcntl(box.init_pidfd.get(), F_DUPFD_CLOEXEC, 0));
  asio::signal_set stop(io, SIGTERM, SIGHUP);
  await_signals(stop, end, terminal);
  asio::steady_timer timer(io);
  if (timeout_ns) {
    timer.expires_after(std::chrono::nanoseconds(*timeout_ns));
    timer.async_wait([&](const boost::system::error_code& e) {
      if (!e) end.by_timeout();
    });
  }
  ended.async_wait(asio::posix::stream_descriptor::wait_read,
                   [&io](const boost::system::error_code&) { io.stop(); });
  io.run();
  if (terminal != nullptr) terminal->finish();
  const Result<int> status = sandbox::wait_agent(box);
  limits.look();
  if (status) return exit_status(*status);
  if (const auto by_us = end.status()) return *by_us;
  if (limits.met(sandbox::Resource::kMemory)) return 128 + SIGKILL;  // it chose pid 1
  return status.error();
}

// The operator's terminal, when there is one, and the pump between it and the agent's own.
Result<std::unique_ptr<TerminalPump>> make_terminal(asio::io_context& io,
                                                    const std::optional<OperatorTerminal>& ours,
                                                    sandbox::Sandbox& box, AgentTerminal& inside) {
  std::unique_ptr<TerminalPump> pump;
  if (!ours) return pump;
  CG_TRY(pump, TerminalPump::make(io, *ours, std::move(box.terminal),
                                  [&box] { kill_sandbox(box.init_pidfd.get()); }));
  CG_TRY(inside, pump->inside(box.root.get()));
  return pump;
}

// The home's directory, which outlives the sandbox as long as it is open; filled.
Result<sandbox::UniqueFd> take_home(const Hosting& hosting, int root) {
  sandbox::UniqueFd home;
  if (hosting.home.out < 0) return home;
  home.reset(::openat(root, hosting.spec.home.c_str() + 1,
                      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!home) return fail_errno("open the home inside", errno);
  if (hosting.home.in >= 0) CG_CHECK(unpack_home(hosting.home.in, home.get()));
  return home;
}

// Everything inside is dead. A home that cannot be kept leaves the old one.
void leave_home(const Hosting& hosting, int home, const kernel::Label& label) {
  if (home < 0) return;
  std::vector<std::string> mounts;
  for (const sandbox::HomeFile& file : hosting.spec.home_files)
    mounts.push_back(file.target.substr(hosting.spec.home.size() + 1));
  const Status packed = pack_home(
      home, mounts, mutant(Mutant::kHomeLabel) ? hosting.initial : label, hosting.home.out);
  if (packed) return;
  print_line("certgate: the home is not kept, the one before stays: " +
             escape(packed.error().what));
  if (::ftruncate(hosting.home.out, 0) != 0) print_line("certgate: the unfinished home is dropped");
}

// Only where there is something to ask for.
Result<std::optional<ToolGate>> open_gate(asio::io_context& io, const Hosting& hosting,
                                          const sandbox::Sandbox& box, ExecCalls& execs,
                                          Session& session) {
  std::optional<ToolGate> out;
  session.give_messages(hosting.spec.messages);
  if (!hosting.spec.gate) return out;
  struct stat s {};
  if (::fstatat(box.root.get(), sandbox::kGateProgram + 1, &s, AT_SYMLINK_NOFOLLOW) != 0)
    print_line(
        "certgate: the agent's user cannot read certgate itself: `certgate request` is not "
        "there inside, the tool gate's socket is");
  CG_TRY(ToolGate gate, ToolGate::start(io, box, execs, session, hosting.spec.cwd));
  out.emplace(std::move(gate));
  return out;
}

void explain_start_failure(int status, const std::string& command, bool started, size_t refusals) {
  if (started || refusals > 0) return;
  if (status == kExitNotFound) {
    print_line(
        fmt::format("certgate: {}: command not found inside the sandbox (PATH and the policy's "
                    "read_only list decide what is there)",
                    escape(command)));
  } else if (status == kExitRefused) {
    print_line(fmt::format("certgate: {}: not executable", escape(command)));
  }
}

}  // namespace

Result<int> supervise(Hosting hosting, sandbox::UniqueFd channel_fd) {
  CG_CHECK(kernel::validate(hosting.policy));
  CG_CHECK(probe_calls());
  const auto terminal = OperatorTerminal::find();
  if (terminal) hosting.spec.terminal = terminal->streams();
  preload_name_services(hosting.policy);
  // While the authority opens its log: nothing of the agent runs before the grant.
  const Status entered = enter_own_namespaces();
  CG_TRY(sandbox::Sandbox box, sandbox::launch(hosting.spec));  // says why where they are refused
  CG_CHECK(entered);
  CG_CHECK(enter_own_root());
  prepare_process();
  CG_CHECK(sandbox::give_up_privileges());
  CG_TRY(const sandbox::UniqueFd home, take_home(hosting, box.root.get()));

  CG_TRY(Grant grant, receive_grant(channel_fd.get()));
  CG_TRY(const kernel::TokenChain chain, kernel::verify_chain(grant.token_chain, grant.public_key));
  CG_CHECK(check_policy(chain, hosting.policy));
  CG_TRY(TokenLedger ledger,
         TokenLedger::open(chain, std::move(grant.epoch), std::move(grant.token_slots)));
  CG_TRY(LabelView probe_labels,
         LabelView::open(copy_of(grant.label_table), copy_of(grant.label_names)));
  CG_TRY(LabelView asked_labels,
         LabelView::open(copy_of(grant.label_table), copy_of(grant.label_names)));
  CG_TRY(LabelView labels,
         LabelView::open(std::move(grant.label_table), std::move(grant.label_names)));
  CG_TRY(ReaderTable readers, ReaderTable::open(std::move(grant.readers)));
  Channel channel(std::move(channel_fd));
  RecordRate rate(hosting.records_per_second,
                  [&] { say_record_rate(hosting.records_per_second, hosting.report); });
  Recorder recorder(grant.run, chain.back().id.substr(0, 16), std::move(grant.segment),
                    grant.next_seq, &rate);
  recorder.keep_out(std::move(grant.blobs), hosting.redaction);
  recorder.on_full([&](LogRoom::Change change) { say_log_room(change, hosting.report); });
  const sandbox::Listener listener(std::move(box.notify), box.interrupts);
  listener.set_wake(sandbox::Wake::kSameCpu);  // older kernels: slower, not different
  std::optional<kernel::Decider> strict;
  if (hosting.observed != nullptr) strict.emplace(*hosting.observed, chain, grant.run);
  Session session(kernel::Decider(hosting.policy, chain, grant.run), hosting.initial, recorder,
                  std::move(labels), readers, channel, ledger, hosting.report, std::move(strict));
  session.on_fatal([&box](const std::string& what) {
    print_line("certgate: " + escape(what) + "; the agent was ended");
    kill_sandbox(box.init_pidfd.get());
  });
  asio::io_context io(1);
  AgentTerminal agent_terminal;
  CG_TRY(const auto pump, make_terminal(io, terminal, box, agent_terminal));
  Approvals approvals(listener, session, std::move(grant.line), hosting.approve_options);
  session.ask_through(&approvals);
  const PathWalk walk(box.root.get());
  ExitWatch exits(io, recorder, [&session](const std::string& what) { session.fatal(what); });
  Trap trap{listener,
            session,
            walk,
            private_places(box.root.get(), hosting.spec.home),
            InheritedStdio::of_this_process(hosting.spec.terminal),
            ::geteuid(),
            ::getegid(),
            std::move(agent_terminal),
            &approvals,
            &exits};
  ScriptBindings bindings;
  ContentDigests digests(::geteuid());
  NameTable names(hosting.policy);
  session.on_reload([&names](const kernel::Policy& policy) { names.use(policy); });
  Relay relay(io);
  BlockingPool pool(listener, [&recorder] { recorder.wait_for_room(); });
  OpenCalls opens(trap, pool, bindings, digests);
  ExecCalls execs(trap, bindings, digests);
  NetCalls net(trap, pool, box, names, relay);
  CG_TRY(const auto gate, open_gate(io, hosting, box, execs, session));
  CG_TRY(const Resolver resolver, Resolver::start(io, net, names, session));
  CG_TRY(const Datagrams datagrams, Datagrams::start(io, net, names, session));
  PathChanges changes(trap);
  PathReads reads(trap);
  const EndOfWaits end_of_waits{recorder};
  CG_CHECK(confine_supervisor());
  CG_CHECK(prove_refusals(box, trap, ledger, std::move(probe_labels), readers, recorder, channel,
                          digests));
  // Both end with the process: they have nobody to serve once the sandbox is gone.
  std::thread([&] { serve_calls(listener, opens, execs, net, changes, reads, rate, recorder); }).detach();
  // Who was approved comes a second time, on a thread with hints of its own.
  OpenCalls opens_again(trap, pool, bindings, digests);
  std::thread([&] {
    approvals.serve([&](const sandbox::TrappedCall& call) {
      dispatch(call, listener, opens_again, execs, net, changes, reads);
    });
  }).detach();
  note_stdin(readers);
  std::thread([&] { serve_raise_requests(readers, asked_labels, session); }).detach();

  if (pump) pump->start();
  LimitWatch limits(hosting.cgroup, hosting.report);
  CG_CHECK(sandbox::release(box));
  const LimitTimer each_second(io, limits, recorder, rate, session);
  CG_TRY(const int status, run_until_end(io, box, pump.get(), hosting.timeout_ns, limits));
  exits.finish();  // those that ended with the sandbox
  readers.close();
  CG_CHECK(record_throttle(recorder, rate.take_episode(RecordRate::Episode::kAny)));
  leave_home(hosting, home.get(), session.label());
  explain_start_failure(status, hosting.spec.argv[0], execs.started(), session.refusals());
  kernel::Record stop;
  stop.error = static_cast<uint32_t>(status);
  CG_CHECK(recorder.close(std::move(stop)));
  // Threads may still be in calls that have lost their callers; nothing they hold outlives us.
  std::_Exit(status);
}

}  // namespace certgate::supervisor
