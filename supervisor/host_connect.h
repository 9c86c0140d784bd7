// Host connect: the outside half of a connection that was allowed. The host's name service and the
// host's network, never the agent's.
//
//   CG_TRY(auto targets, host_targets(rule, effect, names));
//   int error = connect_host(targets, SOCK_STREAM, wait_ms, [&] { return stop_errno; }, fd);
#pragma once

#include <functional>
#include <vector>

#include "kernel/policy.h"
#include "sandbox/fd.h"
#include "supervisor/address.h"
#include "supervisor/name_table.h"

namespace certgate::supervisor {

inline constexpr int kConnectStepMs = 50;  // how soon a dead or interrupted caller is noticed

// Where a call that `rule` allowed leads: the rule's `via`, the asked address, or what the host
// says the name is (blocking). A name that leads only into internal networks leads nowhere
// (EHOSTUNREACH): that is rebinding, unless a rule says `via`.
Result<std::vector<Endpoint>> host_targets(const kernel::Rule& rule,
                                           const kernel::ConnectEffect& effect,
                                           const NameTable& names);

// Tries each target in turn. 0, an errno, or EINPROGRESS when `wait_ms` ran out (the socket goes
// on). `stop` is asked every kConnectStepMs; what it returns, unless 0, ends the wait (EINPROGRESS:
// the socket goes on).
int connect_host(const std::vector<Endpoint>& targets, int type, int wait_ms,
                 const std::function<int()>& stop, sandbox::UniqueFd& out);

}  // namespace certgate::supervisor
