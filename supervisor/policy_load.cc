#include "supervisor/policy_load.h"

#include <algorithm>

#include "supervisor/tool_load.h"

namespace certgate::supervisor {
namespace {

using kernel::AcceptSet;
using kernel::CborReader;
using kernel::Policy;
using kernel::Rule;

constexpr size_t kMaxText = 65536;        // a pattern, an id, a place
constexpr size_t kMaxSentence = 1 << 20;  // why
constexpr size_t kMaxList = 65536;        // of one rule

Status key(CborReader& in, uint64_t wanted) {
  CG_TRY(const uint64_t is, in.unsigned_int());
  return is == wanted ? ok() : Status(fail("key " + std::to_string(wanted) + " is missing"));
}

Status array_of(CborReader& in, size_t wanted) {
  CG_TRY(const size_t is, in.array(wanted));
  return is == wanted ? ok() : Status(fail("a list has another length"));
}

Result<std::vector<std::string>> texts(CborReader& in) {
  CG_TRY(const size_t count, in.array(kMaxList));
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(std::string text, in.text(kMaxText));
    out.push_back(std::move(text));
  }
  return out;
}

template <typename T>
Status choice(CborReader& in, T last, T& to) {
  CG_TRY(const uint64_t value, in.unsigned_int());
  if (value > static_cast<uint64_t>(last)) return fail("a value that is not known");
  to = static_cast<T>(value);
  return ok();
}

Status endpoints(CborReader& in, Rule& rule) {
  CG_TRY(const size_t count, in.array(kMaxList));
  for (size_t i = 0; i < count; ++i) {
    CG_CHECK(array_of(in, 2));
    CG_TRY(const std::string text, in.text(kMaxText));
    kernel::EndpointPattern endpoint;
    // Any name: no file can say it, an observing run's own rule does (agentd/observe.h).
    if (text == "*:*" && rule.id.ends_with("observed-connect")) {
      endpoint.host.text = "*";
      endpoint.host.subdomains = true;
    } else {
      CG_TRY(endpoint, kernel::EndpointPattern::parse(text));
    }
    CG_TRY(std::string via, in.text(kMaxText));
    if (!via.empty()) endpoint.via = std::move(via);
    rule.endpoints.push_back(std::move(endpoint));
  }
  return ok();
}

// What the rule is about: keys 1 to 7.
Status subject(CborReader& in, Rule& rule) {
  CG_CHECK(key(in, 1));
  CG_TRY(rule.id, in.text(kMaxText));
  CG_CHECK(key(in, 2));
  CG_TRY(rule.why, in.text(kMaxSentence));
  CG_CHECK(key(in, 3));
  CG_CHECK(choice(in, kernel::Effect::kAsk, rule.effect));
  CG_CHECK(key(in, 4));
  CG_TRY(const size_t verbs, in.array(kernel::kVerbs));
  rule.verbs.resize(verbs);
  for (kernel::Verb& verb : rule.verbs) CG_CHECK(choice(in, kernel::Verb::kConnect, verb));
  CG_CHECK(key(in, 5));
  CG_TRY(const std::vector<std::string> paths, texts(in));
  for (const std::string& text : paths) {
    CG_TRY(kernel::PathPattern pattern, kernel::PathPattern::parse(text));
    rule.paths.push_back(std::move(pattern));
  }
  CG_CHECK(key(in, 6));
  CG_TRY(const size_t argvs, in.array(kMaxList));
  for (size_t i = 0; i < argvs; ++i) {
    CG_TRY(std::vector<std::string> argv, texts(in));
    rule.argvs.push_back(std::move(argv));
  }
  CG_CHECK(key(in, 7));
  return endpoints(in, rule);
}

// Its terms: keys 8 to 16.
Status terms(CborReader& in, Rule& rule) {
  CG_CHECK(key(in, 8));
  CG_TRY(const std::vector<std::string> accept, texts(in));
  CG_TRY(rule.accept, AcceptSet::parse(accept));
  CG_CHECK(key(in, 9));
  CG_TRY(const std::string origin, in.text(kMaxText));
  if (!origin.empty()) {
    CG_TRY(rule.origin, kernel::Origin::parse(origin));
  }
  CG_CHECK(key(in, 10));
  CG_TRY(const uint64_t ttl, in.unsigned_int());
  if (ttl != 0) rule.ttl_ns = ttl;
  CG_CHECK(key(in, 11));
  CG_TRY(const uint64_t budget, in.unsigned_int());
  if (budget != 0) rule.budget = budget;
  CG_CHECK(key(in, 12));
  CG_CHECK(choice(in, kernel::Durability::kStrict, rule.durability));
  CG_CHECK(key(in, 13));
  CG_TRY(const std::vector<std::string> clearance, texts(in));
  CG_TRY(rule.clearance, AcceptSet::parse(clearance, AcceptSet::Of::kTags));
  CG_CHECK(key(in, 14));
  CG_TRY(const uint64_t deadline, in.unsigned_int());
  if (deadline != 0) rule.deadline_ns = deadline;
  CG_CHECK(key(in, 15));
  CG_TRY(const size_t tools, in.array(kMaxList));
  for (size_t i = 0; i < tools; ++i) {
    CG_TRY(const uint64_t tool, in.unsigned_int());
    if (tool > UINT32_MAX) return fail("a tool that there cannot be");
    rule.tools.push_back(static_cast<uint32_t>(tool));
  }
  CG_CHECK(key(in, 16));
  CG_TRY(const uint64_t layer, in.unsigned_int());
  if (layer >= kernel::kMaxLayers) return fail("a layer that there cannot be");
  rule.layer = static_cast<uint8_t>(layer);
  return ok();
}

Status zones(CborReader& in, Policy& policy) {
  CG_TRY(const size_t count, in.array(kernel::kMaxRules));
  for (size_t i = 0; i < count; ++i) {
    kernel::Zone zone;
    CG_CHECK(array_of(in, 4));
    CG_TRY(zone.name, in.text(kMaxText));
    CG_TRY(const std::string pattern, in.text(kMaxText));
    CG_TRY(zone.pattern, kernel::PathPattern::parse(pattern));
    CG_TRY(const std::string origin, in.text(kMaxText));
    if (!origin.empty()) {
      CG_TRY(zone.origin, kernel::Origin::parse(origin));
    }
    CG_TRY(const std::string secrecy, in.text(kMaxText));
    CG_TRY(zone.secrecy, kernel::Label::parse(secrecy));
    policy.zones.push_back(std::move(zone));
  }
  return ok();
}

}  // namespace

Result<Policy> load_canonical(const uint8_t* data, size_t size) {
  CborReader in(data, size);
  Policy out;
  CG_TRY(const size_t parts, in.map(5));
  if (parts != 5) return fail("a map has another length");
  CG_CHECK(key(in, 1));
  CG_TRY(out.name, in.text(kMaxText));
  CG_CHECK(key(in, 2));
  CG_CHECK(zones(in, out));
  CG_CHECK(key(in, 3));
  CG_TRY(const size_t rules, in.array(kernel::kMaxRules));
  for (size_t i = 0; i < rules; ++i) {
    Rule rule;
    CG_TRY(const size_t keys, in.map(16));
    if (keys != 16) return fail("a rule has other keys");
    CG_CHECK(subject(in, rule));
    CG_CHECK(terms(in, rule));
    out.rules.push_back(std::move(rule));
  }
  CG_CHECK(key(in, 4));
  CG_CHECK(array_of(in, out.risk.size()));
  for (kernel::Effect& one : out.risk) CG_CHECK(choice(in, kernel::Effect::kAsk, one));
  CG_CHECK(key(in, 5));
  CG_TRY(out.tools, read_tools(in));
  if (!in.done()) return fail("bytes after its end");
  const std::vector<uint8_t> again = out.canonical();
  if (!std::equal(again.begin(), again.end(), data, data + size))
    return fail("it is not in its canonical form");
  CG_CHECK(kernel::validate(out));
  return out;
}

}  // namespace certgate::supervisor
