// certgate policy learn|import …, and explain --record: what reads a log or other people's
// settings.

#include <fmt/format.h>

#include <charconv>
#include <cstdio>

#include "agentd/cli/policy_words.h"
#include "agentd/observe.h"
#include "agentd/policy_import.h"
#include "agentd/policy_learn.h"
#include "agentd/recorded_call.h"

namespace certgate::agentd::cli {
namespace {

constexpr size_t kShownRefusals = 20;

Result<LogSnapshot> open_log(const Words& words) {
  return LogSnapshot::open(words.option("--state", default_state_dir()));
}

// The policy that a recorded run had, if it is the one named now.
Result<CompiledPolicy> policy_of(const Words& words, const RecordedRun& run) {
  const std::string name = words.option("--policy", "default");
  CG_TRY(CompiledPolicy out, load_layers(layers(words, name), run.context));
  const bool observed = run.start.grade == kernel::kObservedGrade;
  const kernel::Digest digest = (observed ? observing(out.policy).wide : out.policy).digest();
  if (!std::equal(digest.begin(), digest.end(), run.start.digest.begin(), run.start.digest.end())) {
    return fail("the run " + run.start.run + " was not under the policy '" + name +
                "' as it is now; name its own with --policy");
  }
  return out;
}

int replay_run(const Words& words, const RecordedRun& run) {
  const auto policy = load_layers(layers(words, words.option("--replay")), run.context);
  if (!policy) return policy_trouble(policy.error());
  const auto done = replay(*policy, run);
  if (!done) return policy_trouble(done.error());
  for (size_t i = 0; i < done->refused.size() && i < kShownRefusals; ++i) {
    const auto& [record, answer] = done->refused[i];
    fmt::print("{}  {} {}\n  under   {}\n  {}\n", escape(record.id()), escape(record.call),
               escape(record.object), escape(record.origins), verdict_line(policy->policy, answer));
  }
  if (done->refusals > kShownRefusals) fmt::print("and {} more\n", done->refusals - kShownRefusals);
  fmt::print("replay of {}: {} allowed, {} refused\n", run.start.run, done->allowed,
             done->refusals);
  return done->refusals == 0 ? 0 : kNo;
}

// Said on stderr, so that the proposal can be piped.
void say(const RecordedRun& run, const Proposal& proposal, size_t rules) {
  fmt::print(stderr, "certgate: {} calls of the run {} are covered, by {} rules\n", proposal.calls,
             run.start.run, rules);
  for (const auto& [origin, calls] : proposal.left_out) {
    fmt::print(stderr, "certgate: {} calls made under {} are left out{}\n", calls, escape(origin),
               origin.starts_with("web:") ? " (--accept-web takes them in)" : "");
  }
  for (size_t i = 0; i < proposal.refused.size() && i < kShownRefusals; ++i)
    fmt::print(stderr, "certgate: refused even so: {} (certgate audit why)\n", proposal.refused[i]);
}

}  // namespace

int learn(const Args& args) {
  const auto words = parse_words(args, {"--run", "--state", "--policy", "--together",
                                        "--accept-web", "-o", "--replay", "--admin-policy"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() > (words->has("--replay") ? 1u : 0u))
    return usage_error("learn takes a RUN after --replay FILE only");
  LearnOptions options;
  options.accept_web = words->flag("--accept-web");
  if (words->has("--together")) {
    const std::string text = words->option("--together");
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + text.size(), options.together);
    if (error != std::errc() || end != text.data() + text.size() || options.together < 2)
      return usage_error("--together is a number from 2 on");
  }
  const auto log = open_log(*words);
  if (!log) return policy_trouble(log.error());
  const auto run = read_run(*log, words->plain.empty() ? words->option("--run") : words->plain[0]);
  if (!run) return policy_trouble(run.error());
  if (words->has("--replay")) return replay_run(*words, *run);
  const auto observed = policy_of(*words, *run);
  if (!observed) return policy_trouble(observed.error());
  const auto base =
      compile_policy("base", "name = \"base\"\nextends = [\"base/system\"]\n", run->context);
  if (!base) return policy_trouble(base.error());
  const auto proposal = propose(*run, *observed, *base, options);
  if (!proposal) return policy_trouble(proposal.error());
  // What is not valid is not proposed, and what does not cover the run is not said to.
  const auto compiled = compile_policy("proposal", proposal->text, run->context);
  if (!compiled) return policy_trouble(compiled.error());
  const auto again = replay(*compiled, *run);
  if (!again) return policy_trouble(again.error());
  size_t left_out = 0;
  for (const auto& [origin, calls] : proposal->left_out) left_out += calls;
  if (again->refusals != left_out) {
    return policy_trouble(
        fail(fmt::format("the proposal would refuse {} calls, of which {} are left out; "
                         "please report this",
                         again->refusals, left_out)));
  }
  say(*run, *proposal, compiled->policy.rules.size() - base->policy.rules.size());
  return write_out(*words, proposal->text);
}

int import_settings(const Args& args) {
  const auto words = parse_words(args, {"--from", "-o"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1 || !words->has("--from"))
    return usage_error(std::string("import takes --from and one file; --from is one of ") +
                       kImporters);
  const auto text = read_policy_text(words->plain[0]);
  if (!text) return policy_trouble(text.error());
  const auto got = import_policy(words->option("--from"), *text, words->plain[0]);
  if (!got) return policy_trouble(got.error());
  for (const std::string& point : got->lossy)
    fmt::print(stderr, "certgate: {}: {}\n", escape(words->plain[0]), point);
  return write_out(*words, got->text);
}

int explain_record(const Words& words) {
  const std::string id = words.option("--record");
  const auto log = open_log(words);
  if (!log) return policy_trouble(log.error());
  const auto run = read_run(*log, id.substr(0, id.find('-')));
  if (!run) return policy_trouble(run.error());
  const auto found = std::find_if(run->calls.begin(), run->calls.end(),
                                  [&](const kernel::Record& r) { return r.id() == id; });
  if (found == run->calls.end())
    return policy_trouble(fail("no call has the id " + id + " (see: certgate audit list)"));
  const auto policy =
      words.has("--policy") || words.has("--admin-policy")
          ? load_layers(layers(words, words.option("--policy", "default")), run->context)
          : policy_of(words, *run);
  if (!policy) return policy_trouble(policy.error());
  const auto answer = decide_again(policy->policy, run->context, *found, {});
  if (!answer) return policy_trouble(answer.error());
  fmt::print("record    {} {}: {}\n{}", escape(id), kernel::record_kind_text(found->kind),
             escape(found->kind == kernel::RecordKind::kRefusal ? found->reason : found->rule),
             explanation(policy->policy, *answer));
  return std::holds_alternative<kernel::Certificate>(answer->verdict) ? 0 : kNo;
}

}  // namespace certgate::agentd::cli
