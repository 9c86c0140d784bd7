#include "supervisor/home_archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <string_view>

#include "sandbox/fd.h"

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

constexpr std::array<char, 8> kMagic = {'C', 'G', 'H', 'O', 'M', 'E', '1', '\n'};
constexpr size_t kMaxLabelBytes = 16384;
constexpr size_t kBuffer = 65536;
constexpr mode_t kKeptMode = 0777;
constexpr int kNewFile = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
constexpr int kOpenDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;

enum class Kind : uint32_t { kDirectory = 1, kFile = 2, kLink = 3, kLeave = 4 };

struct Header {
  std::array<char, 8> magic{};
  uint64_t label_offset = 0, label_size = 0;
};
struct Entry {
  Kind kind = Kind::kLeave;
  uint32_t name_size = 0, mode = 0, mtime_nsec = 0;
  int64_t mtime_sec = 0;
  uint64_t size = 0;
};
static_assert(sizeof(Header) == 24 && sizeof(Entry) == 32);

Status write_all(int fd, const void* data, size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::write(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno("write the kept home (is the disk full?)", n < 0 ? errno : EIO);
    at += n;
    size -= static_cast<size_t>(n);
  }
  return ok();
}

Error damaged(const char* how) { return fail(std::string("the kept home is damaged: ") + how); }

Status read_all(int fd, void* data, size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = ::read(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read the kept home", errno);
    if (n == 0) return damaged("it ends too early");
    at += n;
    size -= static_cast<size_t>(n);
  }
  return ok();
}

timespec mtime_of(const Entry& entry) {
  return {static_cast<time_t>(entry.mtime_sec), static_cast<long>(entry.mtime_nsec)};
}

Status set_times(int dir, const char* name, const Entry& entry) {
  const timespec times[2] = {mtime_of(entry), mtime_of(entry)};
  if (::utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) == 0) return ok();
  return fail_errno("set times in the home", errno);
}

class Packer {
 public:
  Packer(const std::vector<std::string>& mounts, int out) : mounts_(mounts), out_(out) {}

  Status directory(int fd, const std::string& path, size_t depth) {
    if (depth > kMaxHomeDepth) return fail("the home is nested more than 64 deep");
    struct stat own {};
    if (::fstat(fd, &own) != 0) return fail_errno("look at the home", errno);
    device_ = depth == 0 ? own.st_dev : device_;
    CG_TRY(const std::vector<std::string> names, names_of(fd));
    for (const std::string& name : names) {
      const std::string below = path.empty() ? name : path + "/" + name;
      if (std::find(mounts_.begin(), mounts_.end(), below) != mounts_.end()) continue;
      CG_CHECK(entry(fd, name, below, depth));
    }
    return put(Entry{}, "");
  }

 private:
  static Result<std::vector<std::string>> names_of(int fd) {
    const int copy = ::openat(fd, ".", kOpenDirectory);
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(copy < 0 ? nullptr : ::fdopendir(copy),
                                                  ::closedir);
    if (!dir) return fail_errno("read the home", errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* item = ::readdir(dir.get())) {
      const std::string name = item->d_name;
      if (name == "." || name == "..") continue;
      if (names.size() >= kMaxHomeEntries) return fail("the home holds more than 65,536 files");
      names.push_back(name);
    }
    if (errno != 0) return fail_errno("read the home", errno);
    std::sort(names.begin(), names.end());
    return names;
  }

  Status put(const Entry& head, const std::string& name) {
    bytes_ += sizeof head + name.size() + (head.kind == Kind::kDirectory ? 0 : head.size);
    if (bytes_ > kMaxHomeBytes) return fail("the home is larger than 256 MiB");
    if (head.kind != Kind::kLeave && ++entries_ > kMaxHomeEntries)
      return fail("the home holds more than 65,536 files");
    CG_CHECK(write_all(out_, &head, sizeof head));
    return write_all(out_, name.data(), name.size());
  }

  // The owner may read what is its own, whatever mode the agent left it with.
  static int open_own(int dir, const std::string& name, int flags, mode_t enough) {
    const int fd = ::openat(dir, name.c_str(), flags);
    if (fd >= 0 || errno != EACCES || ::fchmodat(dir, name.c_str(), enough, 0) != 0) return fd;
    return ::openat(dir, name.c_str(), flags);
  }

  Status entry(int dir, const std::string& name, const std::string& path, size_t depth) {
    struct stat s {};
    if (::fstatat(dir, name.c_str(), &s, AT_SYMLINK_NOFOLLOW) != 0)
      return fail_errno("look at the home", errno);
    if (s.st_dev != device_) return ok();  // mounted there
    Entry head;
    head.name_size = static_cast<uint32_t>(name.size());
    head.mode = s.st_mode & kKeptMode;
    head.mtime_sec = s.st_mtim.tv_sec;
    head.mtime_nsec = static_cast<uint32_t>(s.st_mtim.tv_nsec);
    head.size = static_cast<uint64_t>(s.st_size);
    if (S_ISDIR(s.st_mode)) {
      head.kind = Kind::kDirectory;
      head.size = 0;
      CG_CHECK(put(head, name));
      const UniqueFd fd(open_own(dir, name, kOpenDirectory, 0700));
      if (!fd) return fail_errno("open a directory of the home", errno);
      return directory(fd.get(), path, depth + 1);
    }
    if (S_ISLNK(s.st_mode)) return link(dir, name, head);
    if (S_ISREG(s.st_mode)) return file(dir, name, head);
    return ok();
  }

  Status link(int dir, const std::string& name, Entry head) {
    std::array<char, PATH_MAX> target{};
    const ssize_t size = ::readlinkat(dir, name.c_str(), target.data(), target.size());
    if (size < 0) return fail_errno("read a link of the home", errno);
    head.kind = Kind::kLink;
    head.size = static_cast<uint64_t>(size);
    CG_CHECK(put(head, name));
    return write_all(out_, target.data(), head.size);
  }

  Status file(int dir, const std::string& name, Entry head) {
    head.kind = Kind::kFile;
    const UniqueFd fd(open_own(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600));
    if (!fd) return fail_errno("open a file of the home", errno);
    CG_CHECK(put(head, name));
    std::array<char, kBuffer> buffer{};
    for (uint64_t left = head.size; left > 0;) {
      const size_t part = std::min<uint64_t>(left, buffer.size());
      CG_CHECK(read_all(fd.get(), buffer.data(), part));
      CG_CHECK(write_all(out_, buffer.data(), part));
      left -= part;
    }
    return ok();
  }

  const std::vector<std::string>& mounts_;
  const int out_;
  dev_t device_ = 0;
  uint64_t bytes_ = 0;
  size_t entries_ = 0;
};

class Unpacker {
 public:
  explicit Unpacker(int in) : in_(in) {}

  // fd -1: something else is mounted there, and what the home had is passed over.
  Status directory(int fd, size_t depth) {
    if (depth > kMaxHomeDepth) return damaged("nested too deep");
    if (depth == 0) {
      struct stat own {};
      if (::fstat(fd, &own) != 0) return fail_errno("look at the home", errno);
      device_ = own.st_dev;
    }
    for (;;) {
      Entry head;
      CG_CHECK(read_all(in_, &head, sizeof head));
      if (head.kind == Kind::kLeave) return ok();
      CG_CHECK(check(head));
      std::string name(head.name_size, '\0');
      CG_CHECK(read_all(in_, name.data(), name.size()));
      if (name == "." || name == ".." || name.find('/') != std::string::npos ||
          name.find('\0') != std::string::npos) {
        return damaged("a wrong name");
      }
      CG_CHECK(head.kind == Kind::kDirectory ? below(fd, name, head, depth)
               : head.kind == Kind::kLink    ? link(fd, name, head)
                                             : file(fd, name, head));
    }
  }

 private:
  Status check(const Entry& head) {
    if (++entries_ > kMaxHomeEntries) return damaged("too many files");
    if (head.name_size == 0 || head.name_size > NAME_MAX || (head.mode & ~kKeptMode) != 0 ||
        head.mtime_nsec >= 1'000'000'000) {
      return damaged("a wrong entry");
    }
    bytes_ += head.size;
    if (head.size > kMaxHomeBytes || bytes_ > kMaxHomeBytes) return damaged("too large");
    if (head.kind == Kind::kDirectory ? head.size == 0 : head.kind == Kind::kFile) return ok();
    if (head.kind == Kind::kLink && head.size > 0 && head.size < PATH_MAX) return ok();
    return damaged("a wrong kind of file");
  }

  // A workspace or a file of the operator may be mounted in the home: nothing is written there.
  bool is_ours(int fd) const {
    struct stat s {};
    return ::fstat(fd, &s) == 0 && s.st_dev == device_;
  }

  Status below(int dir, const std::string& name, const Entry& head, size_t depth) {
    if (dir < 0) return directory(-1, depth + 1);
    const bool made = ::mkdirat(dir, name.c_str(), 0700) == 0;
    if (!made && errno != EEXIST) return fail_errno("fill the home", errno);
    const UniqueFd fd(::openat(dir, name.c_str(), kOpenDirectory));
    if (!fd && made) return fail_errno("fill the home", errno);
    CG_CHECK(directory(fd && is_ours(fd.get()) ? fd.get() : -1, depth + 1));
    if (!made) return ok();  // made for a mounted file, which must stay reachable
    if (::fchmod(fd.get(), head.mode) != 0) return fail_errno("fill the home", errno);
    return set_times(dir, name.c_str(), head);
  }

  Status link(int dir, const std::string& name, const Entry& head) {
    std::string target(head.size, '\0');
    CG_CHECK(read_all(in_, target.data(), target.size()));
    if (dir < 0) return ok();
    if (::symlinkat(target.c_str(), dir, name.c_str()) == 0)
      return set_times(dir, name.c_str(), head);
    return errno == EEXIST ? ok() : Status(fail_errno("fill the home", errno));
  }

  Status file(int dir, const std::string& name, const Entry& head) {
    const UniqueFd fd(dir < 0 ? -1 : ::openat(dir, name.c_str(), kNewFile, 0600));
    if (!fd && dir >= 0 && errno != EEXIST) return fail_errno("fill the home", errno);
    std::array<char, kBuffer> buffer{};
    for (uint64_t left = head.size; left > 0;) {
      const size_t part = std::min<uint64_t>(left, buffer.size());
      CG_CHECK(read_all(in_, buffer.data(), part));
      if (fd) CG_CHECK(write_all(fd.get(), buffer.data(), part));
      left -= part;
    }
    if (!fd) return ok();
    if (::fchmod(fd.get(), head.mode) != 0) return fail_errno("fill the home", errno);
    return set_times(dir, name.c_str(), head);
  }

  const int in_;
  dev_t device_ = 0;
  uint64_t bytes_ = 0;
  size_t entries_ = 0;
};

}  // namespace

Status pack_home(int home, const std::vector<std::string>& mounts, const kernel::Label& label,
                 int out) {
  if (::lseek(out, sizeof(Header), SEEK_SET) < 0) return fail_errno("write the kept home", errno);
  CG_CHECK(Packer(mounts, out).directory(home, "", 0));
  const std::string text = label.text();
  const off_t offset = ::lseek(out, 0, SEEK_CUR);
  if (offset < 0) return fail_errno("write the kept home", errno);
  CG_CHECK(write_all(out, text.data(), text.size()));
  if (::fdatasync(out) != 0) return fail_errno("write the kept home", errno);
  const Header header{kMagic, static_cast<uint64_t>(offset), text.size()};
  if (::pwrite(out, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header))
    return fail_errno("write the kept home", errno);
  return ok();
}

Status unpack_home(int in, int home) {
  if (::lseek(in, sizeof(Header), SEEK_SET) < 0) return fail_errno("read the kept home", errno);
  return Unpacker(in).directory(home, 0);
}

Result<kernel::Label> archive_label(int in) {
  Header header;
  if (::lseek(in, 0, SEEK_SET) < 0) return fail_errno("read the kept home", errno);
  CG_CHECK(read_all(in, &header, sizeof header));
  struct stat s {};
  if (::fstat(in, &s) != 0) return fail_errno("read the kept home", errno);
  if (header.magic != kMagic || header.label_size == 0 || header.label_size > kMaxLabelBytes ||
      header.label_offset < sizeof header ||
      header.label_offset + header.label_size != static_cast<uint64_t>(s.st_size)) {
    return damaged("its header is wrong");
  }
  if (::lseek(in, static_cast<off_t>(header.label_offset), SEEK_SET) < 0)
    return fail_errno("read the kept home", errno);
  std::string text(header.label_size, '\0');
  CG_CHECK(read_all(in, text.data(), text.size()));
  return kernel::Label::parse(text);
}

}  // namespace certgate::supervisor
