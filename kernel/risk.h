// Risk: how much harm one call can do. Points are added up; low 0-2, medium 3-4, high from 5:
//   1 for a write, 2 for an exec or a connect; 1 for origins model and tool, 2 for those beyond
//   and for secrecy tags;
//   1 where it cannot be undone (O_TRUNC, rename, unlink, rmdir, truncate; connect);
//   1 for the first such call on its object.
// What stays inside the sandbox is low. Only the origins' points depend on the label, and a join
// never lowers them.
#pragma once

#include "kernel/certificate.h"

namespace certgate::kernel {

const char* risk_text(Risk risk);  // "low"

// `seen`: subjects of earlier calls, in bounded room. What is forgotten counts as new.
Risked risk_of(const Effects& effect, const Label& judged, const std::vector<uint64_t>& seen);
void remember(uint64_t subject, std::vector<uint64_t>& seen);

}  // namespace certgate::kernel
