// Child plan: everything that the two children of launch() need, made before clone().
//
//   ChildPlan plan = ...;                  // in the caller, which may allocate
//   if (clone(...) == 0) run_init(plan);   // in the child, which only reads it
//
// Between clone() and exec the children use no allocator and no exceptions: failures are Failure.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/fd.h"
#include "sandbox/launch.h"
#include "sandbox/mounts.h"
#include "sandbox/steps.h"

namespace certgate::sandbox {

struct ChildPlan {
  MountPlan mounts;
  std::string uid_map, gid_map;
  std::string hostname, cwd;
  std::vector<std::pair<int, rlim_t>> limits;
  std::vector<int> entrances;
  std::vector<std::string> programs;  // candidates for execve, in the order of PATH
  std::vector<char*> argv, env;       // point into the Spec, which outlives the clone
  char* title = nullptr;              // where the kernel finds our command line
  size_t title_size = 0;
  mode_t umask = 022;
  unsigned terminal = 0;           // as in Spec
  UniqueFd control, gate, status;  // the children's ends
};

// The caller sends both programs of the filter, one message each, over `gate`. Messages of the
// children to the caller, over `control` (init) and `gate` (agent).
struct Report {
  enum class Kind : uint32_t { kFailed = 1, kReady = 2 };
  Kind kind = Kind::kFailed;
  Failure failure;
  SocketNames socket_names = SocketNames::kNotBound;  // of init, when it is ready
  Interrupts interrupts = Interrupts::kFatal;         // of the agent
};

// Requests of the caller to init, and the answer. kEnter precedes kBind, and carries the directory
// that a relative name is bound in; kBind carries the socket.
struct InitRequest {
  enum class Kind : uint32_t { kSocket = 1, kEnter = 2, kBind = 3 };
  Kind kind = Kind::kSocket;
  int32_t domain = 0;  // kSocket
  int32_t type = 0;
  uint32_t umask = 0;  // kBind
  uint32_t size = 0;   // of `name`
  sockaddr_un name = {};
};
struct InitReply {
  int32_t error = 0;  // errno; when it is 0, a descriptor comes along with the answer to kSocket
};

// Drops every capability of this process, bounding and ambient sets included, and makes sure.
Failure drop_capabilities();

// From here on this process can make unix sockets only in the sandbox's own places (the tmpfs of
// the plan that do not hold the workspace), by a Landlock domain of its own. kNotBound: the kernel
// has no Landlock.
Failure confine_socket_names(const MountPlan& plan, SocketNames& names);

// Makes the calling process the leader of a session of its own, so that neither the caller's
// terminal nor its process group can be reached. For each bit N of `streams`, descriptor N becomes
// the slave of a pty of the sandbox's own devpts, which is then also the controlling terminal;
// `master` is its other side.
Failure start_session(unsigned streams, UniqueFd& master);

// pid 1 of the sandbox: sets it up, starts the agent, serves until the agent or the caller ends.
[[noreturn]] void run_init(ChildPlan& plan);

// The agent's first process: confines itself, waits for release(), becomes the agent's program.
[[noreturn]] void run_agent(const ChildPlan& plan);

}  // namespace certgate::sandbox
