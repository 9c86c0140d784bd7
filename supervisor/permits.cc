#include "supervisor/permits.h"

#include <algorithm>

#include "kernel/mutant.h"

namespace certgate::supervisor {

void Permits::drop_old(int64_t now_ns) {
  std::erase_if(all_, [&](const Permit& p) {
    return (p.kept_for != 0 ? p.kept_ns : p.expires_ns) <= now_ns;
  });
}

void Permits::keep_for(int tid, Permit permit, int64_t until_ns) {
  permit.kept_for = tid;
  permit.kept_ns = until_ns;
  add(std::move(permit));
}

void Permits::put_back(Permit permit) {
  permit.kept_for = 0;
  add(std::move(permit));
}

void Permits::drop_kept(int tid) {
  std::erase_if(all_, [&](const Permit& p) { return p.kept_for == tid; });
}

bool Permits::full(int64_t now_ns) {
  drop_old(now_ns);
  return all_.size() >= kMaxPermits;
}

std::optional<Permit> Permits::take(const kernel::ExecEffect& exec, int tid, int64_t now_ns) {
  if (all_.empty() || exec.images.empty()) return std::nullopt;
  drop_old(now_ns);
  const auto it = std::find_if(all_.begin(), all_.end(), [&](const Permit& p) {
    return p.program == exec.images[0].path && p.sha256 == exec.images[0].sha256 &&
           p.argv == exec.argv && (p.kept_for == 0 || p.kept_for == tid);
  });
  if (it == all_.end()) return std::nullopt;
  std::optional<Permit> out(*it);
  if (!mutant(Mutant::kPermitOnce)) all_.erase(it);
  return out;
}

}  // namespace certgate::supervisor
