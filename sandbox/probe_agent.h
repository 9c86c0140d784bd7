// Probe agent: the part of the probe that needs a running program. One is hosted; each way in which
// the supervisor looks at its calls and answers them is tried on it once.
//
//   probe_agent(std::move(box), std::move(output), [](const Check& check) { ... });
#pragma once

#include <functional>

#include "sandbox/fd.h"
#include "sandbox/launch.h"
#include "sandbox/probe.h"

namespace certgate::sandbox {

// Prints a file that exists only as a descriptor which the probe injects.
inline constexpr const char* kProbeProgram = "/bin/cat";
inline constexpr const char* kProbeFile = "/certgate-probe";

// `output` is the reading end of the agent's stdout. Reports until the first required failure.
void probe_agent(Sandbox box, UniqueFd output, const std::function<void(const Check&)>& report);

}  // namespace certgate::sandbox
