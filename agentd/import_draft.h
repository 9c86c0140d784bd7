// The policy that an importer writes: rules by words, lossy points by their path in the settings.
//
//   ImportDraft draft("codex", "config.toml");
//   draft.write(Say::kAllow, "src", "permissions.x.filesystem", "codex: writable");
//   draft.lossy("approval_policy", "nobody is asked here");
//   return draft.take();
//
// Paths are as those tools write them: absolute, "~/…", or of the project. One without a wildcard
// stands for itself and, as a directory, for all below.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agentd/policy_import.h"

namespace certgate::agentd {

enum class Say : uint8_t { kAllow, kForbid };
// Where a path without "/" at its start is looked for: beside the project's root, or, a name alone,
// anywhere below it (as in .gitignore).
enum class Relative : uint8_t { kToRoot, kAnywhere };

class ImportDraft {
 public:
  ImportDraft(std::string from, std::string place);

  void lossy(const std::string& path, const std::string& what);
  void read(Say say, const std::string& text, const std::string& path, Relative relative);
  void write(Say say, const std::string& text, const std::string& path, Relative relative);
  // A domain, "*.domain" or address; an allow is for the ports of HTTP.
  void host(Say say, const std::string& text, const std::string& path);
  void unix_socket(const std::string& text, const std::string& path);
  // Words of a command; the last one may be "**". Empty: any program.
  void command(Say say, const std::vector<std::string>& words, const std::string& path);
  void any_program(const std::string& path);
  void set_env(const std::string& name, const std::string& value, const std::string& path);
  void pass_env(const std::string& name, const std::string& path);

  // Compiled once, so that what is handed out is valid.
  Result<Imported> take();

 private:
  struct Rule {
    Say say;
    std::string kind, why;  // kind: the id's first part and, of paths, the verb
    std::vector<std::string> verbs, paths, to;
    std::vector<std::vector<std::string>> argv;
    std::string source;
  };
  std::optional<std::string> pattern(const std::string& text, const std::string& path, Say say,
                                     Relative relative);
  void open(const char* verb, Say say, const std::string& text, const std::string& path,
            Relative relative);
  Rule& rule(Say say, const std::string& kind, const std::string& path);
  void unsaid(Say say, const std::string& path, const std::string& what);
  std::string text() const;

  const std::string from_, place_;
  std::vector<Rule> rules_;
  std::vector<std::string> lossy_, denials_;  // denials that could not be said come first
  std::vector<std::pair<std::string, std::string>> env_set_;
  std::vector<std::string> env_pass_;
};

// The importers, each in its file.
Status import_sandbox_runtime(const std::string& text, ImportDraft& draft);
Status import_claude_code(const std::string& text, ImportDraft& draft);
Status import_codex(const std::string& text, ImportDraft& draft);

}  // namespace certgate::agentd
