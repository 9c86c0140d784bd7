#include "agentd/rule_order.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "kernel/path_cover.h"
#include "kernel/token.h"

namespace certgate::agentd {
namespace {

using kernel::Effect;
using kernel::PathPattern;
using kernel::Rule;

unsigned verbs(const Rule& rule) {
  unsigned out = 0;
  for (const kernel::Verb verb : rule.verbs) out |= 1u << static_cast<unsigned>(verb);
  return out;
}

// With what all that it matches begins: "/a/**" also matches "/a".
std::string_view fixed(const std::string& text) {
  auto out = std::string_view(text).substr(0, std::min(text.find_first_of("*?"), text.size()));
  if (out.size() < text.size() && out.ends_with('/')) out.remove_suffix(1);
  return out;
}

// What cannot be shown to lie within does not.
bool path_within(const PathPattern& narrow, const PathPattern& wide) {
  if (!fixed(narrow.text()).starts_with(fixed(wide.text()))) return false;  // most, and cheaply
  const auto outside = kernel::path_outside(narrow, {wide});
  return outside && !*outside;
}

// Only arguments that are spelled out, or the very pattern.
bool argv_within(const std::vector<std::string>& narrow, const std::vector<std::string>& wide) {
  if (narrow == wide) return true;
  const bool literal = std::all_of(narrow.begin(), narrow.end(), [](const std::string& argument) {
    return argument.find('*') == std::string::npos;
  });
  return literal && kernel::argv_matches(wide, narrow);
}

template <typename T, typename Within>
bool each_within(const std::vector<T>& narrow, const std::vector<T>& wide, Within within) {
  return std::all_of(narrow.begin(), narrow.end(), [&](const T& one) {
    return std::any_of(wide.begin(), wide.end(),
                       [&](const T& other) { return within(one, other); });
  });
}

// Whether `allow` is about nothing but what `ask` asks about.
bool exempts(const Rule& allow, const Rule& ask) {
  if ((verbs(allow) & ~verbs(ask)) != 0) return false;
  const bool any_argv =
      ask.argvs.empty() || (verbs(allow) & 1u << static_cast<unsigned>(kernel::Verb::kExec)) == 0;
  return each_within(allow.paths, ask.paths, path_within) &&
         each_within(allow.endpoints, ask.endpoints, kernel::endpoint_within) &&
         each_within(allow.tools, ask.tools, std::equal_to<>()) &&
         (any_argv || (!allow.argvs.empty() && each_within(allow.argvs, ask.argvs, argv_within)));
}

}  // namespace

void put_in_order(std::vector<Rule>& rules, size_t begin, size_t own) {
  if (begin == own) return;
  std::vector<const Rule*> asked_before;
  for (size_t i = begin; i < own; ++i) {
    if (rules[i].effect == Effect::kAsk) asked_before.push_back(&rules[i]);
  }
  std::vector<bool> front(rules.size());
  unsigned asked_after = 0;  // the verbs that this file's own later rules ask about
  for (size_t i = rules.size(); i-- > own;) {
    const Rule& rule = rules[i];
    if (rule.effect == Effect::kAsk) asked_after |= verbs(rule);
    front[i] = rule.grants() && ((verbs(rule) & asked_after) != 0 ||
                                 std::any_of(asked_before.begin(), asked_before.end(),
                                             [&](const Rule* ask) { return exempts(rule, *ask); }));
  }
  if (std::find(front.begin(), front.end(), true) == front.end()) return;
  std::vector<Rule> out;
  out.reserve(rules.size());
  const auto take = [&](size_t from, size_t to, bool which) {
    for (size_t i = from; i < to; ++i) {
      if (front[i] == which) out.push_back(std::move(rules[i]));
    }
  };
  take(0, begin, false);
  take(own, rules.size(), true);
  take(begin, own, false);
  take(own, rules.size(), false);
  rules = std::move(out);
}

}  // namespace certgate::agentd
