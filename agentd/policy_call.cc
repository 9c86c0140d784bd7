#include "agentd/policy_call.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <limits>

#include "sandbox/fd.h"
#include "supervisor/image.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::Reason;
using kernel::Rule;
using kernel::Step;
using kernel::Verb;
using supervisor::escape;

constexpr int kMaxInterpreters = 4;  // as the kernel
constexpr const char* kSearchPath[] = {"/usr/local/bin", "/usr/bin", "/bin"};

bool within(const std::string& path, const std::string& directory) {
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

Status check_path(const std::string& path) {
  if (!kernel::PathPattern::parse(path) || path.find_first_of("*?") != std::string::npos)
    return fail("'" + path + "' is not an absolute path without '.', '..' and wildcards");
  return ok();
}

Result<kernel::Call> make_call(const CompiledPolicy& compiled, const PolicyContext& context,
                               const AskedCall& asked) {
  kernel::Call out;
  if (asked.verb == Verb::kConnect) {
    CG_TRY(out.effect, connect_effect(asked.object));
    return out;
  }
  CG_CHECK(check_path(asked.object));
  out.object = asked.file.value_or(compiled.policy.zone_label(asked.object))
                   .join(compiled.policy.zone_secrecy(asked.object));
  if (asked.verb == Verb::kExec) {
    kernel::ExecEffect exec;
    exec.images.push_back({asked.object, {}, {}, is_private(asked.object, context)});
    exec.named = asked.object;
    exec.env = asked.env;
    out.sources = asked.sources;
    for (const kernel::Tool& tool : compiled.policy.tools) {
      if (tool.program == asked.object) exec.images[0].sha256 = tool.sha256;
    }
    if (asked.content) exec.images[0].sha256 = *asked.content;
    for (const std::string& path : asked.interpreters) {
      CG_CHECK(check_path(path));
      exec.images.push_back({path, {}, {}, is_private(path, context)});
      out.object = out.object.join(compiled.policy.zone_label(path));
    }
    exec.argv = asked.argv;
    exec.cwd = asked.cwd.empty() ? context.workspace : asked.cwd;
    out.effect = std::move(exec);
    return out;
  }
  kernel::OpenEffect open;
  open.path = asked.object;
  open.read = asked.verb == Verb::kRead;
  open.write = asked.verb == Verb::kWrite;
  open.inside = is_private(asked.object, context);
  out.effect = std::move(open);
  return out;
}

kernel::Token unlimited_token() {
  kernel::Token out;
  out.expires_ns = std::numeric_limits<int64_t>::max();
  out.scopes = kernel::every_scope();
  return out;
}

Result<std::string> find_program(const std::string& name, const std::string& directory) {
  std::vector<fs::path> places;
  if (name.find('/') != std::string::npos) {
    places.push_back(fs::path(directory) / name);
  } else {
    for (const char* place : kSearchPath) places.push_back(fs::path(place) / name);
  }
  for (const fs::path& place : places) {
    std::error_code error;
    const fs::path real = fs::canonical(place, error);
    if (!error && ::access(real.c_str(), X_OK) == 0 && !fs::is_directory(real, error))
      return real.string();
  }
  return fail("'" + name + "' is no program of this machine; give its path");
}

const char* outcome_text(Step::Outcome outcome) {
  switch (outcome) {
    case Step::Outcome::kArguments:
      return "is about this file, but not with these arguments";
    case Step::Outcome::kForbids:
      return "forbids it";
    case Step::Outcome::kRejects:
      return "does not accept ";
    case Step::Outcome::kUncleared:
      return "has no clearance for ";
    case Step::Outcome::kExpired:
      return "would allow it, but its ttl is over";
    case Step::Outcome::kUsedUp:
      return "would allow it, but its budget is used up";
    case Step::Outcome::kAllows:
      return "allows it";
    case Step::Outcome::kAsks:
      return "allows it when an operator approves this very call";
  }
  return "";
}

std::string step_detail(const Step& step) {
  if (step.outcome == Step::Outcome::kArguments)
    return step.detail.empty() ? "" : ": " + step.detail;
  if (step.outcome != Step::Outcome::kRejects && step.outcome != Step::Outcome::kUncleared)
    return "";
  const bool whole = step.detail == "agent" || step.detail == "file";
  return step.culprit.text() + (whole ? "" : " in " + step.detail);
}

std::string shown(const kernel::Label& label) {
  return label.empty() ? "(nothing)" : escape(label.text());
}

}  // namespace

bool is_private(const std::string& path, const PolicyContext& context) {
  if (within(path, context.workspace)) return false;
  for (const char* place : {"/tmp", "/var/tmp", "/run", "/dev", "/proc"}) {
    if (within(path, place)) return true;
  }
  return within(path, context.home);
}

Result<kernel::ConnectEffect> connect_effect(const std::string& text) {
  CG_TRY(const kernel::EndpointPattern place, kernel::EndpointPattern::parse(text));
  kernel::ConnectEffect out;
  out.transport = place.transport;
  if (place.path) {
    out.path = place.path->text();
    CG_CHECK(check_path(out.path));
    return out;
  }
  const bool block = place.host.is_address && place.host.prefix_bits != 128;
  if (place.host.subdomains || block || place.port_first != place.port_last)
    return fail("'" + text + "' is not one host and one port");
  out.host = place.host.text;
  if (out.host.starts_with('[')) out.host = out.host.substr(1, out.host.size() - 2);
  out.address = place.host.address;
  out.port = place.port_first;
  return out;
}

Result<std::vector<std::string>> interpreters_of(const std::string& program,
                                                 const std::string& directory) {
  std::vector<std::string> out;
  std::string at = program;
  for (int depth = 0; depth <= kMaxInterpreters; ++depth) {
    const sandbox::UniqueFd fd(::open(at.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!fd) return fail_errno("read " + at, errno);
    CG_TRY(const supervisor::ImageKind kind, supervisor::image_kind(fd.get()));
    if (!kind.script && !kind.loader) return out;
    CG_TRY(at, find_program(kind.script ? kind.script->interpreter : *kind.loader, directory));
    out.push_back(at);
    if (!kind.script) return out;
  }
  return fail("'" + program + "': more than " + std::to_string(kMaxInterpreters) + " interpreters");
}

Result<AskedCall> asked_exec(const std::vector<std::string>& argv, const std::string& directory) {
  if (argv.empty()) return fail("no command");
  AskedCall out;
  out.verb = Verb::kExec;
  out.argv = argv;
  CG_TRY(out.object, find_program(argv[0], directory));
  CG_TRY(out.interpreters, interpreters_of(out.object, directory));
  return out;
}

CallDecider::CallDecider(const kernel::Policy& policy) : decider_(policy, unlimited_token()) {}

Answer CallDecider::decide(kernel::Call call, const kernel::Label& agent,
                           std::vector<uint64_t> used,
                           std::vector<std::string> messages) const {
  kernel::State state;
  state.label = agent;
  state.messages = std::move(messages);
  state.used = std::move(used);
  std::vector<Step> steps;
  kernel::Verdict verdict = decider_.decide(state, call, {}, &steps);
  return Answer{std::move(call), agent, std::move(verdict), std::move(steps)};
}

Answer decide_call(const kernel::Policy& policy, kernel::Call call, const kernel::Label& agent,
                   std::vector<uint64_t> used) {
  return CallDecider(policy).decide(std::move(call), agent, std::move(used));
}

Result<Answer> ask(const CompiledPolicy& compiled, const PolicyContext& context,
                   const AskedCall& asked) {
  CG_TRY(kernel::Call call, make_call(compiled, context, asked));
  return CallDecider(compiled.policy)
      .decide(std::move(call), asked.agent,
              std::vector<uint64_t>(compiled.policy.rules.size(), asked.used), asked.messages);
}

std::string verdict_line(const kernel::Policy& policy, const Answer& answer) {
  if (const auto* refusal = std::get_if<kernel::Refusal>(&answer.verdict)) {
    const bool asks = refusal->reason == Reason::kApprovalRequired;
    std::string out = fmt::format("{}: {}", asks ? "asks an operator" : "refused",
                                  kernel::reason_text(refusal->reason));
    if (refusal->reason == Reason::kUntrustedOrigin || refusal->reason == Reason::kClearanceMissing)
      out += fmt::format(" {}", escape(refusal->origin.text()));
    if (!refusal->rule.empty()) out += fmt::format(" (rule {})", escape(refusal->rule));
    return out;
  }
  std::vector<std::string> ids;
  for (const kernel::RuleUse& use : std::get<kernel::Certificate>(answer.verdict).rules()) {
    const std::string id = escape(policy.rules[use.rule].id);
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  if (ids.empty()) return "allowed: it stays inside the sandbox";
  return fmt::format("allowed by rule {}", fmt::join(ids, ", "));
}

std::string explanation(const kernel::Policy& policy, const Answer& answer) {
  const auto* exec = std::get_if<kernel::ExecEffect>(&answer.call.effect);
  std::string out =
      fmt::format("object    {}\n", escape(supervisor::object_text(answer.call.effect)));
  for (size_t i = 1; exec != nullptr && i < exec->images.size(); ++i)
    out += fmt::format("run by    {}\n", escape(exec->images[i].path));
  out += fmt::format("label     {} of the agent", shown(answer.agent));
  if (!std::holds_alternative<kernel::ConnectEffect>(answer.call.effect))
    out += fmt::format("; {} of the file", shown(answer.call.object));
  out += fmt::format("\nverdict   {}\n", verdict_line(policy, answer));
  if (const auto* refusal = std::get_if<kernel::Refusal>(&answer.verdict)) {
    if (!refusal->tool.empty()) out += fmt::format("tool      {}\n", escape(refusal->tool));
    out += fmt::format("why       {}\nrisk      {}\n", escape(refusal->why),
                       kernel::risk_text(refusal->risk));
  } else {
    const auto& certificate = std::get<kernel::Certificate>(answer.verdict);
    if (!certificate.tool().empty())
      out += fmt::format("tool      {}\n", escape(certificate.tool()));
    for (const kernel::RuleUse& use : certificate.rules())
      out += fmt::format("why       {}\n", escape(policy.rules[use.rule].why));
    out += fmt::format("risk      {}\n", kernel::risk_text(certificate.risk().level));
    if (!(certificate.raised_to() == answer.agent))
      out += fmt::format("then      the agent's label is {}\n", shown(certificate.raised_to()));
  }
  for (const Step& step : answer.steps) {
    const Rule& rule = policy.rules[step.rule];
    std::string part = kernel::verb_text(step.verb);
    if (exec != nullptr && step.image > 0) part += " of " + escape(exec->images[step.image].path);
    out += fmt::format("tried     {} ({}), {}: {}{}\n", escape(rule.id), escape(rule.source), part,
                       outcome_text(step.outcome), escape(step_detail(step)));
  }
  return out;
}

}  // namespace certgate::agentd
