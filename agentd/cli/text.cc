#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "agentd/cli/verbs.h"

namespace certgate::agentd::cli {
namespace {

std::string environment(const char* name) {
  const char* value = ::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

std::string default_state_dir() {
  const std::string xdg = environment("XDG_STATE_HOME");
  if (xdg.starts_with('/')) return xdg + "/certgate";  // a relative one is to be ignored, says XDG
  if (::geteuid() == 0) return "/var/lib/certgate";
  std::string home = environment("HOME");
  if (!home.starts_with('/')) {
    const passwd* user = ::getpwuid(::geteuid());
    home = user != nullptr && user->pw_dir != nullptr ? user->pw_dir : "";
  }
  return home + "/.local/state/certgate";
}

}  // namespace certgate::agentd::cli
