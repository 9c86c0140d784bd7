#include "supervisor/tool_load.h"

#include <algorithm>
#include <string>

namespace certgate::supervisor {
namespace {

using kernel::CborReader;
using kernel::Tool;
using kernel::ToolPart;
using kernel::ToolVariable;
using kernel::ValueSpec;

constexpr size_t kMaxText = 65536;
constexpr size_t kMaxList = 65536;

Status array_of(CborReader& in, size_t wanted) {
  CG_TRY(const size_t is, in.array(wanted));
  return is == wanted ? ok() : Status(fail("a part of a tool has another length"));
}

template <typename T>
Status choice(CborReader& in, T last, T& to) {
  CG_TRY(const uint64_t value, in.unsigned_int());
  if (value > static_cast<uint64_t>(last)) return fail("a tool has a value that is not known");
  to = static_cast<T>(value);
  return ok();
}

Status texts(CborReader& in, std::vector<std::string>& to) {
  CG_TRY(const size_t count, in.array(kMaxList));
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(std::string text, in.text(kMaxText));
    to.push_back(std::move(text));
  }
  return ok();
}

Status paths(CborReader& in, std::vector<kernel::PathPattern>& to) {
  std::vector<std::string> all;
  CG_CHECK(texts(in, all));
  for (const std::string& text : all) {
    CG_TRY(kernel::PathPattern pattern, kernel::PathPattern::parse(text));
    to.push_back(std::move(pattern));
  }
  return ok();
}

Status value(CborReader& in, ValueSpec& to) {
  CG_CHECK(array_of(in, 9));
  CG_CHECK(texts(in, to.one_of));
  CG_CHECK(choice(in, kernel::ValueType::kPath, to.type));
  CG_TRY(to.min, in.integer());
  CG_TRY(to.max, in.integer());
  CG_TRY(to.chars, in.text(kMaxText));
  CG_CHECK(texts(in, to.patterns));
  CG_CHECK(paths(in, to.within));
  CG_TRY(to.dash, in.boolean());
  CG_TRY(const size_t accepts, in.array(1));
  if (accepts == 0) return ok();
  std::vector<std::string> accept;
  CG_CHECK(texts(in, accept));
  CG_TRY(to.accept, kernel::AcceptSet::parse(accept));
  return ok();
}

Status part(CborReader& in, ToolPart& to) {
  CG_TRY(const size_t items, in.array(5));
  if (items < 4) return fail("a part of a tool has another length");
  CG_TRY(to.flag, in.text(kMaxText));
  CG_TRY(to.optional, in.boolean());
  CG_TRY(to.repeats, in.boolean());
  CG_TRY(const uint64_t group, in.unsigned_int());
  if (group > UINT32_MAX) return fail("a tool has a group that there cannot be");
  to.group = static_cast<uint32_t>(group);
  return items == 5 ? value(in, to.value.emplace()) : ok();
}

Status tool(CborReader& in, Tool& to) {
  CG_CHECK(array_of(in, 10));
  CG_TRY(to.name, in.text(kMaxText));
  CG_TRY(to.why, in.text(kMaxText));
  CG_TRY(to.program, in.text(kMaxText));
  CG_CHECK(choice(in, Tool::Pin::kAtStart, to.pin));
  CG_TRY(const std::string sha256, in.bytes(to.sha256.size()));
  if (sha256.size() != (to.pin == Tool::Pin::kExact ? to.sha256.size() : 0))
    return fail("a tool has a digest of another length");
  std::copy(sha256.begin(), sha256.end(), to.sha256.begin());
  CG_CHECK(texts(in, to.run_by));
  CG_TRY(const size_t parts, in.array(kernel::kMaxToolParts));
  to.parts.resize(parts);
  for (ToolPart& one : to.parts) CG_CHECK(part(in, one));
  CG_TRY(const size_t variables, in.array(kMaxList));
  for (size_t i = 0; i < variables; ++i) {
    ToolVariable& one = to.env.emplace_back();
    CG_CHECK(array_of(in, 2));
    CG_TRY(one.name, in.text(kMaxText));
    CG_CHECK(value(in, one.value));
  }
  CG_CHECK(paths(in, to.cwd));
  return choice(in, Tool::Descriptors::kAny, to.descriptors);
}

}  // namespace

Result<std::vector<Tool>> read_tools(CborReader& in) {
  std::vector<Tool> out;
  CG_TRY(const size_t count, in.array(kMaxList));
  for (size_t i = 0; i < count; ++i) CG_CHECK(tool(in, out.emplace_back()));
  return out;
}

}  // namespace certgate::supervisor
