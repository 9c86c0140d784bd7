#include "agentd/rule_pieces.h"

#include <algorithm>

namespace certgate::agentd {
namespace {

constexpr size_t kWorthIt = 16;  // pieces

}  // namespace

bool RuleCut::holds(const toml::table& rest_table) const {
  const toml::array* const found = rest_table["rule"].as_array();
  if (found == nullptr || found->empty()) return false;
  const toml::source_position at = found->front().source().begin;
  return at.line == head_lines + 1 && at.column == 1;
}

std::optional<RuleCut> cut_rules(std::string_view text, size_t piece_bytes) {
  if (text.size() / kWorthIt <= piece_bytes) return std::nullopt;
  RuleCut out;
  constexpr size_t kNone = std::string_view::npos;
  size_t first = kNone, last = 0, last_line = 0, begin = 0, begin_line = 0;
  const auto end_piece = [&](size_t end, size_t end_line) {
    if (end > begin) out.pieces.push_back({text.substr(begin, end - begin), begin_line});
    begin = end;
    begin_line = end_line;
  };
  for (size_t at = 0, line = 0; at < text.size(); ++line) {
    if (text[at] == '[') {
      const bool rule = text.substr(at).starts_with("[[rule]]");
      if (!rule && first != kNone) break;
      if (rule && first == kNone) {
        first = begin = at;
        out.head_lines = begin_line = line;
      }
      if (rule) {
        if (at - begin >= piece_bytes) end_piece(at, line);
        last = at;
        last_line = line;
        ++out.rules;
      }
    }
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  }
  if (first == kNone) return std::nullopt;
  end_piece(last, last_line);
  if (out.pieces.empty()) return std::nullopt;
  out.piece_lines = last_line - out.head_lines;
  out.rest = text.substr(0, first);
  out.rest += text.substr(last);
  return out;
}

}  // namespace certgate::agentd
