// Policy, in the canonical form the kernel loads: no TOML, no sets, no globs beyond PathPattern.
//
// agentd's compiler turns a TOML file into this; `canonical()` is its deterministic CBOR, and the
// SHA-256 of that is the policy digest every record names. Rules are tried in this order:
//   1. a forbid rule that matches the object  -> FORBIDDEN, whatever else matches
//   2. the first allow or ask rule that matches the object and accepts the label decides
//      -> allowed by it; after an operator's approval of this very action (APPROVAL_REQUIRED) where
//      it, or a rule before it that matches the object, asks
//   3. some such rule matched the object but none accepted the label -> UNTRUSTED_ORIGIN
//      (the refusal names the first of them, and the first origin that it does not accept)
//   4. nothing matched -> SCOPE_MISSING
// A connect rule is also a sink: where it accepts the label but has no clearance for a tag of it,
// it does not allow; when that is all that was missing, CLEARANCE_MISSING.
// Each layer (Rule::layer) decides so by its own rules and all of them must allow; a layer below
// the first that has no allow rule for a verb leaves that verb to the others. So layers only
// narrow. An ask rule below the first layer only adds a question.
//
// Path patterns (absolute, resolved paths inside the sandbox):
//   /usr/bin/git    exactly this      /usr/**   everything below /usr, and /usr itself
//   /a/*.c          '*' and '?' stay within one component      **  as a whole component only
//   @private        whatever lives on a file system of the sandbox's own (/tmp, home, /proc, …):
//                   a workspace below /tmp or home is not part of it
// A forbid rule on write holds also against what would put another thing in the place of a
// directory above: renaming it away or onto its name, a symlink or a file of that name
// (OpenEffect::replaces).
// Argv patterns: one per argument; "*" inside an argument matches any bytes of it;
//   a last element "**" matches any number of further arguments (also none).
// Host patterns: "a.test", "*.a.test" (any depth below a.test), an address, or a CIDR block. An
//   internal address (address.h) is reached only by a block that lies within internal ranges.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/call.h"
#include "kernel/label.h"
#include "kernel/result.h"
#include "kernel/tool.h"

namespace certgate::kernel {

inline constexpr size_t kMaxRules = 20000;
inline constexpr size_t kMaxLayers = 3;
inline constexpr size_t kMaxPatternBytes = 4096;
inline constexpr unsigned kMaxUdpPorts = 64;  // of one policy: each is a socket of the supervisor

const char* verb_text(Verb verb);      // "exec"
const char* layer_text(size_t layer);  // "vendor", "admin", "project"
Result<Verb> parse_verb(std::string_view text);

enum class Effect : uint8_t { kForbid, kAllow, kAsk };
constexpr Effect stricter(Effect a, Effect b) {
  return a == Effect::kForbid || b == Effect::kForbid ? Effect::kForbid : std::max(a, b);
}
enum class Risk : uint8_t { kLow, kMedium, kHigh };  // risk.h
inline constexpr size_t kRisks = 3;
inline constexpr uint64_t kDefaultDeadline_ns = 120'000'000'000, kMaxDeadline_ns = 3600'000'000'000;
// When the record must be safe before the effect: `ordered` = the append returned (survives the
// death of our processes), `strict` = fdatasync returned (survives power loss).
enum class Durability : uint8_t { kOrdered, kStrict };

class PathPattern {
 public:
  static Result<PathPattern> parse(std::string_view text);
  bool matches(std::string_view path, bool inside) const;
  // Whether the pattern names something below `path`, spelling out the last name of `path`: for
  // "/ws/.git/hooks/**" and "/ws/**/.git/hooks/**" that is so of "/ws/.git", not of "/ws/src".
  bool names_below(std::string_view path) const;
  // Whether the pattern spells out this very name: then who may write it had no choice of the name.
  bool spells(std::string_view path) const;
  const std::string& text() const { return text_; }

 private:
  enum class Shape : uint8_t { kExact, kSubtree, kGlob, kPrivate };
  std::string text_;
  Shape shape_ = Shape::kExact;
  uint16_t head_ = 0, tail_ = 0;  // glob: bytes that every match begins and ends with
};

// Matches a list of arguments (see above). Empty list of patterns = any argv.
bool argv_matches(const std::vector<std::string>& patterns, const std::vector<std::string>& argv);

struct HostPattern {
  static Result<HostPattern> parse(std::string_view text);
  // `host` is a lower-case name or an address as text; `address` the 16-byte form.
  bool matches(const ConnectEffect& effect) const;
  bool could_match_name(std::string_view name) const;  // for the resolver
  std::string text;
  bool subdomains = false;  // "*.a.test"; of the text "*" alone: any name, which no file can say
  bool is_address = false;
  std::array<uint8_t, 16> address{};
  uint8_t prefix_bits = 0;  // of 128
};

// One place to connect to:
//   "a.test:443", "a.test:8000-8099", "10.0.0.0/8:*", "[::1]:80"    a host, by TCP
//   "udp:ntp.test:123"                                              the same, by UDP
//   "unix:/run/agent.sock"                                          a socket file, by PathPattern
struct EndpointPattern {
  static Result<EndpointPattern> parse(std::string_view text);
  bool matches(const ConnectEffect& effect) const;
  // The same for an allow rule: an internal address must be named by an internal block.
  bool allows(const ConnectEffect& effect) const;
  std::string text() const;  // as parse() reads it
  Transport transport = Transport::kTcp;
  HostPattern host;  // tcp, udp
  uint16_t port_first = 0, port_last = 65535;
  std::optional<PathPattern> path;  // unix
  // Where the supervisor really connects (host side), instead of the asked address: "127.0.0.1:80".
  std::optional<std::string> via;
};

struct Rule {
  std::string id;   // unique in the policy
  std::string why;  // one sentence, shown in refusals and explanations
  Effect effect = Effect::kAllow;
  std::vector<Verb> verbs;                      // exec | read | write | connect
  std::vector<PathPattern> paths;               // exec, read, write
  std::vector<std::vector<std::string>> argvs;  // exec: any of these, empty = any argv
  std::vector<uint32_t> tools;                  // exec, instead of paths: calls of these tools
  std::vector<EndpointPattern> endpoints;       // connect (tcp, udp)
  AcceptSet accept;                             // origins this scope accepts; unused for forbid
  AcceptSet clearance{AcceptSet::Of::kTags};    // connect: secrecy tags that may leave by it
  std::optional<uint64_t> deadline_ns;          // ask: else kDefaultDeadline_ns
  std::optional<Origin> origin;    // connect: what the peer's bytes are, else web:<host>
  std::optional<uint64_t> ttl_ns;  // valid this long from the start of the run
  std::optional<uint64_t> budget;  // calls per run
  Durability durability = Durability::kOrdered;
  uint8_t layer = 0;                         // 0 = the widest; only it has zones and `via`
  std::string source;                        // "file:line" it came from; not part of the digest
  bool spells(std::string_view path) const;  // see PathPattern
  bool grants() const { return effect != Effect::kForbid; }  // at once, or when approved
};

// Origin of files without a label of their own: the longest matching pattern that has one wins.
// Secrecy is of whatever lies there, labelled or not: every matching zone adds its tags.
struct Zone {
  std::string name;
  PathPattern pattern;
  std::optional<Origin> origin;
  std::string source{};  // as for a rule
  Label secrecy{};       // tags only
};

struct Policy {
  std::string name;
  std::vector<Zone> zones;
  std::vector<Rule> rules;
  // What a call of each risk that the rules grant needs; never milder for a higher one.
  std::array<Effect, kRisks> risk{Effect::kAllow, Effect::kAllow, Effect::kAllow};
  std::vector<Tool> tools;

  // Deterministic CBOR of everything that decides (not `source`).
  std::vector<uint8_t> canonical() const;
  Digest digest() const;
  // The label of an unlabelled file at `path`: its zone's origin, else `unknown`, and its secrecy.
  Label zone_label(std::string_view path) const;
  Label zone_secrecy(std::string_view path) const;
  // The UDP ports that allow rules name; at most one more than kMaxUdpPorts.
  // The UDP ports that granting rules name; at most one more than kMaxUdpPorts.
  std::set<uint16_t> udp_ports() const;
};

// Refuses what must never be loaded: duplicate or empty ids, allow rules without a matching
// pattern for each of their verbs, too many rules. The compiler calls it; so does the supervisor.
Status validate(const Policy& policy);
Status validate(const Rule& rule);  // alone

}  // namespace certgate::kernel
