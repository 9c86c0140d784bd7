#include "agentd/redact_file.h"

namespace certgate::agentd {
namespace {

constexpr size_t kMaxPatterns = 64, kMaxPatternBytes = 256;

}  // namespace

void read_redaction(TomlFile& file, const toml::node* node, supervisor::Redaction& out) {
  if (node == nullptr) return;
  const toml::table* table = node->as_table();
  if (table == nullptr) return file.complain(node->source(), "'redact' must be a table: [redact]");
  TableReader reader(file, *table, "[redact]");
  reader.texts("patterns", out.patterns, Need::kOptional);
  reader.texts("env", out.env, Need::kOptional);
  reader.done();
  for (const auto* list : {&out.patterns, &out.env}) {
    if (list->size() > kMaxPatterns)
      return file.complain(node->source(), "more than 64 patterns in [redact]");
    for (const std::string& pattern : *list) {
      if (pattern.size() > kMaxPatternBytes || pattern.find_first_not_of('*') == std::string::npos)
        return file.complain(node->source(),
                             "a pattern of [redact] has 1 to 256 bytes and more than stars");
    }
  }
}

}  // namespace certgate::agentd
