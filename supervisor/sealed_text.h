// Sealed text: what is too long for a message goes beside it, as a descriptor of memory that nobody
// can change any more.
//
//   CG_TRY(UniqueFd fd, seal_text(policy));              // the sender; then sandbox/wire.h
//   CG_TRY(std::string text, read_sealed(fd.get(), kMaxPolicyBytes));
//
// What is not sealed is not read: it could be a FIFO that makes us wait, or change as we look.
#pragma once

#include <string>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {

Result<sandbox::UniqueFd> seal_text(const std::string& text);
Result<std::string> read_sealed(int fd, size_t max);

}  // namespace certgate::supervisor
