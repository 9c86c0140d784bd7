#include "agentd/policy_layers.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "kernel/mutant.h"
#include "kernel/path_cover.h"
#include "sandbox/fd.h"

namespace certgate::agentd {
namespace {

using kernel::Effect;
using kernel::Rule;
using kernel::Verb;

constexpr off_t kMaxProjectBytes = 1 << 20;

// Nothing when there is no such file. Never a link, a FIFO or a device: whoever writes in the
// workspace must not choose what we read, nor make us wait.
Result<std::optional<std::string>> read_project(const std::string& path) {
  const sandbox::UniqueFd fd(
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  if (!fd && errno == ENOENT) return std::optional<std::string>();
  if (!fd && errno == ELOOP)
    return fail(path + " is a symbolic link; the project's policy is a file of its own");
  if (!fd) return fail_errno("read the project's policy " + path, errno);
  struct stat s {};
  if (::fstat(fd.get(), &s) != 0 || !S_ISREG(s.st_mode) || s.st_size > kMaxProjectBytes)
    return fail(path + " is no regular file of at most 1 MiB; remove it, or make it one");
  std::string text(static_cast<size_t>(s.st_size), '\0');
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::read(fd.get(), text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(path + " changed while it was read; try again");
    at += static_cast<size_t>(n);
  }
  return std::optional<std::string>(std::move(text));
}

// Not being able to look is no "there is none".
Result<bool> exists(const std::string& path) {
  struct stat s {};
  if (::stat(path.c_str(), &s) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return fail_errno("look for the machine's policy " + path, errno);
}

Result<std::optional<std::string>> admin_file(const LayerChoice& choice) {
  CG_TRY(const bool machine, exists(choice.machine));
  if (machine && choice.admin) {
    return fail("--admin-policy is for machines without " + choice.machine +
                ", which always applies; leave the option out");
  }
  if (machine) return std::optional<std::string>(choice.machine);
  return choice.admin;
}

Rule own_file_rule(const std::string& path) {
  Rule out;
  out.id = "project:own-file";
  out.why = "the project's policy is people's: no agent writes it, also while there is none";
  out.effect = Effect::kForbid;
  out.verbs = {Verb::kWrite};
  if (auto pattern = kernel::PathPattern::parse(path)) out.paths.push_back(*std::move(pattern));
  out.layer = static_cast<uint8_t>(Layer::kProject);
  out.source = "certgate";
  return out;
}

bool speaks_of(const Rule& rule, Verb verb) {
  return rule.effect != Effect::kForbid &&
         std::find(rule.verbs.begin(), rule.verbs.end(), verb) != rule.verbs.end();
}

// All that one layer allows by one verb.
struct Above {
  std::vector<kernel::PathPattern> paths;
  std::vector<kernel::EndpointPattern> endpoints;
  std::vector<const kernel::AcceptSet*> accepts;
};

Above above(const kernel::Policy& policy, size_t layer, Verb verb) {
  Above out;
  for (const Rule& rule : policy.rules) {
    if (rule.layer != layer || !speaks_of(rule, verb)) continue;
    out.paths.insert(out.paths.end(), rule.paths.begin(), rule.paths.end());
    out.endpoints.insert(out.endpoints.end(), rule.endpoints.begin(), rule.endpoints.end());
    out.accepts.push_back(&rule.accept);
  }
  return out;
}

// What `rule` says beyond one layer above, in words; empty when there is nothing.
std::string beyond(const Rule& rule, Verb verb, const Above& above) {
  for (const std::string& text : rule.accept.texts()) {
    const kernel::Label label = kernel::Label::of({*kernel::Origin::parse(text)});
    const bool accepted = std::any_of(above.accepts.begin(), above.accepts.end(),
                                      [&](const auto* set) { return set->accepts(label); });
    if (!accepted) return "the origin " + text;
  }
  if (verb == Verb::kConnect) {
    for (const kernel::EndpointPattern& e : rule.endpoints) {
      const bool within =
          std::any_of(above.endpoints.begin(), above.endpoints.end(),
                      [&](const auto& wide) { return kernel::endpoint_within(e, wide); });
      if (!within) return e.text();
    }
    return "";
  }
  for (const kernel::PathPattern& p : rule.paths) {
    const auto outside = kernel::path_outside(p, above.paths);
    if (outside && *outside) return (*outside)->path;
  }
  return "";
}

}  // namespace

Status add_layers(CompiledPolicy& to, const LayerChoice& choice, const PolicyContext& context) {
  CG_TRY(const std::optional<std::string> admin, admin_file(choice));
  if (admin) {
    CG_TRY(const std::string text, read_policy_text(*admin));
    CG_CHECK(add_layer(to, Layer::kAdmin, *admin, text, context));
  }
  const std::string project = context.workspace + "/" + kProjectPolicy;
  CG_TRY(const std::optional<std::string> text, read_project(project));
  if (text) CG_CHECK(add_layer(to, Layer::kProject, project, *text, context));
  if (!mutant(Mutant::kProjectPolicy)) to.policy.rules.push_back(own_file_rule(project));
  return kernel::validate(to.policy);
}

Result<CompiledPolicy> load_layers(const LayerChoice& choice, const PolicyContext& context) {
  CG_TRY(const std::string file, find_policy(choice.vendor));
  CG_TRY(CompiledPolicy out, load_trusted(file, context, choice.trust));
  CG_CHECK(add_layers(out, choice, context));
  return out;
}

std::vector<std::string> layer_notes(const kernel::Policy& policy) {
  std::vector<std::string> out;
  for (const Rule& rule : policy.rules) {
    for (const Verb verb : rule.verbs) {
      for (size_t layer = 0; layer < rule.layer && speaks_of(rule, verb); ++layer) {
        const Above wide = above(policy, layer, verb);
        if (layer != 0 && wide.accepts.empty()) continue;  // it leaves the verb to the others
        const std::string more = beyond(rule, verb, wide);
        if (more.empty()) continue;
        out.push_back(fmt::format(
            "{}: rule {}: to {} {} goes beyond the layer {}, which grants it "
            "to nobody; here it grants nothing",
            rule.source, rule.id, kernel::verb_text(verb), more, kernel::layer_text(layer)));
      }
    }
  }
  return out;
}

}  // namespace certgate::agentd
