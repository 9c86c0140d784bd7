#include <openssl/crypto.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "agentd/cli/completion.h"
#include "agentd/cli/verbs.h"

namespace {

using certgate::agentd::cli::Args;

int complete(const Args& args);

struct Verb {
  const char* name;
  int (*run)(const Args&);
  const char* help;
};

constexpr Verb kVerbs[] = {
    {"run", certgate::agentd::cli::run_main, "host a command as an agent"},
    {"audit", certgate::agentd::cli::audit_main, "list, explain and verify what agents did"},
    {"policy", certgate::agentd::cli::policy_main, "check a policy file"},
    {"token", certgate::agentd::cli::token_main, "make, narrow and end standing authority"},
    {"approvals", certgate::agentd::cli::approvals_main, "list the calls that wait for an answer"},
    {"approve", certgate::agentd::cli::approve_main, "let one of them happen, once"},
    {"deny", certgate::agentd::cli::deny_main, "refuse one of them"},
    {"request", certgate::agentd::cli::request_main, "from inside: ask for a call of a tool"},
    {"doctor", certgate::agentd::cli::doctor_main,
     "try everything that run needs, and say what is missing"},
    {"completion", complete, "completion for bash"},
};

int complete(const Args& args) {
  std::vector<std::string> commands;
  for (const Verb& verb : kVerbs) commands.push_back(verb.name);
  return certgate::agentd::cli::completion_main(args, commands);
}

void print_help(std::FILE* out) {
  std::fputs("usage: certgate VERB …\n\n", out);
  for (const Verb& verb : kVerbs) std::fprintf(out, "  %-10s %s\n", verb.name, verb.help);
  std::fputs("\n`certgate VERB --help` says more.\n", out);
}

}  // namespace

int main(int argc, char** argv) {
  // No provider, engine or option that openssl.cnf or OPENSSL_CONF names enters these processes.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
  if (argc < 2) {
    print_help(stderr);
    return 2;
  }
  if (std::strcmp(argv[1], "--help") == 0 || std::strcmp(argv[1], "-h") == 0) {
    print_help(stdout);
    return 0;
  }
  if (std::strcmp(argv[1], "--version") == 0) {
    std::puts("certgate " CERTGATE_VERSION);
    return 0;
  }
  for (const Verb& verb : kVerbs) {
    if (std::strcmp(argv[1], verb.name) == 0) return verb.run(Args(argv + 2, argv + argc));
  }
  std::fprintf(stderr, "certgate: no such verb; `certgate --help` lists them\n");
  return 2;
}
