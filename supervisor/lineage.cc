#include "supervisor/lineage.h"

#include <algorithm>
#include <utility>

namespace certgate::supervisor {

Lineage::Lineage(kernel::Label initial)
    : label_(std::move(initial)), from_(label_.origins().size()) {}

std::vector<uint64_t> Lineage::all_of(const kernel::Label& judged, uint64_t self) const {
  const auto& own = label_.origins();
  std::vector<uint64_t> out;
  out.reserve(judged.origins().size());
  for (const kernel::Origin& origin : judged.origins()) {
    const auto at = std::find(own.begin(), own.end(), origin);
    out.push_back(at == own.end() ? self : from_[static_cast<size_t>(at - own.begin())]);
  }
  return out;
}

std::vector<uint64_t> Lineage::of(const kernel::Label& judged, uint64_t self) const {
  std::vector<uint64_t> out = all_of(judged, self);
  if (std::all_of(out.begin(), out.end(), [](uint64_t seq) { return seq == 0; })) out.clear();
  return out;
}

void Lineage::rise(const kernel::Label& to, uint64_t seq) {
  if (to == label_) return;
  from_ = all_of(to, seq);
  label_ = to;
}

}  // namespace certgate::supervisor
