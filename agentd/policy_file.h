// Policy files: TOML in, the kernel's canonical form out. The grammar is in policies/README.md.
//
//   CG_TRY(CompiledPolicy p, load_policy("policies/examples/quickstart.toml", context));
//
// Errors name file, line, column and the cure; unknown keys are errors.
#pragma once

#include <string>
#include <vector>

#include "agentd/limits.h"
#include "kernel/policy.h"
#include "kernel/result.h"
#include "supervisor/redaction.h"

namespace certgate::agentd {

// What "@workspace" and "~" stand for in patterns.
struct PolicyContext {
  std::string workspace;  // absolute
  std::string home;       // absolute, inside the sandbox
};

enum class HomePolicy : uint8_t { kFresh, kKept };

// A file of the operator, shown read-only in the home: `source` absolute, or "~/…" of the operator.
struct PolicyHomeFile {
  std::string source;
  std::string target;  // absolute, inside
  std::string asked;   // "~/…", as the policy has it
  std::string place;   // "file:line:column" that asked for it
};

struct CompiledPolicy {
  kernel::Policy policy;
  // What `run` needs beyond the kernel's form:
  std::vector<std::string> read_only;  // further host paths to show inside
  HomePolicy home = HomePolicy::kFresh;
  std::vector<PolicyHomeFile> home_files;
  std::vector<std::string> env_pass;                         // names of variables handed through
  std::vector<std::pair<std::string, std::string>> env_set;  // variables set by policy
  supervisor::Redaction redact;                              // of all files
  Limits limits;                                             // the smallest of all files
  std::vector<std::pair<std::string, std::string>> sources;  // file, text: of the first layer
  std::vector<std::string> layer_files;  // what was compiled, the first layer's file first
};

inline constexpr size_t kPieceBytes = 8192;

// Below the first: rules and limits only (policy_layers.h).
enum class Layer : uint8_t { kVendor, kAdmin, kProject };

Result<CompiledPolicy> load_policy(const std::string& path, const PolicyContext& context);
// The same of a text, as if it were read at `path` (what it extends is looked for from there). What
// comes of it is the same whatever the size of the pieces (rule_pieces.h) that a larger one is
// compiled in.
Result<CompiledPolicy> compile_policy(const std::string& path, const std::string& text,
                                      const PolicyContext& context,
                                      size_t piece_bytes = kPieceBytes);
// One layer below the first, added to the compiled ones: `text` is what was read at `path`.
Status add_layer(CompiledPolicy& to, Layer layer, const std::string& path, const std::string& text,
                 const PolicyContext& context);
// A whole file, at most 8 MiB; the error names the cure.
Result<std::string> read_policy_text(const std::string& path);
// `--policy FILE|NAME`: a path (contains '/' or ends in .toml) or a name looked up in the catalogue
// ("quickstart", "codex") beside the binary, in the source tree, and in the installed directory.
Result<std::string> find_policy(const std::string& file_or_name);

}  // namespace certgate::agentd
