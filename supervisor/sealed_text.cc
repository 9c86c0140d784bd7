#include "supervisor/sealed_text.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace certgate::supervisor {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;

}  // namespace

Result<sandbox::UniqueFd> seal_text(const std::string& text) {
  sandbox::UniqueFd fd(::memfd_create("certgate-text", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno("make memory for a long message", errno);
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(fd.get(), text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno("write a long message", n < 0 ? errno : ENOSPC);
    at += static_cast<size_t>(n);
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0)
    return fail_errno("seal a long message", errno);
  return fd;
}

Result<std::string> read_sealed(int fd, size_t max) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) return fail("a long message is not sealed", EPROTO);
  struct stat s {};
  if (::fstat(fd, &s) != 0) return fail_errno("look at a long message", errno);
  if (static_cast<uint64_t>(s.st_size) > max)
    return fail("a message of " + std::to_string(s.st_size) + " bytes; at most " +
                    std::to_string(max) + " are taken",
                EMSGSIZE);
  std::string text(static_cast<size_t>(s.st_size), '\0');
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::pread(fd, text.data() + at, text.size() - at, static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno("read a long message", n < 0 ? errno : EPROTO);
    at += static_cast<size_t>(n);
  }
  return text;
}

}  // namespace certgate::supervisor
