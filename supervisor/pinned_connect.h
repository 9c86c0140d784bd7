// Pinned connect: one connect or bind call, decoded. The agent's own socket object and one copy of
// the address; nothing here can be changed by the agent any more.
//
//   PinnedConnect pin;
//   if (int error = decoder.socket(call, pin)) return refuse(error);
//   if (int error = decoder.address(call, pin)) return refuse(error);
//   if (!listener.valid(call.id)) return;      // only now is any of it about this caller
//
// Addresses are normalised: IPv4-mapped and IPv4 are one, a scope id is dropped, an address of ours
// is the name it stands for, a unix path is the socket file it leads to.
#pragma once

#include <sys/socket.h>

#include "kernel/call.h"
#include "sandbox/fd.h"
#include "supervisor/address.h"
#include "supervisor/name_table.h"
#include "supervisor/trap.h"

namespace certgate::supervisor {

struct PinnedConnect {
  sandbox::UniqueFd socket;  // the agent's own socket object
  int domain = 0, type = 0;
  bool non_blocking = false;
  sockaddr_storage raw{};  // the one copy of the address
  socklen_t raw_size = 0;
  kernel::ConnectEffect effect_;  // normalised
  sandbox::UniqueFd node;         // unix path: the socket file, O_PATH
  const kernel::ConnectEffect& effect() const { return effect_; }
};

class ConnectDecoder {
 public:
  ConnectDecoder(const Trap& trap, const NameTable& names) : trap_(trap), names_(names) {}
  // Both return 0 or the errno that the kernel would answer.
  int socket(const sandbox::TrappedCall& call, PinnedConnect& pin) const;
  int address(const sandbox::TrappedCall& call, PinnedConnect& pin) const;

 private:
  int unix_address(const sandbox::TrappedCall& call, PinnedConnect& pin) const;
  bool forwarded(const kernel::ConnectEffect& effect) const;

  const Trap& trap_;
  const NameTable& names_;
};

// SOL_SOCKET option of integer type, -1 when the descriptor is no socket.
int socket_option(int fd, int name);

}  // namespace certgate::supervisor
