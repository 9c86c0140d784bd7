// certgate run: two processes from the start. The parent becomes the authority (keys, log, labels),
// the child the supervisor, which alone touches the agent and never sees the key.

#include <fmt/format.h>
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "agentd/authority.h"
#include "agentd/cli/verbs.h"
#include "agentd/confine.h"
#include "agentd/duration.h"
#include "agentd/home.h"
#include "agentd/limits.h"
#include "supervisor/recorded_policy.h"
#include "agentd/run_plan.h"
#include "agentd/state_dir.h"
#include "agentd/token_make.h"
#include "supervisor/operator_terminal.h"
#include "supervisor/report.h"
#include "supervisor/supervise.h"

namespace certgate::agentd::cli {
namespace {

using supervisor::kExitFailed;

constexpr const char* kUsage =
    "usage: certgate run [OPTION…] [--] COMMAND [ARG…]\n\n"
    "Hosts COMMAND as an agent: in a sandbox, every exec, open and connect judged by the "
    "policy.\n\n"
    "  --policy FILE|NAME   policy file, or one of the catalogue (default: default)\n"
    "  --admin-policy FILE  a policy that narrows it (policies/README.md), where the machine has\n"
    "                       none in /etc/certgate/policy.toml\n"
    "  --require-signed PUB only a policy that this key has signed (certgate policy pack); always "
    "so\n"
    "                       for the keys in trusted-policy-keys of the state directory\n"
    "  --observe            only look on: what the policy would refuse is allowed and recorded as\n"
    "                       observed (certgate policy learn); what it forbids stays refused\n"
    "  --workspace DIR      the directory the agent works in (default: the current one)\n"
    "  --state DIR          key and log (default: $XDG_STATE_HOME/certgate; root: "
    "/var/lib/certgate)\n"
    "  --stdin-origin O     what stdin carries: operator, user, web:HOST, … (default: user on a\n"
    "                       terminal, nothing from /dev/null, else unknown)\n"
    "  --message FILE       words of the user, which the agent finds in /run/certgate/messages/N "
    "and "
    "can name as the\n"
    "                       source of a tool's arguments; repeatable\n"
    "  --token FILE         only what this token (certgate token) carries as well, counted in it\n"
    "  --token-key FILE     the key of the token's holder\n"
    "  --uid auto           as root: a host uid of the agent's own, for this run\n"
    "  --timeout T          end the agent and all it started after 90s, 15m, 2h, 7d\n"
    "  --json               refusals as JSON lines on stderr\n\n"
    "Exit status: the command's own; 124 its time was up; 125 certgate failed before it started, "
    "126 refused or not\n"
    "executable, 127 not found, 128+N ended by signal N.\n";

int trouble(const std::string& what) {
  supervisor::print_line("certgate: " + what);
  return kExitFailed;
}

// Fills `options`; an empty error means that help was asked for.
Status parse(const Args& args, RunOptions& options) {
  size_t i = 0;
  const auto value = [&](std::string& out) -> Status {
    const std::string name = args[i];
    if (const size_t equals = name.find('='); equals != std::string::npos) {
      out = name.substr(equals + 1);
    } else if (i + 1 < args.size()) {
      out = args[++i];
    } else {
      return fail(name + " needs a value; see certgate run --help");
    }
    return out.empty() ? Status(fail(name + " needs a value; see certgate run --help")) : ok();
  };
  for (; i < args.size(); ++i) {
    const std::string& arg = args[i];
    const std::string name = arg.substr(0, arg.find('='));
    if (arg == "--") {
      ++i;
      break;
    }
    if (!arg.starts_with("-")) break;
    if (arg == "--help" || arg == "-h") return fail("");
    if (name == "--policy") {
      CG_CHECK(value(options.policy));
    } else if (name == "--admin-policy") {
      CG_CHECK(value(options.admin_policy.emplace()));
    } else if (name == "--require-signed") {
      CG_CHECK(value(options.require_signed));
    } else if (arg == "--observe") {
      options.observe = true;
    } else if (name == "--workspace") {
      CG_CHECK(value(options.workspace));
    } else if (name == "--state") {
      CG_CHECK(value(options.state));
    } else if (name == "--stdin-origin") {
      CG_CHECK(value(options.stdin_origin.emplace()));
    } else if (name == "--timeout") {
      std::string text;
      CG_CHECK(value(text));
      options.timeout_ns = parse_duration(text);
      if (!options.timeout_ns)
        return fail("--timeout must be like 90s, 15m, 2h or 7d, not " + supervisor::escape(text));
    } else if (name == "--token") {
      CG_CHECK(value(options.token));
    } else if (name == "--message") {
      CG_CHECK(value(options.messages.emplace_back()));
    } else if (name == "--token-key") {
      CG_CHECK(value(options.token_key));
    } else if (name == "--uid") {
      std::string who;
      CG_CHECK(value(who));
      if (who != "auto") return fail("--uid must be auto, not " + supervisor::escape(who));
      options.own_user = true;
    } else if (arg == "--json") {
      options.json = true;
    } else {
      return fail("no such option: " + supervisor::escape(arg) + "; see certgate run --help");
    }
  }
  if (options.token.empty() && !options.token_key.empty()) return fail("--token-key needs --token");
  options.command.assign(args.begin() + static_cast<std::ptrdiff_t>(i), args.end());
  if (options.command.empty())
    return fail("no COMMAND given; usage: certgate run [OPTION…] -- COMMAND [ARG…]");
  return ok();
}

// For a command that the operator may copy.
std::string shell_word(const std::string& text) {
  if (text.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-") ==
      std::string::npos)
    return text;
  std::string out = "'";
  for (const char c : escape(text)) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

Status become(const RunPlan& plan) {
  if (plan.drop) {
    // While there still is the right to; the sandbox's own user namespace starts with a full set.
    for (int capability = 0; ::prctl(PR_CAPBSET_READ, capability) >= 0; ++capability) {
      if (::prctl(PR_CAPBSET_DROP, capability) != 0)
        return fail_errno("empty the capability bounding set", errno);
    }
    if (::setgroups(0, nullptr) != 0 || ::setresgid(plan.gid, plan.gid, plan.gid) != 0 ||
        ::setresuid(plan.uid, plan.uid, plan.uid) != 0) {
      return fail_errno("become the workspace's owner", errno);
    }
    // Changing uids clears this; the sandbox's set-up needs its own /proc files.
    ::prctl(PR_SET_DUMPABLE, 1);
  }
  // The authority gone, no record can be sealed: the supervisor, and with it the agent, must go
  // too.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  return ok();
}

[[noreturn]] void supervisor_process(const RunPlan& plan, const RunOptions& options,
                                     const std::optional<KeptHome>& home,
                                     const sandbox::Cgroup& cgroup, sandbox::UniqueFd channel,
                                     pid_t parent) {
  auto end = [](const std::string& what) {
    std::_Exit(what.empty() ? kExitFailed : trouble(what));
  };
  if (auto status = become(plan); !status) end(status.error().what);
  if (::getppid() != parent) end("");
  supervisor::Hosting hosting{
      plan.policy.policy,
      plan.spec,
      plan.initial,
      options.json ? supervisor::Report::kJson : supervisor::Report::kText,
      home ? supervisor::HomeArchives{home->in(), home->out()} : supervisor::HomeArchives{},
      options.timeout_ns,
      cgroup,
      plan.policy.limits.records_per_second.value_or(kDefaultRecordsPerSecond),
      options.state.empty() ? "" : " --state " + shell_word(plan.state_dir),
      plan.strict ? &*plan.strict : nullptr,
      plan.policy.redact};
  auto status = supervisor::supervise(std::move(hosting), std::move(channel));
  // Code ECONNRESET: the authority closed the channel before it granted anything, and has said why.
  if (!status) end(status.error().code == ECONNRESET ? "" : status.error().what);
  std::_Exit(*status);
}

pid_t supervisor_pid = 0;  // for the signal handler only
void pass_on(int signal) { ::kill(supervisor_pid, signal); }

void keep_signals_for_the_agent() {
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGQUIT, SIG_IGN);
  ::signal(SIGPIPE, SIG_IGN);
  struct sigaction action {};
  action.sa_handler = pass_on;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGHUP, &action, nullptr);
}

// The supervisor makes namespaces, which only a single thread may. After fork() the thread
// sanitizer starts one of its own in the child.
pid_t fork_single_threaded() {
#ifdef __SANITIZE_THREAD__
  return static_cast<pid_t>(::syscall(SYS_fork));
#else
  return ::fork();
#endif
}

// In the authority alone: the supervisor, which reads the agent's memory, must not have the key.
Result<std::optional<TokenHand>> read_token(const RunOptions& options) {
  if (options.token.empty()) return std::optional<TokenHand>();
  TokenHand out;
  CG_TRY(out.chain, read_chain_file(options.token));
  if (!options.token_key.empty()) {
    CG_TRY(out.key, HolderKey::read(options.token_key));
  }
  return std::optional<TokenHand>(std::move(out));
}

Status authority_process(const RunPlan& plan, const RunOptions& options, int channel,
                         int supervisor_pidfd) {
  CG_TRY(Authority authority,
         Authority::open({plan.state_dir, plan.label_dir, plan.owner.uid, plan.owner.gid}));
  RunRequest request;
  request.command_line = plan.command_line;
  request.policy_digest = plan.policy.policy.digest();
  request.policy = supervisor::recorded_body(plan.policy.policy);
  CG_TRY(request.token, read_token(options));
  request.redaction = plan.policy.redact;
  request.initial_label = plan.initial.text();
  request.given = plan.given;
  request.workspace = plan.spec.workspace;
  request.home = plan.spec.home;
  request.observing = plan.strict.has_value();
  CG_TRY(Run run, authority.begin(request));
  // It may be gone already, when the sandbox could not be built; serve() finds that out.
  const Status granted = supervisor::send_grant(channel, run.grant);
  if (!granted && granted.error().code != EPIPE) return granted;
  run.grant = {};  // the supervisor has its own descriptors now
  CG_CHECK(confine_authority());
  CG_CHECK(authority.serve(channel, supervisor_pidfd));
  const Status finished = authority.finish();
  if (finished || !disk_full(finished.error())) return finished;
  supervisor::print_line(
      "certgate: the disk that the log is on is full: the last records of this run lie whole in its "
      "segment and are not sealed; free some space, the next certgate run seals them");
  return ok();
}

// The home from earlier runs of the same kind, when the policy keeps it; what shaped it shapes the
// run.
Result<std::optional<KeptHome>> take_home(RunPlan& plan) {
  std::optional<KeptHome> out;
  if (plan.policy.home != HomePolicy::kKept) return out;
  CG_TRY(KeptHome home,
         KeptHome::take({plan.state_dir, plan.policy.policy.name, plan.owner.uid, plan.initial}));
  plan.initial = plan.initial.join(home.label());
  out.emplace(std::move(home));
  return out;
}

}  // namespace

int run_main(const Args& args) {
  RunOptions options;
  if (auto parsed = parse(args, options); !parsed) {
    if (!parsed.error().what.empty()) return trouble(parsed.error().what);
    std::fputs(kUsage, stdout);
    return 0;
  }
  auto plan = make_run_plan(options);
  if (!plan) return trouble(plan.error().what);

  if (plan->strict) {
    supervisor::print_line(
        "certgate: OBSERVING: what the policy would refuse is ALLOWED and recorded as observed; "
        "what it forbids and what a token does not carry stay refused");
  }
  auto limits = impose(plan->policy.limits, plan->spec);
  if (!limits) return trouble(limits.error().what);
  for (const std::string& line : limits->weaker) supervisor::print_line(line);
  if (options.json) supervisor::print_line(limits->json);
  auto home = take_home(*plan);
  if (!home) return trouble(home.error().what);

  // Ours to give back when the supervisor, which changes its modes, dies without doing so.
  const auto terminal = supervisor::OperatorTerminal::find();

  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return trouble(fail_errno("make a channel", errno).what);
  }
  sandbox::UniqueFd ours(ends[0]), theirs(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = fork_single_threaded();
  if (child < 0) return trouble(fail_errno("start a supervisor", errno).what);
  if (child == 0) {
    ours.reset();
    supervisor_process(*plan, options, *home, limits->cgroup, std::move(theirs), parent);
  }
  theirs.reset();
  supervisor_pid = child;
  keep_signals_for_the_agent();
  const sandbox::UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  const Status kept =
      pidfd ? authority_process(*plan, options, ours.get(), pidfd.get())
            : Status(fail_errno(
                  "watch the supervisor (pidfd_open); `certgate doctor` names the cure", errno));
  ours.reset();  // whatever happened: without an authority the supervisor must end
  if (!kept) ::kill(child, SIGKILL);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (terminal) terminal->restore(supervisor::OperatorTerminal::Pending::kDrop);
  if (!kept) return trouble(kept.error().what);
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) {
    return trouble(
        "the supervisor made a system call that it never needs, and was killed with the agent; "
        "keep "
        "the log, and look for \"type=1326\" in the kernel's log, which names the call");
  }
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS) {
    return trouble(
        "a file of the state directory could not be reached any more (SIGBUS), and the supervisor "
        "ended with the agent: look for errors of its disk in the kernel's log");
  }
  if (WIFEXITED(status) && *home) {
    if (auto stays = (*home)->keep(); !stays)
      trouble("the home is not kept, the one before stays: " + stays.error().what);
  }
  if (WIFSIGNALED(status)) return trouble("the supervisor was killed; the agent ended with it");
  return WEXITSTATUS(status);
}

}  // namespace certgate::agentd::cli
