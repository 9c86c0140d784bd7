#include "agentd/confine.h"

#include <sys/syscall.h>

#include <vector>

namespace certgate::agentd {
namespace {

// Beside ordinary_calls(): the channel and the control socket, which are open already.
constexpr int kAllowed[] = {SYS_accept,     SYS_accept4,    SYS_sendmsg,    SYS_recvmsg,    SYS_sendto,
                            SYS_recvfrom,   SYS_shutdown,   SYS_getsockopt,
                            SYS_setsockopt, SYS_socketpair, SYS_fgetxattr};

}  // namespace

sandbox::OwnCalls authority_calls() { return {sandbox::ordinary_tests(), kAllowed}; }

Status confine_authority() {
  CG_CHECK(sandbox::give_up_privileges(sandbox::Keep::kEndOfRun));
  CG_TRY(const std::vector<sock_filter> program, sandbox::build_own_filter(authority_calls()));
  return sandbox::install_on_all_threads(program);
}

}  // namespace certgate::agentd
