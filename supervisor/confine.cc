#include "supervisor/confine.h"

#include <dlfcn.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

namespace certgate::supervisor {
namespace {

using sandbox::OwnAnswer;
using sandbox::OwnTest;

constexpr uint32_t kWord = 0xffffffff, kTypeMask = 0xf;
constexpr size_t kMaxServices = 16;

// Beside ordinary_calls().
constexpr int kAllowed[] = {
    // relays, resolver, the agent's own sockets
    SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_accept, SYS_accept4,
    SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_setsockopt, SYS_sendto, SYS_recvfrom,
    SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg, SYS_shutdown,
    // the agent's memory (to read) and descriptors
    SYS_process_vm_readv, SYS_pidfd_getfd, SYS_kcmp,
    // effects that are performed for it
    SYS_mknod, SYS_mknodat, SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_getxattr, SYS_lgetxattr,
    SYS_fgetxattr, SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_removexattr, SYS_lremovexattr,
    SYS_fremovexattr, SYS_inotify_init, SYS_inotify_init1, SYS_inotify_add_watch,
    SYS_inotify_rm_watch, SYS_fanotify_mark, SYS_name_to_handle_at};

constexpr OwnTest kTests[] = {
    {SYS_socket, 1, kTypeMask, SOCK_RAW, OwnAnswer::kRefuse},
    {SYS_socket, 1, kTypeMask, SOCK_PACKET, OwnAnswer::kRefuse},
    {SYS_socket, 0, kWord, AF_UNIX, OwnAnswer::kAllow},
    {SYS_socket, 0, kWord, AF_INET, OwnAnswer::kAllow},
    {SYS_socket, 0, kWord, AF_INET6, OwnAnswer::kAllow},
    {SYS_socket, 0, 0, 0, OwnAnswer::kRefuse},  // netlink: libc looks up names without it
    {SYS_ptrace, 0, kWord, PTRACE_SEIZE, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_INTERRUPT, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_CONT, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_LISTEN, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_DETACH, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_GETREGS, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_GETREGSET, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_GETSIGINFO, OwnAnswer::kAllow},
    {SYS_ptrace, 0, kWord, PTRACE_GETEVENTMSG, OwnAnswer::kAllow},
    {SYS_ptrace, 0, 0, 0, OwnAnswer::kKill},  // writing registers or memory, attaching otherwise
};

const std::vector<OwnTest>& all_tests() {
  static const std::vector<OwnTest> tests = [] {
    const auto ordinary = sandbox::ordinary_tests();
    std::vector<OwnTest> all(ordinary.begin(), ordinary.end());
    all.insert(all.end(), std::begin(kTests), std::end(kTests));
    return all;
  }();
  return tests;
}

}  // namespace

sandbox::OwnCalls supervisor_calls() { return {all_tests(), kAllowed}; }

bool names_hosts(const kernel::Policy& policy) {
  return std::any_of(policy.rules.begin(), policy.rules.end(), [](const kernel::Rule& rule) {
    return rule.grants() && !rule.endpoints.empty();
  });
}

void preload_name_services(const kernel::Policy& policy) {
  if (!names_hosts(policy)) return;
  std::ifstream file("/etc/nsswitch.conf");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string word;
    if (!(words >> word) || word != "hosts:") continue;
    for (size_t n = 0; n < kMaxServices && words >> word; ++n) {
      if (!word.starts_with('[') && word.find('/') == std::string::npos) {
        // Kept for the life of the process; a service that is not installed is none for libc
        // either.
        ::dlopen(("libnss_" + word + ".so.2").c_str(), RTLD_NOW);
      }
    }
  }
}

Status confine_supervisor() {
  CG_TRY(const std::vector<sock_filter> program, sandbox::build_own_filter(supervisor_calls()));
  return sandbox::install_on_all_threads(program);
}

}  // namespace certgate::supervisor
