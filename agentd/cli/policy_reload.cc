// certgate policy reload: another policy for an agent that runs.

#include <fcntl.h>
#include <fmt/format.h>
#include <time.h>

#include <cerrno>
#include <cstdio>

#include "agentd/cli/policy_words.h"
#include "agentd/control.h"
#include "agentd/recorded_call.h"
#include "sandbox/fd.h"
#include "supervisor/operator_line.h"
#include "supervisor/recorded_policy.h"

namespace certgate::agentd::cli {
namespace {

constexpr timespec kAskAgain{0, 20'000'000};
constexpr int kAsks = 500;  // ten seconds

// Compiled for the directories of the run, as its start recorded them.
Result<CompiledPolicy> compile_for(const Words& words, const std::string& state) {
  CG_TRY(const LogSnapshot log, LogSnapshot::open(state));
  CG_TRY(const RecordedRun run, read_run(log, words.plain[0]));
  return load_layers(layers(words, words.plain[1]), run.context);
}

// "taken <µs>" or "left <why>".
Result<std::string> hand_over(const std::string& state, const std::string& run,
                              const CompiledPolicy& policy) {
  const sandbox::UniqueFd dir(::open(state.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return fail_errno("open the state directory " + state, errno);
  const std::string body = supervisor::recorded_body(policy.policy);
  if (body.size() > supervisor::kMaxPolicyBytes) {
    return fail(
        fmt::format("the policy takes {} bytes, of which {} can be loaded while an agent runs; end "
                    "the agent and start it again with it",
                    body.size(), supervisor::kMaxPolicyBytes));
  }
  CG_CHECK(control_call(dir.get(), run, "reload", body));
  for (int i = 0; i < kAsks; ++i) {
    CG_TRY(std::string said, control_call(dir.get(), run, "reloaded", ""));
    if (!said.empty()) return said;
    ::nanosleep(&kAskAgain, nullptr);
  }
  return fail(
      "the supervisor has not answered within ten seconds; see: certgate audit list --agent " +
      run + " --kind policy-change");
}

}  // namespace

int reload(const Args& args) {
  const auto words = parse_words(args, {"--state", "--admin-policy"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 2) return usage_error("reload takes a RUN and a policy FILE or NAME");
  const std::string state = words->option("--state", default_state_dir());
  const auto policy = compile_for(*words, state);
  if (!policy) return policy_trouble(policy.error());
  const auto said = hand_over(state, words->plain[0], *policy);
  if (!said) return policy_trouble(said.error());
  if (!said->starts_with("taken ")) {
    fmt::print(stderr, "certgate: the old policy stays in force: {}\n",
               escape(said->substr(said->find(' ') + 1)));
    return kNo;
  }
  fmt::print("{}: the policy {} is in force; calls waited {} µs\n", words->plain[0],
             escape(policy->policy.name), said->substr(said->find(' ') + 1));
  return 0;
}

}  // namespace certgate::agentd::cli
