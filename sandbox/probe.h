// Probe: does on this host, with a sandbox of its own, each thing that hosting an agent needs.
//
//   for (const Check& check : probe_host()) print(check.what, check.ok, check.cure);
//
// Not a reading of versions: launch() itself runs, step by step (steps.h), then one real program is
// hosted and its notifications are received, decoded and answered as the supervisor does it. It all
// happens in a process of its own, which drops to an unprivileged uid when the caller is root, and
// ends within a minute whatever the kernel does.
#pragma once

#include <string>
#include <vector>

namespace certgate::sandbox {

struct Check {
  std::string what;  // "create a network namespace"
  bool ok = false;
  bool required = true;     // false: only worth knowing
  std::string detail;       // what was seen, or the error
  std::string consequence;  // of a failure
  std::string cure;
};

// In the order in which `run` does them. Ends with the first required one that fails.
std::vector<Check> probe_host();

// What would hold each limit: a cgroup is made for it, entered and removed again.
std::vector<Check> probe_limits();

}  // namespace certgate::sandbox
