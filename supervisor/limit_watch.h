// Limit watch: tells the operator, once for each limit, that the agent has met it.
//
//   LimitWatch watch(cgroup, Report::kText);
//   watch.look();                     // now and then, and at the end
//   if (watch.met(Resource::kMemory)) …
#pragma once

#include <array>

#include "sandbox/cgroup.h"
#include "supervisor/log_room.h"
#include "supervisor/session.h"

namespace certgate::supervisor {

class LimitWatch {
 public:
  LimitWatch(const sandbox::Cgroup& cgroup, Report report) : cgroup_(cgroup), report_(report) {}

  void look();
  bool met(sandbox::Resource resource) const { return met_[static_cast<size_t>(resource)]; }

 private:
  const sandbox::Cgroup& cgroup_;
  const Report report_;
  std::array<bool, sandbox::kResources> met_{};
};

// Says that the agent makes records faster than it may, and is slowed down.
void say_record_rate(uint64_t per_second, Report report);

// Says that the log's disk is full and the agent waits, or that it goes on.
void say_log_room(LogRoom::Change change, Report report);

}  // namespace certgate::supervisor
