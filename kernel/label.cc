#include "kernel/label.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace certgate::kernel {
namespace {

struct ClassRow {
  OriginClass cls;
  std::string_view name;
  bool detailed;
  // A class with more details than this widens. One fixed limit for each class, whatever else is in
  // the set: a limit on the whole would make the join depend on the order of its operands.
  size_t max_details;
};
constexpr ClassRow kClasses[] = {
    {OriginClass::kOperator, "operator", false, 1}, {OriginClass::kUser, "user", false, 1},
    {OriginClass::kPolicy, "policy", false, 1},     {OriginClass::kModel, "model", false, 1},
    {OriginClass::kTool, "tool", false, 1},         {OriginClass::kAgent, "agent", true, 4},
    {OriginClass::kFile, "file", true, 6},          {OriginClass::kWeb, "web", true, 16},
    {OriginClass::kUnknown, "unknown", false, 1},   {OriginClass::kSecret, "secret", true, 6},
};
static_assert(std::size(kClasses) == kOriginClasses);
constexpr size_t largest_label() {
  size_t sum = 0;
  for (const ClassRow& c : kClasses) sum += c.max_details;
  return sum;
}
static_assert(largest_label() <= kMaxOrigins);

uint32_t bit(OriginClass cls) { return 1u << static_cast<unsigned>(cls); }
const ClassRow& row(OriginClass cls) { return kClasses[static_cast<size_t>(cls)]; }

bool detail_ok(std::string_view detail) {
  if (detail.empty() || detail.size() > kMaxOriginDetail) return false;
  return std::all_of(detail.begin(), detail.end(), [](char c) {
    return c > 0x20 && c < 0x7f && c != ',' && c != '"' && c != '\\';
  });
}

// Sorted, unique, without what a "class:*" of the same set already says, within the size limit.
std::vector<Origin> normalise(std::vector<Origin> all) {
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  uint32_t whole = 0;
  for (const Origin& o : all) {
    if (o.detail == "*") whole |= bit(o.cls);
  }
  std::array<size_t, kOriginClasses> details{};
  for (const Origin& o : all) {
    if (++details[static_cast<size_t>(o.cls)] > row(o.cls).max_details) whole |= bit(o.cls);
  }
  if (whole == 0) return all;
  std::vector<Origin> out;
  for (Origin& o : all) {
    if (!(whole & bit(o.cls))) out.push_back(std::move(o));
  }
  for (const ClassRow& c : kClasses) {
    if (whole & bit(c.cls)) out.push_back({c.cls, "*"});
  }
  std::sort(out.begin(), out.end());
  return out;
}

const std::vector<Origin>& no_origins() {
  static const std::vector<Origin> none;
  return none;
}

Result<Origin> parse_part(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  for (const ClassRow& c : kClasses) {
    if (c.name != name) continue;
    if (!c.detailed) {
      if (colon != std::string_view::npos)
        return fail("origin '" + std::string(name) + "' takes no detail");
      return Origin{c.cls, ""};
    }
    if (colon == std::string_view::npos) {
      return fail("origin '" + std::string(name) + "' needs a detail, such as '" +
                  std::string(name) + ":*'");
    }
    const std::string_view detail = text.substr(colon + 1);
    if (!detail_ok(detail))
      return fail("origin '" + std::string(name) +
                  ":…' has a detail that is empty, too long or not plain");
    return Origin{c.cls, std::string(detail)};
  }
  return fail("no such origin '" + std::string(name.substr(0, 64)) +
              "'; known are operator, user, policy, model, tool, unknown, agent:…, file:…, web:…");
}

}  // namespace

Result<Origin> Origin::parse(std::string_view text) {
  if (text == "secret" || text.starts_with("secret:"))
    return fail("'secret:…' is a secrecy tag, no origin: zones have 'secrecy', rules 'clearance'");
  return parse_part(text);
}

Result<Origin> Origin::parse_tag(std::string_view text) {
  CG_TRY(Origin tag, parse_part(text));
  if (tag.cls != OriginClass::kSecret)
    return fail("'" + std::string(text) +
                "' is no secrecy tag, such as 'secret:env' or 'secret:*'");
  return tag;
}

std::string Origin::text() const {
  std::string out(row(cls).name);
  if (row(cls).detailed) out += ":" + detail;
  return out;
}

Label Label::of(std::vector<Origin> origins) {
  for (Origin& o : origins) {
    // What cannot be written down as an origin is not lost: it becomes all of its class.
    if (!row(o.cls).detailed) {
      o.detail.clear();
    } else if (!detail_ok(o.detail)) {
      o.detail = "*";
    }
  }
  Label out;
  auto normal = normalise(std::move(origins));
  for (const Origin& o : normal) out.mask_ |= bit(o.cls);
  if (!normal.empty())
    out.origins_ = std::make_shared<const std::vector<Origin>>(std::move(normal));
  return out;
}

Label Label::unknown() { return of({{OriginClass::kUnknown, ""}}); }

Result<Label> Label::parse(std::string_view text) {
  std::vector<Origin> all;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    CG_TRY(Origin origin, parse_part(text.substr(0, comma)));
    all.push_back(std::move(origin));
    if (comma == std::string_view::npos) break;
    text.remove_prefix(comma + 1);
    if (text.empty()) return fail("a label that ends with a comma");
  }
  return of(std::move(all));
}

const std::vector<Origin>& Label::origins() const { return origins_ ? *origins_ : no_origins(); }

bool Label::covers(const Label& other) const {
  if (other.mask_ & ~mask_) return false;
  if (other.origins_ == origins_) return true;
  return std::all_of(other.origins().begin(), other.origins().end(), [this](const Origin& o) {
    return std::any_of(origins().begin(), origins().end(), [&](const Origin& mine) {
      return mine == o || (mine.cls == o.cls && mine.detail == "*");
    });
  });
}

Label Label::join(const Label& other) const {
  if (covers(other)) return *this;
  if (other.covers(*this)) return other;
  std::vector<Origin> all = origins();
  all.insert(all.end(), other.origins().begin(), other.origins().end());
  return of(std::move(all));
}

bool Label::operator==(const Label& other) const {
  return mask_ == other.mask_ && (origins_ == other.origins_ || origins() == other.origins());
}

std::string Label::text() const {
  std::string out;
  for (const Origin& o : origins()) {
    if (!out.empty()) out += ',';
    out += row(o.cls).name;
    if (row(o.cls).detailed) (out += ':') += o.detail;
  }
  return out;
}

AcceptSet::AcceptSet(Of of)
    : judged_(of == Of::kTags ? bit(OriginClass::kSecret) : ~bit(OriginClass::kSecret)) {}

Result<AcceptSet> AcceptSet::parse(const std::vector<std::string>& patterns, Of of) {
  AcceptSet out(of);
  for (const std::string& pattern : patterns) {
    CG_TRY(Origin origin, of == Of::kTags ? Origin::parse_tag(pattern) : Origin::parse(pattern));
    if (!row(origin.cls).detailed || origin.detail == "*") {
      out.whole_ |= bit(origin.cls);
    } else {
      out.some_.push_back(std::move(origin));
    }
  }
  std::erase_if(out.some_, [&](const Origin& o) { return (out.whole_ & bit(o.cls)) != 0; });
  std::sort(out.some_.begin(), out.some_.end());
  out.some_.erase(std::unique(out.some_.begin(), out.some_.end()), out.some_.end());
  return out;
}

const Origin* AcceptSet::first_rejected(const Label& label) const {
  const uint32_t open = judged_ & ~whole_;
  if (!(label.mask() & open)) return nullptr;
  for (const Origin& o : label.origins()) {
    if (!(open & bit(o.cls))) continue;
    if (!std::binary_search(some_.begin(), some_.end(), o)) return &o;
  }
  return nullptr;
}

bool AcceptSet::accepts(const Label& label) const { return first_rejected(label) == nullptr; }

std::vector<std::string> AcceptSet::texts() const {
  std::vector<std::string> out;
  for (const ClassRow& c : kClasses) {
    if (whole_ & bit(c.cls)) out.push_back(std::string(c.name) + (c.detailed ? ":*" : ""));
  }
  for (const Origin& o : some_) out.push_back(o.text());
  return out;
}

}  // namespace certgate::kernel
