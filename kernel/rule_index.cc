#include "kernel/rule_index.h"

#include <algorithm>

namespace certgate::kernel {
namespace {

// FNV-1a, so that the keys of all prefixes of a path cost one pass.
constexpr uint64_t kSeed = 0xcbf29ce484222325;
constexpr uint64_t add(uint64_t hash, unsigned char byte) { return (hash ^ byte) * 0x100000001b3; }
uint64_t add(uint64_t hash, std::string_view text) {
  for (const char c : text) hash = add(hash, static_cast<unsigned char>(c));
  return hash;
}

// Different kinds of keys never meet.
constexpr uint64_t kPathSeed = add(kSeed, 'p');
constexpr uint64_t kPrivateKey = add(kSeed, '@');
constexpr uint64_t kNameSeed = add(kSeed, 'n');
constexpr uint64_t kSuffixSeed = add(kSeed, 's');
constexpr uint64_t kAddressSeed = add(kSeed, 'a');

uint64_t address_key(const std::array<uint8_t, 16>& address, uint8_t prefix_bits) {
  uint64_t hash = add(kAddressSeed, prefix_bits);
  for (size_t bit = 0; bit < prefix_bits; bit += 8) {
    const size_t left = std::min<size_t>(8, prefix_bits - bit);
    const auto mask = static_cast<uint8_t>(0xff << (8 - left));
    hash = add(hash, static_cast<unsigned char>(address[bit / 8] & mask));
  }
  return hash;
}

// "/ws/*.c" and "/ws/**" are about what begins with "/ws"; "/" is the empty prefix.
std::string_view fixed_prefix(std::string_view pattern) {
  const size_t wild = pattern.find_first_of("*?");
  if (wild != std::string_view::npos) pattern = pattern.substr(0, pattern.rfind('/', wild));
  return pattern == "/" ? std::string_view() : pattern;
}

void append(const std::unordered_map<uint64_t, std::vector<uint32_t>>& filed, uint64_t key,
            std::vector<uint32_t>& out) {
  const auto it = filed.find(key);
  if (it != filed.end()) out.insert(out.end(), it->second.begin(), it->second.end());
}

void append_path(const std::unordered_map<uint64_t, std::vector<uint32_t>>& filed,
                 std::string_view path, std::vector<uint32_t>& out) {
  append(filed, kPrivateKey, out);
  append(filed, kPathSeed, out);
  uint64_t hash = kPathSeed;
  for (size_t i = 0; i < path.size(); ++i) {
    if (i > 0 && path[i] == '/') append(filed, hash, out);
    hash = add(hash, static_cast<unsigned char>(path[i]));
  }
  append(filed, hash, out);
}

void put_in_order(std::vector<uint32_t>& rules) {
  std::sort(rules.begin(), rules.end());
  rules.erase(std::unique(rules.begin(), rules.end()), rules.end());
}

}  // namespace

RuleIndex::RuleIndex(const Policy& policy) {
  for (Filed& filed : paths_) filed.reserve(policy.rules.size());
  for (uint32_t i = 0; i < policy.rules.size(); ++i) {
    const Rule& rule = policy.rules[i];
    for (const Verb verb : rule.verbs) {
      for (const PathPattern& p : rule.paths) file(p, paths_[static_cast<size_t>(verb)], i);
      for (const uint32_t tool : rule.tools) {
        Filed& exec = paths_[static_cast<size_t>(Verb::kExec)];
        exec[add(kPathSeed, policy.tools[tool].program)].push_back(i);
        for (const std::string& path : policy.tools[tool].run_by)
          exec[add(kPathSeed, path)].push_back(i);
      }
      // Below the first layer an ask rule only adds a question: it does not make the layer speak.
      const bool speaks = rule.layer == 0 ? rule.grants() : rule.effect == Effect::kAllow;
      if (speaks) layers_[static_cast<size_t>(verb)] |= 1u << rule.layer;
      if (verb == Verb::kWrite && rule.effect == Effect::kForbid) forbidding_write_.push_back(i);
    }
    for (const EndpointPattern& e : rule.endpoints) file(e, i);
  }
  std::sort(prefix_bits_.begin(), prefix_bits_.end());
  prefix_bits_.erase(std::unique(prefix_bits_.begin(), prefix_bits_.end()), prefix_bits_.end());
}

void RuleIndex::file(const PathPattern& pattern, Filed& under, uint32_t rule) {
  const uint64_t key =
      pattern.text() == "@private" ? kPrivateKey : add(kPathSeed, fixed_prefix(pattern.text()));
  Rules& rules = under[key];
  if (rules.empty() || rules.back() != rule) rules.push_back(rule);
}

void RuleIndex::file(const EndpointPattern& pattern, uint32_t rule) {
  if (pattern.path) return file(*pattern.path, sockets_, rule);
  const HostPattern& host = pattern.host;
  uint64_t key = add(kNameSeed, host.text);
  if (host.is_address) {
    key = address_key(host.address, host.prefix_bits);
    prefix_bits_.push_back(host.prefix_bits);
  } else if (host.subdomains) {
    key = add(kSuffixSeed, std::string_view(host.text).substr(1));  // ".a.test"
  }
  hosts_[key].push_back(rule);
}

void RuleIndex::for_path(Verb verb, std::string_view path, std::vector<uint32_t>& out) const {
  out.clear();
  append_path(paths_[static_cast<size_t>(verb)], path, out);
  put_in_order(out);
}

void RuleIndex::for_endpoint(const ConnectEffect& effect, std::vector<uint32_t>& out) const {
  out.clear();
  if (effect.transport == Transport::kUnix) {
    append_path(sockets_, effect.path, out);
    return put_in_order(out);
  }
  const std::string_view host = effect.host;
  append(hosts_, add(kNameSeed, host), out);
  append(hosts_, kSuffixSeed, out);  // "*"
  for (size_t dot = host.find('.'); dot != std::string_view::npos; dot = host.find('.', dot + 1)) {
    append(hosts_, add(kSuffixSeed, host.substr(dot)), out);
  }
  for (const uint8_t bits : prefix_bits_) append(hosts_, address_key(effect.address, bits), out);
  put_in_order(out);
}

}  // namespace certgate::kernel
