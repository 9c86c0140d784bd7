#include "supervisor/tool_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace certgate::supervisor {
namespace {

// The number at the front of `text`, which must be followed by `after` (0 = the end).
bool take_number(std::string_view& text, char after, uint64_t max, uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  if (error != std::errc() || out > max) return false;
  if (after == 0) return text.empty();
  if (text.empty() || text[0] != after) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::string source_text(const kernel::ArgumentSource& s) {
  return fmt::format("{}=user@{}:{}-{}", s.argument, s.message, s.start, s.end);
}

std::string sources_text(const kernel::Policy& policy, const std::string& tool,
                         const kernel::Call& call) {
  std::vector<std::string> parts;
  const auto* exec = std::get_if<kernel::ExecEffect>(&call.effect);
  if (tool.empty() || exec == nullptr) return "";
  for (const kernel::Tool& one : policy.tools) {
    if (one.name != tool) continue;
    const kernel::ToolFit fit = kernel::fit_tool(one, *exec);
    for (size_t i = 0; i < fit.argv.size(); ++i) {
      if (fit.argv[i] != nullptr) {
        for (const auto& source : call.sources) {
          if (source.argument == i) parts.push_back(source_text(source));
        }
        continue;
      }
      const size_t from = i;
      while (i + 1 < fit.argv.size() && fit.argv[i + 1] == nullptr) ++i;
      parts.push_back(i == from ? fmt::format("{}=policy", i)
                                : fmt::format("{}-{}=policy", from, i));
    }
  }
  return fmt::format("{}", fmt::join(parts, " "));
}

Result<kernel::ArgumentSource> parse_source(const std::string& text) {
  constexpr std::string_view kUser = "user@";
  std::string_view rest = text;
  uint64_t argument = 0, message = 0;
  kernel::ArgumentSource out;
  const bool named = take_number(rest, '=', UINT32_MAX, argument) && rest.starts_with(kUser);
  if (named) rest.remove_prefix(kUser.size());
  if (!named || !take_number(rest, ':', UINT32_MAX, message) ||
      !take_number(rest, '-', INT64_MAX, out.start) || !take_number(rest, 0, INT64_MAX, out.end)) {
    return fail("'" + text + "' is not like \"3=user@0:4-20\": argument, message, first byte, end");
  }
  out.argument = static_cast<uint32_t>(argument);
  out.message = static_cast<uint32_t>(message);
  return out;
}

}  // namespace certgate::supervisor
