#include "supervisor/record_rate.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "kernel/mutant.h"

namespace certgate::supervisor {
namespace {

constexpr int64_t kSecond_ns = 1'000'000'000;

int64_t boot_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return int64_t{t.tv_sec} * kSecond_ns + t.tv_nsec;
}

}  // namespace

RecordRate::RecordRate(uint64_t per_second, std::function<void()> on_first_wait)
    : cost_ns_(std::max<int64_t>(1, kSecond_ns / static_cast<int64_t>(per_second))),
      on_first_wait_(std::move(on_first_wait)) {}

void RecordRate::count(int64_t now_ns) {
  if (mutant(Mutant::kRecordRate)) return;
  paid_until_ns_ = std::max(paid_until_ns_, now_ns) + cost_ns_;
  const int64_t ahead = paid_until_ns_ - now_ns - kBurstSeconds * kSecond_ns;
  resume_at_.store(ahead > 0 ? now_ns + ahead : 0, std::memory_order_relaxed);
}

bool RecordRate::full() const {
  const int64_t at = resume_at();
  return at != 0 && boot_ns() < at;
}

void RecordRate::wait_for_room() {
  if (resume_at() == 0) return;
  const int64_t began = boot_ns();
  bool waited = false;
  while (full()) {
    waited = true;
    if (!std::exchange(said_, true) && on_first_wait_) on_first_wait_();
    const int64_t at = resume_at();
    if (at == 0) break;
    const timespec until{at / kSecond_ns, at % kSecond_ns};
    ::clock_nanosleep(CLOCK_BOOTTIME, TIMER_ABSTIME, &until, nullptr);
  }
  if (!waited) return;
  const std::lock_guard lock(mutex_);
  if (!episode_) episode_ = Throttled{began, began, 0};
  episode_->until_ns = boot_ns();
  episode_->waited_ns += episode_->until_ns - began;
}

std::optional<Throttled> RecordRate::take_episode(Episode which) {
  const std::lock_guard lock(mutex_);
  if (!episode_) return std::nullopt;
  if (which == Episode::kOver && boot_ns() - episode_->until_ns < kEpisodeGap_ns)
    return std::nullopt;
  return std::exchange(episode_, std::nullopt);
}

}  // namespace certgate::supervisor
