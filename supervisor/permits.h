// Permits: what the tool gate has granted and no exec has used yet.
//
//   granted → used by the first exec of that program, content and argv (take)
//           → over after kPermitTtl_ns
//           → while that exec waits for an operator it is kept for its thread alone (keep_for)
// A permit carries only whose words the arguments are; the exec is decided as any other. When it is
// refused nevertheless the permit is put back. Not thread-safe: the session's lock guards it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/call.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxPermits = 64;
inline constexpr int64_t kPermitTtl_ns = 30'000'000'000;

struct Permit {
  std::string id;  // of its record
  std::string program;
  kernel::Digest sha256{};
  std::vector<std::string> argv;
  std::vector<kernel::ArgumentSource> sources;
  int64_t expires_ns = 0;  // CLOCK_BOOTTIME
  int kept_for = 0;        // the thread whose exec waits, 0 = none
  int64_t kept_ns = 0;     // until then, whatever `expires_ns` says
};

// Who will be asked when the permit is used, and why.
struct Asks {
  std::string rule, why;
};

class Permits {
 public:
  bool full(int64_t now_ns);
  void add(Permit permit) { all_.push_back(std::move(permit)); }
  // One that was taken: its exec waits, at most until then, and will be judged again.
  void keep_for(int tid, Permit permit, int64_t until_ns);
  // One that was taken for an exec that was refused.
  void put_back(Permit permit);
  // That exec is no longer waited for.
  void drop_kept(int tid);
  // The oldest that is for exactly this exec by this thread, removed.
  std::optional<Permit> take(const kernel::ExecEffect& exec, int tid, int64_t now_ns);

 private:
  void drop_old(int64_t now_ns);
  std::vector<Permit> all_;
};

}  // namespace certgate::supervisor
