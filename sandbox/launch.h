// Launch: namespaces, mounts, pid 1, and the agent's first process, stopped before its first exec.
//
//   Spec spec{...};
//   CG_TRY(Sandbox box, launch(spec));     // everything is built, nothing of the agent has run
//   ... start threads that serve box.notify ...
//   CG_CHECK(release(box));                // the agent's first execve now arrives at box.notify
//   CG_TRY(int status, wait_agent(box));   // blocks until the agent's first process has ended
//
// Process tree:   caller ── init (pid 1 inside, reaps, owns the namespaces) ── agent
// The caller must be single-threaded, and must already be the uid the agent is to have (root drops
// to it first); launch() makes a user namespace that maps exactly that uid and gid to themselves.
// The thread that calls launch() must live as long as the sandbox: when it ends, init is killed.
//
// Init:  set up → ready (root fd) → serving → the agent's first process ended → kill all → exit
// While serving, init passes SIGINT, SIGQUIT, SIGTSTP (as SIGSTOP) and SIGCONT, which a terminal or
// a shell sends to the caller's whole process group, on to the group of the agent's first process:
// the agent is in a session of its own. It also answers socket requests (a socket made there
// belongs to the sandbox's network namespace) and reaps. When its control socket closes, everything
// inside dies.
#pragma once

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernel/result.h"
#include "sandbox/fd.h"
#include "sandbox/notify.h"

namespace certgate::sandbox {

// Where the resolver of the supervisor listens inside; written to the sandbox's /etc/resolv.conf.
inline constexpr const char* kResolverAddress = "127.0.53.53";
// Where the supervisor's tool gate listens inside, and what is beside it (Spec::gate).
inline constexpr const char* kGateVariable = "CERTGATE_SOCKET";
inline constexpr const char* kGateSocket = "/run/certgate.sock";
inline constexpr const char* kGateDirectory = "/run/certgate";
inline constexpr const char* kGateProgram = "/run/certgate/bin/certgate";
inline constexpr const char* kGateMessages = "/run/certgate/messages";

// A file or directory of the host, shown read-only in the home.
struct HomeFile {
  std::string source;  // absolute host path without links
  std::string target;  // absolute, below Spec::home
};

struct Spec {
  std::string workspace;    // absolute host path, same path inside, writable
  int workspace_tree = -1;  // lent: a detached mount with its attributes set, to use instead
  std::string home;         // absolute path inside: an empty tmpfs
  std::vector<std::string> read_only;  // further absolute host paths, same path inside, read-only
  std::vector<HomeFile> home_files;
  bool gate = false;                  // kGateDirectory, with the messages and the program
  std::string gate_program;           // absolute host path; shown where the agent's user can read it
  std::vector<std::string> messages;  // of the user: kGateMessages/0, /1, …
  std::vector<std::string> argv;  // argv[0] is looked up in PATH as execvp does
  std::vector<std::string> env;   // "NAME=value"
  std::string cwd;                // absolute, inside
  std::string hostname = "certgate";
  std::vector<std::pair<int, rlim_t>> limits;  // RLIMIT_* -> hard and soft limit
  std::vector<int> entrances;       // of the cgroups that the sandbox lives in (cgroup.h); lent
  uint64_t tmp_bytes = 1ull << 30;  // size limit of each tmpfs (/tmp, home, /dev/shm)
  unsigned terminal = 0;  // bit N: the agent's descriptor N is a private pty, not the caller's N
};

// Whether init can bind a unix socket by the agent's own name for it (see bind_inside).
enum class SocketNames : uint8_t { kNotBound, kBound };

struct Sandbox {
  pid_t init = -1;  // host pid of pid 1; child of the caller
  UniqueFd init_pidfd;
  UniqueFd notify;    // seccomp listener of the agent and all its descendants
  UniqueFd root;      // O_PATH directory: the agent's "/"
  UniqueFd control;   // SOCK_SEQPACKET to init; closing it kills everything inside
  UniqueFd gate;      // to the agent's first process, until release()
  UniqueFd terminal;  // master of the private pty; empty when the Spec asks for none
  UniqueFd status;    // readable, or at its end, when the agent's first process has ended
  SocketNames socket_names = SocketNames::kNotBound;
  Interrupts interrupts = Interrupts::kFatal;  // of calls served by `notify`
};

// On failure nothing is left behind. The error names the step, the errno and the cure.
Result<Sandbox> launch(const Spec& spec);

// The same, for `certgate doctor`: says also which step of steps.h failed, when one of them did.
struct Failure;
Result<Sandbox> launch(const Spec& spec, Failure& failure);

// Lets the agent's first process run. It execs argv; when that fails, it exits 127 (ENOENT) or 126.
Status release(const Sandbox& sandbox);

// Asks init for a socket in the sandbox's network namespace (close-on-exec). Thread-safe only if
// the caller serialises calls: one request is outstanding at a time.
Result<UniqueFd> inside_socket(const Sandbox& sandbox, int domain, int type);

// Has init bind the agent's unix socket to `name` as the agent would: a relative name in
// `directory` (O_PATH; -1 for an absolute one), the mode by `mask`. Whatever the name leads to when
// init follows it, the kernel lets init make sockets only in the sandbox's own places (EACCES; so
// also in one that the workspace is mounted in). The value is bind(2)'s errno, or 0. Only when
// socket_names is kBound; one request at a time, as above.
Result<int> bind_inside(const Sandbox& sandbox, int socket, int directory, const sockaddr_un& name,
                        socklen_t size, mode_t mask);

// Blocks until the agent's first process has ended and everything inside is dead, and reaps init;
// returns the agent's wait status as waitpid(2) gives it. Init sends it over its own pipe, so it
// survives the death of the namespace. A tracer of tasks inside must go on reaping meanwhile.
Result<int> wait_agent(Sandbox& sandbox);

}  // namespace certgate::sandbox
