// Importers: other tools' settings in, a policy file for a person to read out.
//
//   CG_TRY(Imported got, import_policy("claude-code", text, ".claude/settings.json"));
//   for (const std::string& point : got.lossy) warn(point);   // "permissions.ask[0]: …"
//   write(got.text);                                          // compiles; extends base/system
//
// Read are: settings of sandbox-runtime (JSON), permission settings of Claude Code (JSON), sandbox
// modes and permission profiles of Codex (TOML). Those tools trust what asks and fence what it
// reaches; here a right is also for origins. So what is imported is granted to agents that only
// people, their policy, model and tools have influenced, and never to one that has read the web.
//
// Whatever has no counterpart, or another meaning here, is a lossy point with its path in the file:
// printed, and a comment of the policy. Never is more granted than was: what cannot be said exactly
// is left out of an allow, and a denial that cannot be said is named first.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernel/result.h"

namespace certgate::agentd {

struct Imported {
  std::string text;
  std::vector<std::string> lossy;
};

inline constexpr const char* kImporters = "sandbox-runtime, claude-code, codex";

// `place`: the file's name, for errors and for the policy's first line.
Result<Imported> import_policy(std::string_view from, const std::string& text,
                               const std::string& place);

}  // namespace certgate::agentd
