#include "kernel/policy.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <unordered_set>

#include "kernel/cbor.h"
#include "kernel/merkle.h"

namespace certgate::kernel {
namespace {

constexpr const char* kVerbTexts[kVerbs] = {"exec", "read", "write", "connect"};
constexpr const char* kLayerTexts[kMaxLayers] = {"vendor", "admin", "project"};

void put_texts(CborWriter& w, const std::vector<std::string>& texts) {
  w.array(texts.size());
  for (const std::string& t : texts) w.text(t);
}

void put_paths(CborWriter& w, const std::vector<PathPattern>& paths) {
  w.array(paths.size());
  for (const PathPattern& p : paths) w.text(p.text());
}

void put_value(CborWriter& w, const ValueSpec& v) {
  w.array(9);
  put_texts(w, v.one_of);
  w.unsigned_int(static_cast<uint64_t>(v.type));
  w.integer(v.min), w.integer(v.max);
  w.text(v.chars);
  put_texts(w, v.patterns);
  put_paths(w, v.within);
  w.boolean(v.dash);
  w.array(v.accept ? 1 : 0);
  if (v.accept) put_texts(w, v.accept->texts());
}

void put_tool(CborWriter& w, const Tool& tool) {
  w.array(10);
  w.text(tool.name), w.text(tool.why), w.text(tool.program);
  w.unsigned_int(static_cast<uint64_t>(tool.pin));
  w.bytes(tool.sha256.data(), tool.pin == Tool::Pin::kExact ? tool.sha256.size() : 0);
  put_texts(w, tool.run_by);
  w.array(tool.parts.size());
  for (const ToolPart& part : tool.parts) {
    w.array(part.value ? 5 : 4);
    w.text(part.flag), w.boolean(part.optional), w.boolean(part.repeats),
        w.unsigned_int(part.group);
    if (part.value) put_value(w, *part.value);
  }
  w.array(tool.env.size());
  for (const ToolVariable& v : tool.env) w.array(2), w.text(v.name), put_value(w, v.value);
  put_paths(w, tool.cwd);
  w.unsigned_int(static_cast<uint64_t>(tool.descriptors));
}

void put_rule(CborWriter& w, const Rule& rule) {
  w.map(16);
  w.unsigned_int(1), w.text(rule.id);
  w.unsigned_int(2), w.text(rule.why);
  w.unsigned_int(3), w.unsigned_int(static_cast<uint64_t>(rule.effect));
  w.unsigned_int(4), w.array(rule.verbs.size());
  for (const Verb v : rule.verbs) w.unsigned_int(static_cast<uint64_t>(v));
  w.unsigned_int(5), put_paths(w, rule.paths);
  w.unsigned_int(6), w.array(rule.argvs.size());
  for (const auto& argv : rule.argvs) put_texts(w, argv);
  w.unsigned_int(7), w.array(rule.endpoints.size());
  for (const EndpointPattern& e : rule.endpoints) {
    w.array(2);
    w.text(e.text());
    w.text(e.via.value_or(""));
  }
  w.unsigned_int(8), put_texts(w, rule.accept.texts());
  w.unsigned_int(9), w.text(rule.origin ? rule.origin->text() : "");
  // 0 cannot be meant: validate() refuses it, so it stands for "none".
  w.unsigned_int(10), w.unsigned_int(rule.ttl_ns.value_or(0));
  w.unsigned_int(11), w.unsigned_int(rule.budget.value_or(0));
  w.unsigned_int(12), w.unsigned_int(static_cast<uint64_t>(rule.durability));
  w.unsigned_int(13), put_texts(w, rule.clearance.texts());
  w.unsigned_int(14), w.unsigned_int(rule.deadline_ns.value_or(0));
  w.unsigned_int(15), w.array(rule.tools.size());
  for (const uint32_t tool : rule.tools) w.unsigned_int(tool);
  w.unsigned_int(16), w.unsigned_int(rule.layer);
}

bool has(const Rule& rule, Verb verb) {
  return std::find(rule.verbs.begin(), rule.verbs.end(), verb) != rule.verbs.end();
}

}  // namespace

Status validate(const Rule& rule) {
  const auto name = [&] { return "rule '" + rule.id + "'"; };  // only where it is wrong
  if (rule.id.empty()) return fail("a rule without an id");
  if (rule.why.empty()) return fail(name() + " does not say why");
  if (rule.verbs.empty()) return fail(name() + " names no verb");
  const bool path_verb =
      has(rule, Verb::kExec) || has(rule, Verb::kRead) || has(rule, Verb::kWrite);
  const bool grants_calls = rule.grants() && rule.verbs.size() == 1 && has(rule, Verb::kExec);
  if (!rule.tools.empty() && !(grants_calls && rule.paths.empty() && rule.argvs.empty()))
    return fail(name() +
                ": 'tools' is for allow or ask = [\"exec\"] alone, without paths and argv");
  if (path_verb && rule.paths.empty() && rule.tools.empty())
    return fail(name() + " needs paths for exec, read or write");
  if (has(rule, Verb::kConnect) && rule.endpoints.empty())
    return fail(name() + " needs endpoints for connect");
  if (!path_verb && !rule.paths.empty())
    return fail(name() + " has paths but no exec, read or write");
  if (!has(rule, Verb::kConnect) && !rule.endpoints.empty())
    return fail(name() + " has endpoints but no connect");
  if (!has(rule, Verb::kExec) && !rule.argvs.empty()) return fail(name() + " has argv but no exec");
  if (rule.origin && !has(rule, Verb::kConnect))
    return fail(name() + " has an origin but no connect");
  if ((!has(rule, Verb::kConnect) || rule.effect == Effect::kForbid) &&
      !rule.clearance.texts().empty())
    return fail(name() + " has a clearance, which only a rule that allows to connect can have");
  if (rule.ttl_ns == 0u || rule.budget == 0u)
    return fail(name() + ": a ttl or budget of 0 allows nothing; leave the rule out");
  const bool asks = rule.effect == Effect::kAsk;
  if (rule.deadline_ns && (!asks || *rule.deadline_ns == 0 || *rule.deadline_ns > kMaxDeadline_ns))
    return fail(name() + ": a deadline is for ask rules, and at most 1h");
  const auto is_udp = [](const EndpointPattern& e) { return e.transport == Transport::kUdp; };
  if (asks && std::any_of(rule.endpoints.begin(), rule.endpoints.end(), is_udp))
    return fail(name() + " asks about datagrams, which do not wait; allow or forbid them");
  const bool via = std::any_of(rule.endpoints.begin(), rule.endpoints.end(),
                               [](const EndpointPattern& e) { return e.via.has_value(); });
  if (rule.layer >= kMaxLayers || (rule.layer != 0 && via))
    return fail(name() + ": 'via' is for the first of at most 3 layers; the others only narrow");
  return ok();
}

const char* verb_text(Verb verb) { return kVerbTexts[static_cast<size_t>(verb)]; }
const char* layer_text(size_t layer) { return kLayerTexts[layer]; }

Result<Verb> parse_verb(std::string_view text) {
  const auto* it = std::find(std::begin(kVerbTexts), std::end(kVerbTexts), text);
  if (it == std::end(kVerbTexts)) {
    return fail("no such verb: '" + std::string(text) + "'; known are: exec, read, write, connect");
  }
  return static_cast<Verb>(it - std::begin(kVerbTexts));
}

bool Rule::spells(std::string_view path) const {
  return std::any_of(paths.begin(), paths.end(),
                     [&](const PathPattern& p) { return p.spells(path); });
}

std::vector<uint8_t> Policy::canonical() const {
  CborWriter w;
  w.map(5);
  w.unsigned_int(1), w.text(name);
  w.unsigned_int(2), w.array(zones.size());
  for (const Zone& z : zones) {
    w.array(4);
    w.text(z.name);
    w.text(z.pattern.text());
    w.text(z.origin ? z.origin->text() : "");
    w.text(z.secrecy.text());
  }
  w.unsigned_int(3), w.array(rules.size());
  for (const Rule& r : rules) put_rule(w, r);
  w.unsigned_int(4), w.array(risk.size());
  for (const Effect e : risk) w.unsigned_int(static_cast<uint64_t>(e));
  w.unsigned_int(5), w.array(tools.size());
  for (const Tool& t : tools) put_tool(w, t);
  return w.take();
}

Digest Policy::digest() const {
  const auto bytes = canonical();
  return sha256(bytes.data(), bytes.size());
}

Label Policy::zone_label(std::string_view path) const {
  const Zone* best = nullptr;
  for (const Zone& z : zones) {
    if (!z.origin || (best != nullptr && z.pattern.text().size() <= best->pattern.text().size()))
      continue;
    if (z.pattern.matches(path, false)) best = &z;
  }
  return (best ? Label::of({*best->origin}) : Label::unknown()).join(zone_secrecy(path));
}

Label Policy::zone_secrecy(std::string_view path) const {
  Label out;
  for (const Zone& z : zones) {
    if (!z.secrecy.empty() && z.pattern.matches(path, false)) out = out.join(z.secrecy);
  }
  return out;
}

std::set<uint16_t> Policy::udp_ports() const {
  std::set<uint16_t> ports;
  for (const Rule& rule : rules) {
    if (!rule.grants() || rule.layer != 0) continue;
    for (const EndpointPattern& e : rule.endpoints) {
      if (e.transport != Transport::kUdp) continue;
      for (uint32_t port = e.port_first; port <= e.port_last; ++port) {
        if (port != 0) ports.insert(static_cast<uint16_t>(port));
        if (ports.size() > kMaxUdpPorts) return ports;
      }
    }
  }
  return ports;
}

Status validate(const Policy& policy) {
  if (policy.rules.size() > kMaxRules || policy.zones.size() > kMaxRules)
    return fail("more than 20,000 rules or zones");
  for (const Zone& z : policy.zones)
    if (!z.origin && z.secrecy.empty()) return fail("zone '" + z.name + "' says nothing");
  const auto& [low, medium, high] = policy.risk;
  if (stricter(low, medium) != medium || stricter(medium, high) != high)
    return fail("a higher risk is treated more mildly than a lower one");
  std::unordered_set<std::string_view> ids(policy.rules.size());
  for (const Rule& rule : policy.rules) {
    CG_CHECK(validate(rule));
    if (!ids.insert(rule.id).second) return fail("two rules have the id '" + rule.id + "'");
    for (const uint32_t tool : rule.tools) {
      if (tool >= policy.tools.size()) return fail("rule '" + rule.id + "' names no tool");
    }
  }
  if (policy.udp_ports().size() > kMaxUdpPorts)
    return fail("the policy names more than 64 UDP ports; name those that are needed");
  return ok();
}

}  // namespace certgate::kernel
