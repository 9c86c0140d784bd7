// Network: the loopback of a new network namespace, on which any address can be reached.
//
//   if (Failure failure = set_up_network()) report(failure);    // inside, with CAP_NET_ADMIN
//
// Routes of type `local` cover all of IPv4 and IPv6, so a connect to any address inside stays in
// the namespace and meets the listener that the supervisor makes for it there. Nothing else exists:
// no other interface, no way out. A kernel without IPv6 just has no IPv6 inside. To listen on an
// IPv6 address other than ::1, set IPV6_FREEBIND on the socket first.
#pragma once

#include "sandbox/steps.h"

namespace certgate::sandbox {

Failure set_up_network();

}  // namespace certgate::sandbox
