// certgate policy check FILE|NAME [--json]

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "agentd/cli/verbs.h"
#include "agentd/policy_file.h"
#include "supervisor/report.h"

namespace certgate::agentd::cli {
namespace {

constexpr const char* kUsage =
    "usage: certgate policy check FILE|NAME [--json]\n\n"
    "Compiles the policy as `certgate run` would. Exit status: 0 valid, 1 not, 2 wrong usage.\n";

std::string hex(const kernel::Digest& digest) {
  std::string out;
  for (const uint8_t b : digest) out += fmt::format("{:02x}", b);
  return out;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : supervisor::escape(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

int check(const std::string& name, bool json) {
  // Patterns need some workspace to stand for @workspace; the digest printed is for this one.
  const PolicyContext context{"/workspace", "/home/agent"};
  auto file = find_policy(name);
  auto policy = file ? load_policy(*file, context) : Result<CompiledPolicy>(file.error());
  if (!policy) {
    if (json) {
      fmt::print("{{\"ok\":false,\"error\":{}}}\n", quoted(policy.error().what));
    } else {
      fmt::print(stderr, "certgate: {}\n", supervisor::escape(policy.error().what));
    }
    return 1;
  }
  const std::string digest = hex(policy->policy.digest());
  if (json) {
    fmt::print("{{\"ok\":true,\"name\":{},\"rules\":{},\"zones\":{},\"digest\":\"{}\"}}\n",
               quoted(policy->policy.name), policy->policy.rules.size(),
               policy->policy.zones.size(), digest);
  } else {
    fmt::print("{}: ok, {} rules, {} zones, sha256 {} (for workspace /workspace)\n",
               supervisor::escape(*file), policy->policy.rules.size(), policy->policy.zones.size(),
               digest);
  }
  return 0;
}

}  // namespace

int policy_main(const Args& args) {
  bool json = false, help = args.empty();
  std::vector<std::string> words;
  for (const std::string& arg : args) {
    if (arg == "--json") {
      json = true;
    } else if (arg == "--help" || arg == "-h") {
      help = true;
    } else {
      words.push_back(arg);
    }
  }
  if (help && words.empty()) {
    std::fputs(kUsage, args.empty() ? stderr : stdout);
    return args.empty() ? 2 : 0;
  }
  if (words.size() != 2 || words[0] != "check") {
    std::fputs(kUsage, stderr);
    return 2;
  }
  return check(words[1], json);
}

}  // namespace certgate::agentd::cli
