#include "agentd/rule_file.h"

#include <algorithm>

#include "agentd/duration.h"

namespace certgate::agentd {

using kernel::Rule;

void read_verbs(TomlFile& file, TableReader& reader, Rule& rule) {
  constexpr std::pair<const char*, kernel::Effect> kKeys[] = {{"allow", kernel::Effect::kAllow},
                                                              {"ask", kernel::Effect::kAsk},
                                                              {"forbid", kernel::Effect::kForbid}};
  using Words = boost::container::small_vector<std::string_view, kernel::kVerbs>;
  Words words;
  const char* used = nullptr;
  for (const auto& [key, effect] : kKeys) {
    Words found;
    if (!reader.texts(key, found, Need::kOptional)) continue;
    if (used != nullptr)
      return file.complain(reader.source(key), "rule '" + rule.id + "' has '" + used + "' and '" +
                                                   key + "'; it needs one, not both");
    used = key;
    words = std::move(found);
    rule.effect = effect;
  }
  if (file.error) return;
  if (used == nullptr)
    return file.complain(reader.source("id"),
                         "rule '" + rule.id + "' needs one of 'allow', 'ask' and 'forbid'");
  for (const std::string_view word : words) {
    const auto verb = kernel::parse_verb(word);
    if (!verb) return file.complain(reader.source(used), verb.error().what);
    if (std::find(rule.verbs.begin(), rule.verbs.end(), *verb) == rule.verbs.end())
      rule.verbs.push_back(*verb);
  }
  std::sort(rule.verbs.begin(), rule.verbs.end());
}

void read_terms(TomlFile& file, TableReader& reader, Rule& rule) {
  std::string ttl, deadline, durability;
  uint64_t value = 0;
  if (reader.text("ttl", ttl, Need::kOptional)) {
    rule.ttl_ns = parse_duration(ttl);
    if (!rule.ttl_ns)
      return file.complain(reader.source("ttl"),
                           "'ttl' must be like \"90s\", \"15m\", \"2h\" or \"7d\"");
  }
  if (reader.text("deadline", deadline, Need::kOptional)) {
    rule.deadline_ns = parse_duration(deadline);
    if (!rule.deadline_ns || *rule.deadline_ns > kernel::kMaxDeadline_ns)
      return file.complain(reader.source("deadline"),
                           "'deadline' must be like \"90s\" or \"5m\", at most \"1h\"");
  }
  if (reader.number("budget", value)) rule.budget = value;
  if (reader.text("durability", durability, Need::kOptional)) {
    if (durability != "ordered" && durability != "strict") {
      return file.complain(reader.source("durability"),
                           "'durability' is \"ordered\" or \"strict\"");
    }
    rule.durability =
        durability == "strict" ? kernel::Durability::kStrict : kernel::Durability::kOrdered;
  }
}

}  // namespace certgate::agentd
