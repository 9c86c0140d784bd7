#include "agentd/state_dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <memory>
#include <thread>

namespace certgate::agentd {
namespace {

using sandbox::UniqueFd;

constexpr char kTemporary[] = "tmp/next";

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash);
}

Result<UniqueFd> open_at(int dir, const std::string& path, int flags, mode_t mode) {
  UniqueFd fd(::openat(dir, path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!fd) return disk_error(path, errno);
  return fd;
}

Status make_path(const std::string& path) {
  for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      struct stat st;
      const int code = errno;
      if (::stat(part.c_str(), &st) != 0) return disk_error("state directory " + part, code);
    }
    if (slash == std::string::npos) return ok();
  }
}

// flock has no time limit of its own, and a stopped holder must not stop everyone for ever.
Status wait_for_lock(int fd, int operation) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  auto pause = std::chrono::microseconds(200);
  while (::flock(fd, operation | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return disk_error("lock", errno);
    if (std::chrono::steady_clock::now() > deadline) {
      return fail("state directory: locked by another certgate for more than 10 s", EWOULDBLOCK);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::microseconds(10000));
  }
  return ok();
}

}  // namespace

Error disk_error(const std::string& what, int code) {
  Error error = fail_errno(what, code);
  if (code == ENOSPC || code == EDQUOT) error.what += " (free some space, then start again)";
  if (code == EROFS) error.what += " (choose a directory on a writable file system with --state)";
  if (code == EACCES || code == EPERM)
    error.what += " (choose a directory of your own with --state)";
  if (code == ELOOP) error.what += " (a symlink is never followed here)";
  return error;
}

bool disk_full(const Error& error) { return error.code == ENOSPC || error.code == EDQUOT; }

Error sync_error(const std::string& what, int code) {
  Error error = disk_error(what, code);
  if (disk_full(error)) error.code = EIO;
  return error;
}

Result<UniqueFd> open_state_dir(const std::string& asked) {
  std::string path = asked;
  while (path.size() > 1 && path.back() == '/') path.pop_back();  // "x/" would follow a symlink x
  if (path.empty()) return fail("state directory: no path was given (use --state DIR)");
  const std::string name = "state directory " + path;
  struct stat st;
  if (::lstat(path.c_str(), &st) == 0 && S_ISLNK(st.st_mode)) {
    return fail(name + ": it is a symlink; name the directory itself", ELOOP);
  }
  CG_CHECK(make_path(path));
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return disk_error(name, errno);
  if (::fstat(fd.get(), &st) != 0) return disk_error(name, errno);
  if (st.st_uid != ::geteuid()) {
    return fail(name + ": it belongs to uid " + std::to_string(st.st_uid) +
                    "; choose a directory of your own with --state",
                EPERM);
  }
  if ((st.st_mode & 0077) != 0) {
    CG_TRY(const std::vector<std::string> names, list_dir(fd.get(), "."));
    if (!names.empty()) {
      return fail(name + ": others may enter it; run: chmod 700 " + path, EPERM);
    }
    if (::fchmod(fd.get(), 0700) != 0) return disk_error(name, errno);
  }
  return fd;
}

Result<DirLock> DirLock::exclusive(int dir) {
  CG_TRY(UniqueFd fd, open_at(dir, "lock", O_RDWR | O_CREAT, 0600));
  CG_CHECK(wait_for_lock(fd.get(), LOCK_EX));
  return DirLock(std::move(fd));
}

Result<DirLock> DirLock::shared(int dir) {
  Result<UniqueFd> fd = open_at(dir, "lock", O_RDONLY, 0);
  if (!fd) {
    if (fd.error().code == ENOENT) return DirLock(UniqueFd());
    return fd.error();
  }
  CG_CHECK(wait_for_lock(fd->get(), LOCK_SH));
  return DirLock(std::move(*fd));
}

Result<std::string> read_file(int dir, const std::string& path, size_t max) {
  // O_NONBLOCK: a fifo put in the place of a file must not make us wait.
  CG_TRY(const UniqueFd fd, open_at(dir, path, O_RDONLY | O_NONBLOCK, 0));
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return disk_error(path, errno);
  if (!S_ISREG(st.st_mode)) return fail(path + ": not a regular file", EINVAL);
  if (static_cast<uint64_t>(st.st_size) > max) return fail(path + ": larger than it can be", EFBIG);
  std::string bytes(static_cast<size_t>(st.st_size), '\0');
  size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t n =
        ::pread(fd.get(), bytes.data() + have, bytes.size() - have, static_cast<off_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return disk_error(path, errno);
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  bytes.resize(have);
  return bytes;
}

Status write_all(int fd, const void* data, size_t size, const std::string& name) {
  const auto* at = static_cast<const uint8_t*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return disk_error(name, errno);
    at += n;
    size -= static_cast<size_t>(n);
  }
  return ok();
}

Status sync_dir(int dir, const std::string& path) {
  const Result<UniqueFd> opened =
      open_at(dir, path.empty() ? "." : path, O_RDONLY | O_DIRECTORY, 0);
  if (!opened) return sync_error(path, opened.error().code);  // the names are there already
  const UniqueFd& fd = *opened;
  if (::fsync(fd.get()) != 0) return sync_error(path, errno);
  return ok();
}

Result<std::vector<std::string>> list_dir(int dir, const std::string& path) {
  std::vector<std::string> names;
  Result<UniqueFd> fd = open_at(dir, path, O_RDONLY | O_DIRECTORY, 0);
  if (!fd) {
    if (fd.error().code == ENOENT) return names;
    return fd.error();
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd->get()), ::closedir);
  if (!stream) return disk_error(path, errno);
  (void)fd->release();  // the stream owns it now
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (names.size() == kMaxDirEntries) return fail(path + ": too many files", EFBIG);
    names.push_back(std::move(name));
  }
  if (errno != 0) return disk_error(path, errno);
  std::sort(names.begin(), names.end());
  return names;
}

Result<bool> remove_entry(int dir, const std::string& path, bool directory) {
  if (::unlinkat(dir, path.c_str(), directory ? AT_REMOVEDIR : 0) == 0) return true;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  if (directory && (errno == ENOTEMPTY || errno == EEXIST)) return false;
  return disk_error(path, errno);
}

Result<bool> make_dir(int dir, const std::string& path) {
  if (::mkdirat(dir, path.c_str(), 0700) == 0) return true;
  if (errno == EEXIST) return false;
  return disk_error(path, errno);
}

Status DurableWriter::make_parents(const std::string& path) {
  for (size_t slash = path.find('/'); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    const std::string part = path.substr(0, slash);
    CG_TRY(const bool made, make_dir(dir_, part));
    if (made) touched_.insert(parent_of(part));
  }
  return ok();
}

Status DurableWriter::put(const std::string& path, const void* data, size_t size) {
  const std::string parent = parent_of(path);
  if (!touched_.contains(parent)) CG_CHECK(make_parents(path));
  CG_TRY(const UniqueFd fd, open_at(dir_, kTemporary, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  CG_CHECK(write_all(fd.get(), data, size, path));
  if (::fsync(fd.get()) != 0) return sync_error(path, errno);
  if (::renameat(dir_, kTemporary, dir_, path.c_str()) != 0) return disk_error(path, errno);
  touched_.insert(parent);
  return ok();
}

Status DurableWriter::flush() {
  for (const std::string& path : touched_) CG_CHECK(sync_dir(dir_, path));
  touched_.clear();
  return ok();
}

}  // namespace certgate::agentd
