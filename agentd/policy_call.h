// Calls in words: what `policy explain` is asked about and the tables of `policy test` are made of,
// decided by the kernel itself. No sandbox, no log, no effect.
//
//   AskedCall asked{.verb = Verb::kExec, .object = "/usr/bin/git", .argv = {"git", "push"}};
//   CG_TRY(Answer answer, ask(compiled, context, asked));
//   print(explanation(compiled.policy, answer));
//
// What a dry run cannot know, it assumes: a file's label is its zone's unless told; what lies below
// /tmp, /var/tmp, /run, /dev, /proc and the home, but not in the workspace, is the sandbox's own.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agentd/policy_file.h"
#include "kernel/decide.h"

namespace certgate::agentd {

struct AskedCall {
  kernel::Verb verb = kernel::Verb::kRead;
  std::string object;                     // absolute path; connect: as an endpoint in a policy
  std::vector<std::string> argv;          // exec
  std::vector<std::string> interpreters;  // exec: what runs it, then its loader, in that order
  kernel::Label agent;                    // the sandbox's label
  std::optional<kernel::Label> file;      // of the file that is opened or executed
  uint64_t used = 0;                      // calls that each rule has already allowed
  // For tools:
  std::string cwd;                        // exec; empty: the workspace
  std::vector<std::string> env;           // exec
  std::optional<kernel::Digest> content;  // exec: of the file; none: as the policy pins it
  std::vector<std::string> messages;      // of the user
  std::vector<kernel::ArgumentSource> sources;
};

struct Answer {
  kernel::Call call;
  kernel::Label agent;
  kernel::Verdict verdict;
  std::vector<kernel::Step> steps;
};

// Errors are about the question: a path that is not absolute, an endpoint that is not one place.
Result<Answer> ask(const CompiledPolicy& compiled, const PolicyContext& context,
                   const AskedCall& asked);

// The file a command names and all that would run it, found on this machine as in a sandbox:
// along `path`, symlinks followed, #! lines and the loader read.
Result<AskedCall> asked_exec(const std::vector<std::string>& argv, const std::string& directory);

// What a command of this machine's would be run by: interpreters of #! lines, and the loader.
Result<std::vector<std::string>> interpreters_of(const std::string& program,
                                                 const std::string& directory);
// "host:port", "udp:host:port", "unix:/path": one place.
Result<kernel::ConnectEffect> connect_effect(const std::string& text);
// Whether what lies there is the sandbox's own.
bool is_private(const std::string& path, const PolicyContext& context);
// Many calls under one policy, which must outlive it, and a token for everything.
class CallDecider {
 public:
  explicit CallDecider(const kernel::Policy& policy);
  // `used`: calls so far, by rule.
  // `messages`: of the user.
  Answer decide(kernel::Call call, const kernel::Label& agent, std::vector<uint64_t> used,
                std::vector<std::string> messages = {}) const;

 private:
  kernel::Decider decider_;
};
// One call.
Answer decide_call(const kernel::Policy& policy, kernel::Call call, const kernel::Label& agent,
                   std::vector<uint64_t> used);

// "allowed by rule inspect" or "refused: UNTRUSTED_ORIGIN web:page.test (rule …)". One line.
std::string verdict_line(const kernel::Policy& policy, const Answer& answer);
// Some lines: the call, the verdict and why, the label afterwards, and every rule that was tried.
std::string explanation(const kernel::Policy& policy, const Answer& answer);

}  // namespace certgate::agentd
