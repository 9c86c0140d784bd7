#include "agentd/run_plan.h"

#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>

#include "agentd/cli/verbs.h"
#include "agentd/run_given.h"
#include "agentd/observe.h"
#include "agentd/policy_layers.h"
#include "kernel/mutant.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

using supervisor::escape;

constexpr const char* kFallbackHome = "/home/agent";
constexpr const char* kPassedVariables[] = {"PATH",      "LANG",     "LANGUAGE", "TERM",
                                            "COLORTERM", "NO_COLOR", "TZ"};
constexpr const char* kDefaultPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

Result<std::string> real_path(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real) return fail_errno(escape(path), errno);
  return std::string(real.get());
}

bool is_within(const std::string& path, const std::string& dir) {
  return path == dir || (path.starts_with(dir) && (dir == "/" || path[dir.size()] == '/'));
}

// The directory with its existing part resolved, whether or not its last components exist yet.
std::string settle(const std::string& path) {
  std::string head = path, tail;
  while (head.size() > 1) {
    if (const auto real = real_path(head)) return *real + tail;
    const size_t slash = head.find_last_of('/');
    if (slash == std::string::npos) break;
    tail = head.substr(slash) + tail;
    head.resize(slash == 0 ? 1 : slash);
  }
  return path;
}

Result<std::string> check_workspace(const RunOptions& options, const std::string& state_dir) {
  const std::string asked = options.workspace.empty() ? "." : options.workspace;
  auto workspace = real_path(asked);
  if (!workspace) {
    return fail(
        "workspace " + workspace.error().what + "; name an existing directory with --workspace", 0);
  }
  struct stat s {};
  if (::stat(workspace->c_str(), &s) != 0 || !S_ISDIR(s.st_mode)) {
    return fail("workspace " + escape(*workspace) +
                " is not a directory; name one with --workspace");
  }
  const char* home = std::getenv("HOME");
  const auto real_home = home != nullptr ? real_path(home) : Result<std::string>(fail("none"));
  if (*workspace == "/" || (real_home && *workspace == *real_home)) {
    return fail("workspace " + escape(*workspace) + " would give the agent " +
                (*workspace == "/" ? "the whole system" : "your whole home") +
                "; use a directory of the project");
  }
  const std::string state = settle(state_dir);
  if (is_within(state, *workspace) || is_within(*workspace, state)) {
    return fail("workspace " + escape(*workspace) + " and state directory " + escape(state) +
                " contain one another; keep the log where the agent cannot reach it (--state DIR)");
  }
  return workspace;
}

struct Account {
  uid_t uid = 0;
  gid_t gid = 0;
  bool drop = false;
  std::string name, home;
  std::string passwd_home;  // as the account database has it, resolved
};

Result<Account> choose_account(const std::string& workspace) {
  Account out;
  out.uid = ::geteuid();
  out.gid = ::getegid();
  if (out.uid == 0) {
    struct stat s {};
    if (::stat(workspace.c_str(), &s) != 0)
      return fail_errno("workspace " + escape(workspace), errno);
    if (s.st_uid == 0) {
      return fail("workspace " + escape(workspace) +
                  " belongs to root, and an agent never runs as root; chown it to the user it "
                  "shall run as");
    }
    out.uid = s.st_uid;
    out.gid = s.st_gid;
    out.drop = true;
  }
  std::vector<char> room(16384);
  passwd entry{};
  passwd* found = nullptr;
  ::getpwuid_r(out.uid, &entry, room.data(), room.size(), &found);
  if (found != nullptr) {
    if (out.drop) out.gid = found->pw_gid;
    out.name = found->pw_name;
    struct stat s {};
    if (found->pw_dir[0] == '/' && found->pw_dir[1] != '\0' && ::stat(found->pw_dir, &s) == 0) {
      if (const auto real = real_path(found->pw_dir)) out.home = out.passwd_home = *real;
    }
  }
  if (out.name.empty()) out.name = "agent";
  // The home inside is an empty one; it must not hide the workspace's own directory or the system.
  const bool usable =
      !out.home.empty() && !is_within(out.home, workspace) &&
      (is_within(out.home, "/home") || is_within(out.home, "/root") || is_within(out.home, "/var"));
  if (!usable) out.home = kFallbackHome;
  return out;
}

// One store per host user that agents run as: the same for every --state, every environment, and
// whoever started certgate, so that none of these can launder a label. Hence the account's own
// home, not $HOME; an account without one has a directory of its own in /var/tmp.
std::string label_directory(const Account& account) {
  struct stat s {};
  const bool own_home = !account.passwd_home.empty() &&
                        ::stat(account.passwd_home.c_str(), &s) == 0 && s.st_uid == account.uid;
  if (own_home) return account.passwd_home + "/.local/state/certgate-labels";
  return fmt::format("/var/tmp/certgate-labels-{}", account.uid);
}

// What stdin may carry: nothing from /dev/null, a person's words from a terminal, else who knows.
Result<kernel::Label> initial_label(const RunOptions& options) {
  const auto plain = [](kernel::OriginClass cls) { return kernel::Label::of({{cls, ""}}); };
  kernel::Label label = plain(kernel::OriginClass::kOperator);
  if (options.stdin_origin) {
    CG_TRY(const kernel::Origin origin, kernel::Origin::parse(*options.stdin_origin));
    return label.join(kernel::Label::of({origin}));
  }
  struct stat s {};
  if (::fstat(STDIN_FILENO, &s) != 0) return label;
  if (S_ISCHR(s.st_mode) && s.st_rdev == ::makedev(1, 3)) return label;
  if (::isatty(STDIN_FILENO)) return label.join(plain(kernel::OriginClass::kUser));
  return label.join(plain(kernel::OriginClass::kUnknown));
}

enum class Gate : uint8_t { kClosed, kOpen };

std::vector<std::string> environment(const Account& account, const CompiledPolicy& policy,
                                     const std::string& cwd, Gate gate) {
  std::vector<std::pair<std::string, std::string>> all;
  const auto set = [&](const std::string& name, const std::string& value) {
    const auto it =
        std::find_if(all.begin(), all.end(), [&](const auto& v) { return v.first == name; });
    it == all.end() ? all.emplace_back(name, value), void() : void(it->second = value);
  };
  const auto pass = [&](const std::string& name) {
    if (const char* value = std::getenv(name.c_str())) set(name, value);
  };
  set("PATH", kDefaultPath);
  for (const char* name : kPassedVariables) pass(name);
  for (char** at = environ; *at != nullptr; ++at) {
    const std::string text = *at;
    if (text.starts_with("LC_") && text.find('=') != std::string::npos)
      pass(text.substr(0, text.find('=')));
  }
  for (const std::string& name : policy.env_pass) pass(name);
  set("HOME", account.home);
  set("USER", account.name);
  set("LOGNAME", account.name);
  set("SHELL", "/bin/bash");
  set("PWD", cwd);
  if (gate == Gate::kOpen) set(sandbox::kGateVariable, sandbox::kGateSocket);
  for (const auto& [name, value] : policy.env_set) set(name, value);
  std::vector<std::string> out;
  for (const auto& [name, value] : all) out.push_back(name + "=" + value);
  return out;
}

// Said here, where the cure can be named; the sandbox only finds that a mount fails.
Result<std::vector<sandbox::HomeFile>> home_files(const CompiledPolicy& policy,
                                                  const Account& account) {
  std::vector<sandbox::HomeFile> out;
  for (const PolicyHomeFile& file : policy.home_files) {
    std::string source = file.source;
    if (source.starts_with("~/")) {
      const char* home = std::getenv("HOME");
      if (home == nullptr) return fail(file.place + ": HOME is not set; give an absolute path");
      source = home + source.substr(1);
    }
    const auto real = real_path(source);
    if (!real) {
      return fail(file.place + ": home file " + real.error().what +
                  "; make it, or leave it out of home_files");
    }
    out.push_back({*real, file.target});
  }
  if (::geteuid() != 0 || out.empty()) return out;
  // Read as the agent's user, in a child: root reads everything.
  for (size_t i = 0; i < out.size(); ++i) {
    const pid_t child = ::fork();
    if (child < 0) return fail_errno("start a process", errno);
    if (child == 0) {
      const bool other = ::setgroups(0, nullptr) == 0 &&
                         ::setresgid(account.gid, account.gid, account.gid) == 0 &&
                         ::setresuid(account.uid, account.uid, account.uid) == 0;
      ::_exit(other && ::access(out[i].source.c_str(), R_OK) == 0 ? 0 : 1);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0) {
      return fail(
          fmt::format("{}: home file {} cannot be read by uid {}, which the agent runs as; "
                      "give that user a copy of its own, or start certgate as its owner",
                      policy.home_files[i].place, escape(out[i].source), account.uid));
    }
  }
  return out;
}

std::string shell_line(const std::vector<std::string>& argv) {
  std::string out;
  for (const std::string& arg : argv) {
    if (!out.empty()) out += ' ';
    const bool plain = !arg.empty() && std::all_of(arg.begin(), arg.end(), [](unsigned char c) {
      return std::isalnum(c) || std::strchr("_-./:=,@%+", c) != nullptr;
    });
    out += plain ? arg : "'" + escape(arg) + "'";
    if (out.size() > 4096) return out.substr(0, 4096);
  }
  return out;
}

}  // namespace

Result<RunPlan> make_run_plan(const RunOptions& options) {
  RunPlan plan;
  plan.state_dir = options.state.empty() ? cli::default_state_dir() : options.state;
  if (plan.state_dir.empty()) return fail("HOME is not set and no --state was given");
  if (plan.state_dir[0] != '/') {
    CG_TRY(const std::string here, real_path("."));
    plan.state_dir = here + "/" + plan.state_dir;
  }
  CG_TRY(const std::string workspace, check_workspace(options, plan.state_dir));
  CG_TRY(Account account, choose_account(workspace));
  plan.uid = account.uid;
  plan.gid = account.gid;
  plan.drop = account.drop;
  plan.owner = {account.uid, account.gid};
  plan.label_dir = label_directory(account);
  if (is_within(settle(plan.label_dir), workspace)) {
    return fail("workspace " + escape(workspace) + " contains the label store " +
                escape(plan.label_dir) + "; use a directory of the project");
  }
  if (options.own_user) {
    CG_TRY(OwnUser user, OwnUser::take());
    plan.uid = plan.gid = account.uid = account.gid = user.uid();
    plan.own_user.emplace(std::move(user));
    CG_TRY(plan.workspace_tree, map_workspace(workspace, plan.owner, plan.uid));
    plan.spec.workspace_tree = plan.workspace_tree.get();
  }
  LayerChoice choice{options.policy, options.admin_policy};
  CG_TRY(choice.trust, policy_trust(plan.state_dir, options.require_signed));
  CG_TRY(plan.policy, load_layers(choice, {workspace, account.home}));
  if (options.observe) {
    Observing two = observing(plan.policy.policy);
    plan.policy.policy = std::move(two.wide);
    plan.strict = std::move(two.strict);
  }
  CG_TRY(plan.initial, initial_label(options));

  const auto here = real_path(".");
  plan.spec.workspace = workspace;
  plan.spec.home = account.home;
  plan.spec.read_only = plan.policy.read_only;
  CG_TRY(plan.spec.home_files, home_files(plan.policy, account));
  if (mutant(Mutant::kControlSide)) plan.spec.read_only.push_back(plan.state_dir);
  plan.spec.argv = options.command;
  plan.spec.cwd = here && is_within(*here, workspace) ? *here : workspace;
  CG_CHECK(add_given(options, plan));
  plan.spec.env = environment(account, plan.policy, plan.spec.cwd,
                              plan.spec.gate ? Gate::kOpen : Gate::kClosed);
  plan.command_line = shell_line(options.command);
  return plan;
}

}  // namespace certgate::agentd
