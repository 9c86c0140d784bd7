#include <algorithm>

#include "kernel/path_cover.h"
#include "kernel/token.h"

namespace certgate::kernel {
namespace {

Status widens(const Token& token, const std::string& how) {
  return fail("token " + token.id + " widens the one before it: " + how);
}

bool carries(const Scope& scope, Verb verb) {
  return std::find(scope.verbs.begin(), scope.verbs.end(), verb) != scope.verbs.end();
}

bool address_within(const HostPattern& a, const HostPattern& b) {
  if (a.prefix_bits < b.prefix_bits) return false;
  for (size_t bit = 0; bit < b.prefix_bits; bit += 8) {
    const size_t left = std::min<size_t>(8, b.prefix_bits - bit);
    const auto mask = static_cast<uint8_t>(0xff << (8 - left));
    if ((a.address[bit / 8] & mask) != (b.address[bit / 8] & mask)) return false;
  }
  return true;
}

bool host_within(const HostPattern& a, const HostPattern& b) {
  if (a.is_address != b.is_address) return false;
  if (a.is_address) return address_within(a, b);
  if (a.text == b.text) return true;
  // "*.x.a.test" and "x.a.test" lie within "*.a.test".
  return b.could_match_name(a.subdomains ? std::string_view(a.text).substr(2) : a.text);
}

// One verb of a scope, against all scopes of the token before that carry it.
Status verb_within(const Token& wider, const Token& narrower, const Scope& scope, Verb verb) {
  std::vector<PathPattern> paths;
  std::vector<EndpointPattern> endpoints;
  bool carried = false, anything = false;
  for (const Scope& one : wider.scopes) {
    if (!carries(one, verb)) continue;
    carried = true;
    anything = anything || (verb == Verb::kConnect ? one.endpoints.empty() : one.paths.empty());
    paths.insert(paths.end(), one.paths.begin(), one.paths.end());
    endpoints.insert(endpoints.end(), one.endpoints.begin(), one.endpoints.end());
  }
  const std::string what = verb_text(verb);
  if (!carried) return widens(narrower, what);
  if (anything) return ok();
  if (verb == Verb::kConnect ? scope.endpoints.empty() : scope.paths.empty())
    return widens(narrower, what + " of anything");
  if (verb != Verb::kConnect) {
    for (const PathPattern& path : scope.paths) {
      CG_TRY(const auto outside, path_outside(path, paths));
      if (outside) return widens(narrower, what + " of " + outside->path);
    }
    return ok();
  }
  for (const EndpointPattern& one : scope.endpoints) {
    const bool within = std::any_of(endpoints.begin(), endpoints.end(),
                                    [&](const auto& wide) { return endpoint_within(one, wide); });
    if (!within) return widens(narrower, what + " to " + one.text());
  }
  return ok();
}

bool more(uint64_t claimed, uint64_t had) { return had != 0 && claimed > had; }

}  // namespace

bool endpoint_within(const EndpointPattern& a, const EndpointPattern& b) {
  if (a.transport != b.transport) return false;
  if (a.path || b.path) {
    if (!a.path || !b.path) return false;
    const auto outside = path_outside(*a.path, {*b.path});
    return outside && !*outside;
  }
  return a.port_first >= b.port_first && a.port_last <= b.port_last && host_within(a.host, b.host);
}

// What a token leaves out (0) is not claimed: the one before still counts and limits every call.
Status narrows(const Token& wider, const Token& narrower) {
  if (narrower.epoch != wider.epoch) return widens(narrower, "another epoch");
  if (narrower.not_before_ns < wider.not_before_ns) return widens(narrower, "an earlier start");
  if (narrower.expires_ns > wider.expires_ns) return widens(narrower, "a later end");
  if (wider.policy != Digest{} && narrower.policy != wider.policy)
    return widens(narrower, "another policy");
  if (more(narrower.budget, wider.budget)) return widens(narrower, "a larger budget");
  if (more(static_cast<uint64_t>(narrower.ttl_ns), static_cast<uint64_t>(wider.ttl_ns)))
    return widens(narrower, "a longer ttl");
  for (const Scope& scope : narrower.scopes) {
    for (const Verb verb : scope.verbs) CG_CHECK(verb_within(wider, narrower, scope, verb));
  }
  return ok();
}

}  // namespace certgate::kernel
