#include "agentd/observe.h"

#include <algorithm>

namespace certgate::agentd {
namespace {

using kernel::Rule;
using kernel::Verb;

constexpr std::string_view kPrefix = "observed-";
constexpr Verb kAll[] = {Verb::kExec, Verb::kRead, Verb::kWrite, Verb::kConnect};

std::vector<kernel::EndpointPattern> everywhere() {
  std::vector<kernel::EndpointPattern> out;
  for (const char* text : {"0.0.0.0/0:*", "[::/0]:*", "unix:/**"}) {
    if (auto place = kernel::EndpointPattern::parse(text)) out.push_back(*std::move(place));
  }
  kernel::EndpointPattern names;  // no file can say this
  names.host.text = "*";
  names.host.subdomains = true;
  out.push_back(std::move(names));
  return out;
}

Rule rest(Verb verb, uint8_t layer) {
  Rule out;
  out.layer = layer;
  out.id = layer == 0 ? std::string() : std::string(kernel::layer_text(layer)) + ":";
  out.id += std::string(kPrefix) + kernel::verb_text(verb);
  out.why = "observing: the policy would refuse this";
  out.verbs = {verb};
  out.accept = *kernel::AcceptSet::parse(
      {"operator", "user", "policy", "model", "tool", "agent:*", "file:*", "web:*", "unknown"});
  if (verb == Verb::kConnect) {
    out.endpoints = everywhere();
  } else {
    for (const char* text : {"/**", "@private"})
      out.paths.push_back(*kernel::PathPattern::parse(text));
  }
  out.source = "--observe";
  return out;
}

}  // namespace

Observing observing(const kernel::Policy& policy) {
  Observing out{policy, policy};
  for (uint8_t layer = 0; layer < kernel::kMaxLayers; ++layer) {
    const bool there =
        layer == 0 || std::any_of(policy.rules.begin(), policy.rules.end(), [&](const Rule& rule) {
          return rule.layer == layer && rule.effect != kernel::Effect::kForbid;
        });
    for (const Verb verb : kAll) {
      if (!there) continue;
      Rule rule = rest(verb, layer);
      out.wide.rules.push_back(rule);
      rule.verbs.clear();
      rule.paths.clear();
      rule.endpoints.clear();
      out.strict.rules.push_back(std::move(rule));
    }
  }
  return out;
}

bool is_observing_rule(std::string_view id) {
  const size_t colon = id.find(':');
  return id.substr(colon == std::string_view::npos ? 0 : colon + 1).starts_with(kPrefix);
}

}  // namespace certgate::agentd
