#include "supervisor/inherited.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

// The flags line of fdinfo is octal.
bool closes_on_exec(pid_t tid, int fd) {
  const std::string path = "/proc/" + std::to_string(tid) + "/fdinfo/" + std::to_string(fd);
  const sandbox::UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char text[512] = {};
  if (!file || ::read(file.get(), text, sizeof text - 1) <= 0) return errno == ENOENT;
  const char* flags = std::strstr(text, "flags:");
  return flags != nullptr && (std::strtoul(flags + 6, nullptr, 8) & O_CLOEXEC) != 0;
}

template <typename F>
int each_descriptor(pid_t tid, F&& f) {
  const std::string path = "/proc/" + std::to_string(tid) + "/fd";
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
  if (!dir) return errno == ENOENT ? ESRCH : errno;
  for (errno = 0; const dirent* entry = ::readdir(dir.get()); errno = 0) {
    const int fd = std::atoi(entry->d_name);
    if (fd > 2 && !f(fd)) return 0;
  }
  return errno;
}

}  // namespace

int inherited_descriptors(pid_t tid, size_t limit, std::vector<int>& out) {
  return each_descriptor(tid, [&](int fd) {
    if (!closes_on_exec(tid, fd)) out.push_back(fd);
    return out.size() < limit;
  });
}

bool leaves_descriptors(pid_t pid) {
  bool any = false;
  const int error = each_descriptor(pid, [&](int) { return !(any = true); });
  return any || error != 0;
}

}  // namespace certgate::supervisor
