#include "agentd/cli/policy_words.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iterator>

#include "sandbox/fd.h"

namespace certgate::agentd::cli {

const char* const kPolicyUsage =
    "usage: certgate policy check FILE|NAME [--workspace DIR] [--admin-policy FILE] [--json]\n"
    "       certgate policy show [--effective] FILE|NAME [--workspace DIR] [--admin-policy FILE]\n"
    "       certgate policy explain [--policy FILE|NAME] [--workspace DIR] [--label ORIGINS]\n"
    "                               [--file ORIGINS] -- COMMAND [ARG…]\n"
    "                               … --read PATH | --write PATH | --connect HOST:PORT\n"
    "                               … --record ID [--state DIR]\n"
    "       certgate policy learn [--run RUN] [--state DIR] [--policy FILE|NAME] [--together N]\n"
    "                             [--accept-web] [-o FILE]\n"
    "       certgate policy learn --replay FILE|NAME [--state DIR] [RUN]\n"
    "       certgate policy import --from sandbox-runtime|claude-code|codex SETTINGS [-o FILE]\n"
    "       certgate policy pack FILE|NAME -o BUNDLE [--key KEY | --state DIR]\n"
    "       certgate policy verify BUNDLE --key PUB [--sources]\n"
    "       certgate policy reload RUN FILE|NAME [--state DIR] [--admin-policy FILE]\n"
    "       certgate policy test TABLE…\n"
    "       certgate policy analyze FILE|NAME\n"
    "       certgate policy diff BEFORE AFTER\n\n"
    "check    compiles the policy as `certgate run` would; with --workspace the layers too, and\n"
    "         notes where a lower one grants nothing more\n"
    "show     the policy's file; --effective: all that it extends taken in, sets and directories\n"
    "         written out, each rule under the place it comes from; it compiles to the same "
    "digest.\n"
    "         Layers that narrow it follow as comments\n"
    "explain  what the policy says of a call, and every rule that was tried; nothing is run.\n"
    "         --record: of a call of the log, under the label that it was made under\n"
    "learn    proposes the narrowest policy for what a run did (certgate run --observe); "
    "--replay:\n"
    "         decides every call of a run again, under another policy\n"
    "import   a policy from another tool's settings; every point that is lost is said on stderr\n"
    "         and stands in it as a comment\n"
    "pack     a policy and all that it extends as one signed file, for `run --policy ./BUNDLE`;\n"
    "         signed with KEY (certgate token key), else with the state directory's own\n"
    "verify   whether PUB (ed25519:HEX, or a file of it) has signed it; --sources: what it was\n"
    "         made of\n"
    "reload   another policy for an agent that runs, from its next call on; one that is none, or\n"
    "         refuses what the agent has open for writing, leaves the old one in force\n"
    "test     tables of calls and expected verdicts (policies/README.md)\n"
    "analyze  rules that never decide, that nobody can use, that favour outsiders, that run "
    "anything\n"
    "diff     what may now be done, or no longer, each with a call that shows it\n\n"
    "  --policy FILE|NAME   default: default\n"
    "  --workspace DIR      what @workspace stands for; show: /workspace, explain: the current "
    "directory\n"
    "  --label ORIGINS      the agent's label, like operator,web:page.test; default: "
    "operator,user\n"
    "  --file ORIGINS       the label of the file; default: its zone's\n"
    "  --admin-policy FILE  where the machine has no /etc/certgate/policy.toml\n"
    "  --run RUN            a run of the log; default: the last observed one\n"
    "  --state DIR          whose log (default: as for run)\n"
    "  --together N         learn: from N files in a directory on, the directory (default: 3)\n"
    "  --accept-web         learn: also from calls made under the influence of web pages\n"
    "  -o FILE              where it is written (default: stdout); an existing file stays as it "
    "is\n\n"
    "Exit status: 0 valid, allowed, as expected, nothing wrong or nothing different; 1 not;\n"
    "2 wrong usage.\n";

namespace {

constexpr const char* kFlags[] = {"--json", "--effective", "--accept-web", "--sources"};

}  // namespace

bool Words::flag(const std::string& name) const {
  return std::find(flags.begin(), flags.end(), name) != flags.end();
}

bool Words::has(const std::string& name) const {
  return std::any_of(options.begin(), options.end(),
                     [&](const auto& o) { return o.first == name; });
}

std::string Words::option(const std::string& name, const std::string& otherwise) const {
  for (const auto& [key, value] : options) {
    if (key == name) return value;
  }
  return otherwise;
}

Result<Words> parse_words(const Args& args, const std::vector<std::string>& known) {
  Words out;
  for (size_t i = 1; i < args.size(); ++i) {
    const size_t equals = args[i].find('=');
    const std::string name = args[i].substr(0, equals);
    if (args[i] == "--") {
      out.command.assign(args.begin() + static_cast<std::ptrdiff_t>(i) + 1, args.end());
      break;
    }
    if (!args[i].starts_with("--") && args[i] != "-o") {
      out.plain.push_back(args[i]);
    } else if (std::find(known.begin(), known.end(), name) == known.end()) {
      return fail("no such option here: " + args[i]);
    } else if (std::find(std::begin(kFlags), std::end(kFlags), args[i]) != std::end(kFlags)) {
      out.flags.push_back(name);
    } else if (equals != std::string::npos) {
      out.options.emplace_back(name, args[i].substr(equals + 1));
    } else if (i + 1 < args.size()) {
      out.options.emplace_back(name, args[++i]);
    } else {
      return fail(name + " needs a value");
    }
  }
  return out;
}

int usage_error(const std::string& what) {
  fmt::print(stderr, "certgate: {}\n{}", escape(what), kPolicyUsage);
  return kUsageError;
}

int policy_trouble(const Error& error) {
  fmt::print(stderr, "certgate: {}\n", escape(error.what));
  return kNo;
}

LayerChoice layers(const Words& words, const std::string& vendor) {
  LayerChoice out;
  out.vendor = vendor;
  if (words.has("--admin-policy")) out.admin = words.option("--admin-policy");
  return out;
}

int write_out(const Words& words, const std::string& text) {
  const std::string path = words.option("-o");
  if (path.empty())
    return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() ? 0 : kNo;
  const sandbox::UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd) return policy_trouble(fail_errno("write " + path, errno));
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(fd.get(), text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return policy_trouble(fail_errno("write " + path, errno));
    at += static_cast<size_t>(n);
  }
  return 0;
}

}  // namespace certgate::agentd::cli
