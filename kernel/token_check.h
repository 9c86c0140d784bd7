// Token check: may these tokens, as they stand now, be used for this part of a call?
//
//   if (auto fault = check_live(chain, holder, tokens, now)) refuse(fault->reason, fault->why);
//   if (auto fault = check_scope(chain, tokens, now, {Verb::kRead, path, inside}, uses)) …
//   … the certificate lists `uses`; whoever performs takes them, and decides again when he cannot
//
// Pure: what is counted, revoked or the live epoch is given. A meter counts the calls of one token
// (meter 0) or of one of its scopes (1 + index). A rate is a meter too, by its `full_ns`: the time
// at which everything used so far would have been used evenly (GCRA); a call is within the rate
// while that lies at most one period ahead, so after a pause as many at once as in a period.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/certificate.h"
#include "kernel/token.h"

namespace certgate::kernel {

struct Instant {
  int64_t wall_ns = 0;  // CLOCK_REALTIME
  int64_t run_ns = 0;   // CLOCK_BOOTTIME since the run started
  int64_t boot_ns = 0;  // CLOCK_BOOTTIME
};

struct Meter {
  uint64_t used = 0;
  int64_t full_ns = 0;  // CLOCK_BOOTTIME
};
struct TokenState {
  bool revoked = false;
  std::vector<Meter> meters;  // those beyond its end are unused
};
struct TokenStates {
  uint64_t epoch = 1;          // the authority's, now
  std::vector<TokenState> of;  // parallel to the chain; those beyond its end are untouched
};

// What one part of a call asks for.
struct Asked {
  Verb verb = Verb::kRead;
  std::string_view path;
  bool inside = false;
  const ConnectEffect* connect = nullptr;
};

struct TokenFault {
  Reason reason = Reason::kInternal;
  std::string why;
};

std::optional<TokenFault> check_live(const TokenChain& chain, std::string_view holder,
                                     const TokenStates& tokens, const Instant& now);
// Adds the limited meters that the call uses, each once, the last token's first.
std::optional<TokenFault> check_scope(const TokenChain& chain, const TokenStates& tokens,
                                      const Instant& now, const Asked& asked,
                                      std::vector<MeterUse>& uses);

// `full_ns` after one more call now, or nothing when the rate does not allow it.
std::optional<int64_t> rate_after(const Rate& rate, int64_t full_ns, int64_t now_ns);

}  // namespace certgate::kernel
