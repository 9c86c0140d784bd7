#include "agentd/risk_file.h"

#include "kernel/risk.h"

namespace certgate::agentd {
namespace {

using kernel::Effect;

struct Word {
  std::string_view text;
  Effect effect;
};
constexpr Word kWords[] = {
    {"allow", Effect::kAllow}, {"ask", Effect::kAsk}, {"forbid", Effect::kForbid}};

}  // namespace

void read_risk(TomlFile& file, const toml::node* node, std::array<Effect, kernel::kRisks>& risk) {
  if (node == nullptr) return;
  const toml::table* table = node->as_table();
  if (table == nullptr) return file.complain(node->source(), "'risk' must be a table: [risk]");
  TableReader reader(file, *table, "[risk]");
  Effect below = Effect::kAllow;
  for (size_t i = 0; i < risk.size(); ++i) {
    const char* const level = kernel::risk_text(static_cast<kernel::Risk>(i));
    std::string text;
    Effect is = below;
    if (reader.text(level, text, Need::kOptional)) {
      const auto* word = std::find_if(std::begin(kWords), std::end(kWords),
                                      [&](const Word& w) { return w.text == text; });
      if (word == std::end(kWords))
        return file.complain(
            reader.source(level),
            std::string("'") + level + "' must be \"allow\", \"ask\" or \"forbid\"");
      is = word->effect;
    }
    if (kernel::stricter(below, is) != is)
      return file.complain(reader.source(level),
                           std::string("'") + level + "' is treated more mildly than a lower risk");
    below = is;
    risk[i] = kernel::stricter(risk[i], is);
  }
  reader.done();
}

}  // namespace certgate::agentd
