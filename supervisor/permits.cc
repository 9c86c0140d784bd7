#include "supervisor/permits.h"

#include <algorithm>

#include "kernel/mutant.h"

namespace certgate::supervisor {

void Permits::drop_old(int64_t now_ns) {
  std::erase_if(all_, [&](const Permit& p) { return p.expires_ns <= now_ns; });
}

bool Permits::full(int64_t now_ns) {
  drop_old(now_ns);
  return all_.size() >= kMaxPermits;
}

std::optional<Permit> Permits::take(const kernel::ExecEffect& exec, int64_t now_ns) {
  if (all_.empty() || exec.images.empty()) return std::nullopt;
  drop_old(now_ns);
  const auto it = std::find_if(all_.begin(), all_.end(), [&](const Permit& p) {
    return p.program == exec.images[0].path && p.sha256 == exec.images[0].sha256 &&
           p.argv == exec.argv;
  });
  if (it == all_.end()) return std::nullopt;
  std::optional<Permit> out(*it);
  if (!mutant(Mutant::kPermitOnce)) all_.erase(it);
  return out;
}

}  // namespace certgate::supervisor
