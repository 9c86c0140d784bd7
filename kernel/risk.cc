#include "kernel/risk.h"

#include <functional>

namespace certgate::kernel {
namespace {

constexpr size_t kSeen = 1024;
constexpr uint64_t kTruncate = 01000;  // O_TRUNC
constexpr unsigned kOriginPoints[kOriginClasses] = {0, 0, 0, 1, 1, 2, 2, 2, 2, 2};

struct Facts {
  std::string_view object;
  unsigned points = 0;
  bool inside = false;
};

Facts facts_of(const Effects& effect) {
  if (const auto* e = std::get_if<OpenEffect>(&effect)) {
    const std::string_view how(e->how.c_str());
    const bool undoes = (!e->create && (e->flags & kTruncate) != 0) || how.starts_with("rename") ||
                        how.starts_with("unlink") || how == "rmdir" || how == "truncate";
    return {e->path, e->write ? (undoes ? 2u : 1u) : 0u, e->inside};
  }
  if (const auto* e = std::get_if<ExecEffect>(&effect))
    return {e->images.empty() ? "" : std::string_view(e->images[0].path), 2};
  const auto& e = std::get<ConnectEffect>(effect);
  return {e.path.empty() ? e.host : e.path, 3, e.inside};
}

}  // namespace

const char* risk_text(Risk risk) {
  return risk == Risk::kHigh ? "high" : risk == Risk::kMedium ? "medium" : "low";
}

Risked risk_of(const Effects& effect, const Label& judged, const std::vector<uint64_t>& seen) {
  const Facts facts = facts_of(effect);
  if (facts.inside) return {};
  const uint64_t what = effect.index() * 4 + facts.points + 1;  // below 16
  const uint64_t subject = std::hash<std::string_view>{}(facts.object) * 16 + what;
  unsigned origins = 0;
  for (size_t i = 0; i < kOriginClasses; ++i) {
    if ((judged.mask() & (1u << i)) != 0) origins = std::max(origins, kOriginPoints[i]);
  }
  const unsigned first = seen.empty() || seen[subject % kSeen] != subject ? 1 : 0;
  const unsigned points = facts.points + origins + first;
  return {points >= 5 ? Risk::kHigh : points >= 3 ? Risk::kMedium : Risk::kLow, subject};
}

void remember(uint64_t subject, std::vector<uint64_t>& seen) {
  seen.resize(kSeen);
  if (subject != 0) seen[subject % kSeen] = subject;
}

}  // namespace certgate::kernel
