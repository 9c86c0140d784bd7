#include "supervisor/script_binding.h"

#include <signal.h>

#include <cerrno>
#include <utility>

namespace certgate::supervisor {

bool process_exists(int tgid) { return ::kill(tgid, 0) == 0 || errno != ESRCH; }

bool ScriptBindings::bind(int tgid, std::optional<ScriptBinding> binding) {
  const std::lock_guard lock(mutex_);
  bound_.erase(tgid);
  if (!binding) return true;
  if (bound_.size() >= kMaxBindings) drop_dead();
  if (bound_.size() >= kMaxBindings) return false;
  bound_.emplace(tgid, *std::move(binding));
  return true;
}

// A process that ends before it opens its script leaves its binding behind.
void ScriptBindings::drop_dead() {
  std::erase_if(bound_, [this](const auto& entry) { return !exists_(entry.first); });
}

std::optional<ScriptBinding> ScriptBindings::take(int tgid, const std::string& asked) {
  const std::lock_guard lock(mutex_);
  const auto it = bound_.find(tgid);
  if (it == bound_.end() || it->second.asked != asked) return std::nullopt;
  std::optional<ScriptBinding> out(std::move(it->second));
  bound_.erase(it);
  return out;
}

}  // namespace certgate::supervisor
