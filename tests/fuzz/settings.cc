// Other tools' settings: whatever the bytes, an error, or a policy that compiles, that people can
// read, and that accepts nobody whom the web has influenced.
#include <filesystem>

#include "agentd/policy_file.h"
#include "agentd/policy_import.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

namespace {

constexpr const char* kFrom[] = {"sandbox-runtime", "claude-code", "codex"};

void laws_of(const agentd::Imported& got) {
  const agentd::PolicyContext context{"/ws/project", "/home/agent"};
  const auto compiled = agentd::compile_policy("imported.toml", got.text, context);
  CG_LAW(compiled);
  const kernel::Label tainted = *kernel::Label::parse("operator,web:page.test");
  for (const kernel::Rule& rule : compiled->policy.rules) {
    // base/system's own accept everybody; those that were imported do not.
    if (rule.source.starts_with("imported.toml") ||
        rule.source.find("/imported.toml:") != std::string::npos)
      CG_LAW(!rule.accept.accepts(tainted));
  }
  for (const unsigned char c : got.text) CG_LAW(c == '\n' || (c >= 0x20 && c != 0x7f));
  for (const std::string& point : got.lossy)
    CG_LAW(!point.empty() && point.find('\n') == std::string::npos);
}

}  // namespace

FUZZ_TARGET(settings) {
  fuzz::Bytes in(data, size);
  const char* from = kFrom[in.number(1) % 3];
  const std::string text = in.rest();
  const auto got = agentd::import_policy(from, text, "settings");
  if (!got) {
    CG_LAW(!got.error().what.empty());
    // What an importer makes is always valid: the settings are refused, never the policy.
    CG_LAW(got.error().what.find("does not compile") == std::string::npos);
    return 0;
  }
  laws_of(*got);
  const auto again = agentd::import_policy(from, text, "settings");
  CG_LAW(again && again->text == got->text && again->lossy == got->lossy);
  return 0;
}
