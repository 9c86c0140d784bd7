#include "supervisor/name_table.h"

#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <memory>

namespace certgate::supervisor {
namespace {

constexpr uint8_t kFirstOctet = 198, kSecondOctet = 18;  // 198.18.0.0/15
constexpr uint32_t kFirstNumber = 256;                   // 198.18.1.0: low ones look like networks

Address address_for(uint32_t number) {
  Address out{};
  out[10] = out[11] = 0xff;
  const uint32_t host = kFirstNumber + number;
  out[12] = kFirstOctet;
  out[13] = static_cast<uint8_t>(kSecondOctet + ((host >> 16) & 1));
  out[14] = static_cast<uint8_t>(host >> 8);
  out[15] = static_cast<uint8_t>(host);
  return out;
}

template <typename Predicate>
bool any_endpoint(const kernel::Policy& policy, size_t layer, const std::string& name,
                  Predicate predicate) {
  for (const kernel::Rule& rule : policy.rules) {
    if (!rule.grants() || rule.layer != layer) continue;
    for (const kernel::EndpointPattern& e : rule.endpoints) {
      if (e.transport != kernel::Transport::kUnix && e.host.could_match_name(name) &&
          predicate(rule, e))
        return true;
    }
  }
  return false;
}

// The same in every layer that allows connections at all.
template <typename Predicate>
bool each_layer(const kernel::Policy& policy, const std::string& name, Predicate predicate) {
  for (size_t layer = 0; layer < kernel::kMaxLayers; ++layer) {
    const bool speaks =
        layer == 0 ||
        std::any_of(policy.rules.begin(), policy.rules.end(), [&](const kernel::Rule& rule) {
          return rule.layer == layer && rule.effect == kernel::Effect::kAllow &&
                 !rule.endpoints.empty();
        });
    if (speaks && !any_endpoint(policy, layer, name, predicate)) return false;
  }
  return true;
}

}  // namespace

bool NameTable::could_allow(const std::string& name) const {
  return each_layer(*policy_.load(), name,
                    [](const kernel::Rule&, const kernel::EndpointPattern&) { return true; });
}

bool NameTable::has_via(const std::string& name) const {
  const auto some = [&](bool via) {
    return any_endpoint(*policy_.load(), 0, name,
                        [&](const kernel::Rule&, const kernel::EndpointPattern& e) {
                          // An observing run's any name (agentd/observe.h) says nothing of where
                          // this one leads.
                          return e.via.has_value() == via && e.host.text != "*";
                        });
  };
  return some(true) && !some(false);
}

bool NameTable::allows_now(const std::string& name, const kernel::Label& label) const {
  return each_layer(*policy_.load(), name,
                    [&](const kernel::Rule& rule, const kernel::EndpointPattern&) {
                      return rule.accept.accepts(label) && rule.clearance.accepts(label);
                    });
}

std::optional<Address> NameTable::bind(const std::string& name) {
  const std::lock_guard lock(mutex_);
  const auto it = numbers_.find(name);
  if (it != numbers_.end()) return address_for(it->second);
  if (names_.size() >= kMaxNames) return std::nullopt;
  const auto number = static_cast<uint32_t>(names_.size());
  names_.push_back(name);
  numbers_.emplace(name, number);
  return address_for(number);
}

std::optional<std::string> NameTable::name_of(const Address& address) const {
  if (!is_ipv4(address) || address[12] != kFirstOctet || (address[13] & 0xfe) != kSecondOctet)
    return std::nullopt;
  const uint32_t host =
      (uint32_t{address[13]} & 1) << 16 | uint32_t{address[14]} << 8 | address[15];
  const std::lock_guard lock(mutex_);
  if (host < kFirstNumber || host - kFirstNumber >= names_.size()) return std::nullopt;
  return names_[host - kFirstNumber];
}

Result<std::vector<Address>> resolve_on_host(const std::string& name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  const int error = ::getaddrinfo(name.c_str(), nullptr, &hints, &list);
  if (error != 0) return fail("resolve " + name + ": " + ::gai_strerror(error), EHOSTUNREACH);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
  std::vector<Address> out;
  for (const addrinfo* at = list; at != nullptr && out.size() < 16; at = at->ai_next) {
    sockaddr_storage storage{};
    if (at->ai_addrlen > sizeof storage) continue;
    std::memcpy(&storage, at->ai_addr, at->ai_addrlen);
    if (auto endpoint = endpoint_of(storage, at->ai_addrlen)) out.push_back(endpoint->address);
  }
  return out;
}

}  // namespace certgate::supervisor
