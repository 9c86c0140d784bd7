// Record rate: how fast an agent may fill the operator's disk with records.
//
//   RecordRate rate(10000, [] { say_so(); });
//   rate.count(now);              // by the recorder, one for each record
//   rate.wait_for_room();         // by the notify thread, before it takes the next call
//   if (auto e = rate.take_episode(Episode::kOver)) record_it(*e);    // once a second
//
// Records are never dropped: beyond the rate, counted over kBurstSeconds, the agent's next calls
// stay in the kernel's queue, where a signal or the end of their caller still finds them. Only this
// agent waits, since each has a supervisor of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

namespace certgate::supervisor {

inline constexpr int64_t kBurstSeconds = 10;
inline constexpr int64_t kEpisodeGap_ns = 1'000'000'000;

// A time in which the agent's calls had to wait, again and again within kEpisodeGap_ns.
struct Throttled {
  int64_t since_ns = 0, until_ns = 0;  // CLOCK_BOOTTIME
  int64_t waited_ns = 0;               // of that
};

class RecordRate {
 public:
  // `on_first_wait` is called once, by the thread that waits.
  RecordRate(uint64_t per_second, std::function<void()> on_first_wait);

  // Times are CLOCK_BOOTTIME. Calls must be ordered by the caller's lock.
  void count(int64_t now_ns);
  // When the next call may be taken; 0 when at once.
  int64_t resume_at() const { return resume_at_.load(std::memory_order_relaxed); }
  bool full() const;
  void wait_for_room();
  // The episode that is over, or, at the end of a run, the present one. Each is given once.
  enum class Episode : uint8_t { kOver, kAny };
  std::optional<Throttled> take_episode(Episode which);

 private:
  const int64_t cost_ns_;  // of one record
  std::function<void()> on_first_wait_;
  int64_t paid_until_ns_ = 0;
  std::atomic<int64_t> resume_at_{0};
  bool said_ = false;  // of the notify thread
  std::mutex mutex_;   // guards what follows: the notify thread writes, the io thread takes
  std::optional<Throttled> episode_;
};

}  // namespace certgate::supervisor
