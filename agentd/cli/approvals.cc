// certgate approvals, approve, deny: what waits for an operator, and the answer.

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pwd.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <set>
#include <string>
#include <thread>

#include "agentd/approval_statement.h"
#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "agentd/control.h"
#include "agentd/rule_proposal.h"
#include "agentd/state_dir.h"
#include "agentd/token_make.h"
#include "kernel/risk.h"
#include "supervisor/operator_line.h"

namespace certgate::agentd::cli {
namespace {

using supervisor::ApprovalRequest;

constexpr int kNo = 1, kUsageError = 2;
constexpr auto kLookEvery = std::chrono::milliseconds(300);
constexpr int64_t kHandedInWithin_ns = 60'000'000'000;
constexpr const char* kUsage =
    "usage: certgate approvals [--watch] [--json] [--state DIR]\n"
    "       certgate approve ID [--always] [--state DIR]\n"
    "       certgate deny ID [--why TEXT] [--state DIR]\n\n"
    "approvals  every call that waits: exactly what it would do, for which agent, under which\n"
    "           label, by which rule; --watch: and each further one as it comes\n"
    "approve    lets this one call happen, once; --always: also prints a rule for exactly this\n"
    "           action, to be put before the asking rule by whoever wants it allowed from now on\n"
    "deny       refuses it, and the same call for as long as the rule's deadline\n\n"
    "Exit status: 0 done, 1 not, 2 wrong usage.\n";

int trouble(const Error& error) {
  supervisor::print_line("certgate: " + escape(error.what));
  return kNo;
}
int usage_error(const std::string& what) {
  supervisor::print_line("certgate: " + what + "; see certgate approvals --help");
  return kUsageError;
}

int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

struct Options {
  bool watch = false, json = false, always = false, help = false;
  std::string state, why;
  std::vector<std::string> ids;
};

Result<Options> parse(const Args& args) {
  Options out;
  const std::pair<const char*, bool Options::*> kFlags[] = {{"--watch", &Options::watch},
                                                            {"--json", &Options::json},
                                                            {"--always", &Options::always},
                                                            {"--help", &Options::help},
                                                            {"-h", &Options::help}};
  const std::pair<const char*, std::string Options::*> kTexts[] = {{"--state", &Options::state},
                                                                   {"--why", &Options::why}};
  for (size_t i = 0; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    bool known = !args[i].starts_with("-");
    if (known) out.ids.push_back(args[i]);
    for (const auto& [flag, member] : kFlags) {
      if (args[i] != flag) continue;
      known = out.*member = true;
    }
    for (const auto& [option, member] : kTexts) {
      if (name != option) continue;
      known = true;
      if (equals == std::string::npos && ++i == args.size()) return fail(name + " needs a value");
      out.*member = equals == std::string::npos ? args[i] : args[i].substr(equals + 1);
      break;
    }
    if (!known) return fail("no such option: " + escape(args[i]));
  }
  if (out.state.empty()) out.state = default_state_dir();
  if (out.state.empty()) return fail("no state directory: set HOME, or give --state");
  return out;
}

struct Asked {
  std::string id;
  std::string run;
  ApprovalRequest request;
};

Result<Asked> ask_for(int state, const std::string& run, const std::string& seq) {
  CG_TRY(const std::string body, control_call(state, run, "request", seq));
  // NOLINTNEXTLINE: octets
  CG_TRY(auto asked,
         supervisor::decode_asked(reinterpret_cast<const uint8_t*>(body.data()), body.size()));
  auto* request = std::get_if<ApprovalRequest>(&asked);
  if (request == nullptr) return fail("the run " + run + " answers something else");
  return Asked{run + "-" + seq, run, std::move(*request)};
}

// A run may end, and a request be answered, while this looks: then it is left out.
Result<std::vector<Asked>> all_waiting(int state) {
  std::vector<Asked> out;
  CG_TRY(const std::vector<std::string> runs, running_controls(state));
  for (const std::string& run : runs) {
    const auto list = control_call(state, run, "waiting", "");
    if (!list) continue;
    for (size_t at = 0; at < list->size();) {
      const size_t end = std::min(list->find('\n', at), list->size());
      if (auto one = ask_for(state, run, list->substr(at, end - at)))
        out.push_back(*std::move(one));
      at = end + 1;
    }
  }
  return out;
}

void print_json(const Asked& one) {
  const ApprovalRequest& r = one.request;
  JsonObject out;
  out.text("id", one.id).text("agent", one.run).number("seq", r.seq).number("pid", r.pid);
  out.text("verb", r.verb).text("call", r.call).text("object", r.object).text("how", r.how);
  out.list("argv", r.argv).text("cwd", r.cwd).list("env", r.env).list("files", r.images);
  out.text("origins", r.label).list("came_in", r.came_in).text("rule", r.rule).text("why", r.why);
  out.text("risk", kernel::risk_text(r.risk)).text("digest", supervisor::hex(r.digest));
  out.text("deadline", rfc3339(r.deadline_ns));
  fmt::print("{}\n", out.str());
}

void line(const char* name, const std::string& untrusted) {
  if (!untrusted.empty()) fmt::print("  {:<10}{}\n", name, escape(untrusted));
}

void print_text(const Asked& one) {
  const ApprovalRequest& r = one.request;
  fmt::print("{}: {} {}\n", one.id, r.verb, escape(r.object));
  for (size_t i = 0; i < r.argv.size(); ++i)
    fmt::print("  {:<10}{}\n", fmt::format("argv[{}]", i), escape(r.argv[i]));
  line("directory", r.cwd);
  line("call", r.call + " of process " + std::to_string(r.pid));
  line("how", r.how);
  for (const std::string& file : r.images) line("file", file);
  std::string names;
  for (const std::string& variable : r.env)
    (names += names.empty() ? "" : " ") += variable.substr(0, variable.find('='));
  line("variables", names.empty() ? "" : names + " (values: --json)");
  line("label", r.label);
  for (const std::string& how : r.came_in) line("came in", how);
  line("rule", r.rule + ": " + r.why);
  line("risk", kernel::risk_text(r.risk));
  line("digest", supervisor::hex(r.digest));
  const int64_t left = (r.deadline_ns - now_ns()) / 1'000'000'000;
  line("waits", std::to_string(std::max<int64_t>(left, 0)) + " s more, then it is refused");
}

int list(const Options& options) {
  const auto state = open_state_dir(options.state);
  if (!state) return trouble(state.error());
  std::set<std::string> shown;
  for (;;) {
    const auto waiting = all_waiting(state->get());
    if (!waiting) return trouble(waiting.error());
    std::set<std::string> now;
    for (const Asked& one : *waiting) {
      now.insert(one.id);
      if (!shown.contains(one.id)) options.json ? print_json(one) : print_text(one);
    }
    std::fflush(stdout);
    if (!options.watch) return 0;
    shown = std::move(now);
    std::this_thread::sleep_for(kLookEvery);
  }
}

std::string user_name(uid_t uid) {
  const passwd* const user = ::getpwuid(uid);
  return user != nullptr ? user->pw_name : std::to_string(uid);
}

Status answer(const Options& options, Consent consent) {
  const std::string& id = options.ids[0];
  const size_t dash = id.rfind('-');
  if (dash == std::string::npos)
    return fail("'" + id + "' is not the id of a request; see: certgate approvals");
  CG_TRY(const sandbox::UniqueFd state, open_state_dir(options.state));
  CG_TRY(const Asked asked, ask_for(state.get(), id.substr(0, dash), id.substr(dash + 1)));
  CG_TRY(const SigningKey key, SigningKey::load(state.get()));
  print_text(asked);
  std::fflush(stdout);
  ApprovalStatement statement;
  statement.run = asked.run;
  statement.seq = asked.request.seq;
  statement.digest = asked.request.digest;
  statement.origins = plain(asked.request.label, asked.request.label.size());
  statement.consent = consent;
  statement.uid = ::geteuid();
  statement.user = plain(user_name(::geteuid()), 64);
  statement.time_ns = now_ns();
  statement.expires_ns = statement.time_ns + kHandedInWithin_ns;
  CG_TRY(statement.nonce, random_hex(8));
  statement.why = plain(options.why, kMaxWhyBytes);
  CG_TRY(const std::string envelope, seal(statement, key));
  CG_CHECK(control_call(state.get(), asked.run, "answer", envelope));
  fmt::print("{} {}\n", consent == Consent::kApprove ? "approved, once:" : "denied:", asked.id);
  if (!options.always) return ok();
  CG_TRY(const std::string rule, proposed_rule(asked.request, asked.id));
  fmt::print("\n{}", rule);
  return ok();
}

int answer_main(const Args& args, Consent consent) {
  const auto options = parse(args);
  if (!options) return usage_error(options.error().what);
  if (options->help) return fmt::print("{}", kUsage), 0;
  if (options->ids.size() != 1) return usage_error("one ID, as certgate approvals prints it");
  if (options->watch || options->json) return usage_error("--watch and --json are for approvals");
  if (options->always && consent == Consent::kDeny) return usage_error("--always is for approve");
  if (!options->why.empty() && consent == Consent::kApprove)
    return usage_error("--why is for deny");
  const Status done = answer(*options, consent);
  return done ? 0 : trouble(done.error());
}

}  // namespace

int approvals_main(const Args& args) {
  const auto options = parse(args);
  if (!options) return usage_error(options.error().what);
  if (options->help) return fmt::print("{}", kUsage), 0;
  if (!options->ids.empty() || options->always || !options->why.empty())
    return usage_error("approvals takes --watch, --json and --state");
  return list(*options);
}

int approve_main(const Args& args) { return answer_main(args, Consent::kApprove); }
int deny_main(const Args& args) { return answer_main(args, Consent::kDeny); }

}  // namespace certgate::agentd::cli
