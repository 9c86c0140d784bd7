#include "kernel/token_check.h"

#include <algorithm>

#include "kernel/mutant.h"

namespace certgate::kernel {
namespace {

bool covers(const Scope& scope, const Asked& asked) {
  if (std::find(scope.verbs.begin(), scope.verbs.end(), asked.verb) == scope.verbs.end())
    return false;
  if (asked.connect != nullptr) {
    return scope.endpoints.empty() ||
           std::any_of(scope.endpoints.begin(), scope.endpoints.end(),
                       [&](const EndpointPattern& e) { return e.allows(*asked.connect); });
  }
  return scope.paths.empty() ||
         std::any_of(scope.paths.begin(), scope.paths.end(),
                     [&](const PathPattern& p) { return p.matches(asked.path, asked.inside); });
}

Meter meter(const TokenStates& tokens, size_t token, size_t index) {
  if (token >= tokens.of.size() || index >= tokens.of[token].meters.size()) return {};
  return tokens.of[token].meters[index];
}

std::optional<TokenFault> fault(Reason reason, const Token& token, const std::string& why) {
  return TokenFault{reason, "token " + token.id.substr(0, 16) + " " + why};
}

// One limit of one token: whether a call is left, and that it will be used.
class Take {
 public:
  Take(const TokenStates& tokens, const Instant& now, size_t token)
      : tokens_(tokens), now_(now), token_(token) {}

  std::optional<Reason> from(size_t index, uint64_t budget, const Rate& rate) {
    if (budget == 0 && rate.calls == 0) return {};
    const Meter have = meter(tokens_, token_, index);
    if (budget != 0 && have.used >= budget) return Reason::kBudgetExhausted;
    int64_t full = have.full_ns;
    if (rate.calls != 0) {
      const auto after = rate_after(rate, full, now_.boot_ns);
      if (!after) return Reason::kRateLimited;
      full = *after;
    }
    taken_.push_back({static_cast<uint32_t>(token_), static_cast<uint32_t>(index), budget,
                      rate.calls, rate.per_ns, have.used + 1, full});
    return {};
  }
  void add_to(std::vector<MeterUse>& uses) const {
    for (const MeterUse& use : taken_) {
      const bool there = std::any_of(uses.begin(), uses.end(), [&](const MeterUse& other) {
        return other.token == use.token && other.meter == use.meter;
      });
      if (!there) uses.push_back(use);
    }
  }

 private:
  const TokenStates& tokens_;
  const Instant& now_;
  const size_t token_;
  std::vector<MeterUse> taken_;
};

std::optional<TokenFault> check_one(const Token& token, size_t index, const TokenStates& tokens,
                                    const Instant& now, const Asked& asked,
                                    std::vector<MeterUse>& uses) {
  bool carried = false;
  std::optional<Reason> used_up;
  for (size_t i = 0; i < token.scopes.size(); ++i) {
    const Scope& scope = token.scopes[i];
    carried = carried ||
              std::find(scope.verbs.begin(), scope.verbs.end(), asked.verb) != scope.verbs.end();
    if (!covers(scope, asked)) continue;
    Take take(tokens, now, index);
    auto short_of = take.from(1 + i, scope.budget, scope.rate);
    if (!short_of) short_of = take.from(0, token.budget, token.rate);
    if (!short_of) {
      take.add_to(uses);
      return {};
    }
    if (!used_up) used_up = short_of;
  }
  if (used_up == Reason::kRateLimited)
    return fault(*used_up, token, "allows no more calls in this period; wait");
  if (used_up) return fault(*used_up, token, "has no calls left for this");
  if (!carried) {
    return fault(Reason::kTokenMissing, token,
                 std::string("does not carry ") + verb_text(asked.verb));
  }
  return fault(Reason::kConstraint, token,
               std::string("does not reach this object for ") + verb_text(asked.verb));
}

}  // namespace

std::optional<int64_t> rate_after(const Rate& rate, int64_t full_ns, int64_t now_ns) {
  const int64_t each = std::max<int64_t>(1, rate.per_ns / static_cast<int64_t>(rate.calls));
  const int64_t after = std::max(full_ns, now_ns) + each;
  if (after - now_ns > rate.per_ns) return {};
  return after;
}

std::optional<TokenFault> check_live(const TokenChain& chain, std::string_view holder,
                                     const TokenStates& tokens, const Instant& now) {
  for (size_t i = 0; i < chain.size(); ++i) {
    const Token& token = chain[i];
    if (mutant(Mutant::kTokenEnd)) continue;
    if (token.epoch != tokens.epoch) {
      return fault(Reason::kTokenStaleEpoch, token,
                   "is of an epoch that is over (certgate token rotate); make a new one");
    }
    if (i < tokens.of.size() && tokens.of[i].revoked)
      return fault(Reason::kTokenRevoked, token, "was revoked");
    if (now.wall_ns >= token.expires_ns || now.wall_ns < token.not_before_ns)
      return fault(Reason::kTokenExpired, token, "is outside its time");
    if (token.ttl_ns != 0 && now.run_ns >= token.ttl_ns)
      return fault(Reason::kTokenExpired, token, "was for a shorter run");
  }
  if (chain.empty()) return TokenFault{Reason::kTokenMissing, "there is no token"};
  if (chain.back().holder != holder)
    return fault(Reason::kTokenWrongHolder, chain.back(), "is another holder's");
  return {};
}

std::optional<TokenFault> check_scope(const TokenChain& chain, const TokenStates& tokens,
                                      const Instant& now, const Asked& asked,
                                      std::vector<MeterUse>& uses) {
  for (size_t i = chain.size(); i-- > 0;) {
    if (auto missing = check_one(chain[i], i, tokens, now, asked, uses)) return missing;
  }
  return {};
}

}  // namespace certgate::kernel
