// Script bindings: an exec of a script is proved only for its interpreter, which opens the script
// again by path. Until it has, the script is *bound*: that process's next open of that path must
// find the certified inode with the certified content, or the process is killed.
//
// State per process:  (none) → bound(path, file, digest) → (none) at the matching open or next exec
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "kernel/call.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxBindings = 4096;

struct ScriptBinding {
  std::string asked;         // the path the interpreter was given
  kernel::ExecImage script;  // what it must find there
  uint64_t certificate_seq = 0;
};

// Whether there is a process, or a zombie, of this id.
bool process_exists(int tgid);

class ScriptBindings {
 public:
  using Exists = bool (*)(int tgid);
  explicit ScriptBindings(Exists exists = process_exists) : exists_(exists) {}
  // Replaces whatever was bound for this process; nullopt clears. False: too many living
  // processes have one.
  bool bind(int tgid, std::optional<ScriptBinding> binding);
  // The binding of this process for this path, removed from the table.
  std::optional<ScriptBinding> take(int tgid, const std::string& asked);

 private:
  void drop_dead();

  Exists exists_;
  std::mutex mutex_;  // guards bound_
  std::map<int, ScriptBinding> bound_;
};

}  // namespace certgate::supervisor
