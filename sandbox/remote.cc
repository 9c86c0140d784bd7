#include "sandbox/remote.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace certgate::sandbox {
namespace {

constexpr size_t kPage = 4096;

// Reads up to the end of the page that holds `address`: a string may end just before an unmapped
// one.
ssize_t read_some(int tid, uint64_t address, char* out, size_t size) {
  iovec local{out, size};
  iovec remote{reinterpret_cast<void*>(address), size};  // NOLINT: an address in another process
  return ::process_vm_readv(tid, &local, 1, &remote, 1, 0);
}

std::vector<uint32_t> numbers(std::string_view line) {
  std::vector<uint32_t> out;
  size_t at = 0;
  while (at < line.size()) {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(line.data() + at, line.data() + line.size(), value);
    if (error == std::errc()) {
      out.push_back(value);
      at = static_cast<size_t>(end - line.data());
    } else {
      ++at;
    }
  }
  return out;
}

// The signal masks of /proc/<tid>/status.
struct SignalSets {
  int tgid = 0;
  uint64_t thread = 0, process = 0, blocked = 0;
};

bool signal_sets(int tid, SignalSets& out) {
  const auto text = read_file("/proc/" + std::to_string(tid) + "/status", 65536);
  if (!text) return false;
  const auto field = [&](const char* name, int base) -> uint64_t {
    const size_t at = text->find(name);
    return at == std::string::npos
               ? 0
               : std::strtoull(text->c_str() + at + std::strlen(name), nullptr, base);
  };
  out.tgid = static_cast<int>(field("\nTgid:", 10));
  out.thread = field("\nSigPnd:", 16);
  out.process = field("\nShdPnd:", 16);
  out.blocked = field("\nSigBlk:", 16);
  return out.tgid != 0;
}

}  // namespace

int read_memory(int tid, uint64_t address, void* out, size_t size) {
  const ssize_t n = read_some(tid, address, static_cast<char*>(out), size);
  return n == static_cast<ssize_t>(size) ? 0 : EFAULT;
}

Result<RemoteWriter> RemoteWriter::open(int tid) {
  const std::string path = "/proc/" + std::to_string(tid) + "/mem";
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return fail_errno("open the memory of the caller", errno);
  return RemoteWriter(std::move(fd));
}

int RemoteWriter::write(uint64_t address, const void* data, size_t size) const {
  if (address > static_cast<uint64_t>(INT64_MAX)) return EFAULT;
  const ssize_t n = ::pwrite(memory_.get(), data, size, static_cast<off_t>(address));
  return n == static_cast<ssize_t>(size) ? 0 : EFAULT;
}

int read_string(int tid, uint64_t address, size_t max, std::string& out) {
  out.clear();
  char buffer[kPage];
  while (out.size() < max) {
    const size_t to_page_end = kPage - address % kPage;
    // Most paths are short: a first read of 256 bytes is cheaper than a page.
    const size_t want =
        std::min({to_page_end, max - out.size(), out.empty() ? size_t{256} : kPage});
    const ssize_t n = read_some(tid, address, buffer, want);
    if (n <= 0) return EFAULT;
    const void* nul = std::memchr(buffer, 0, static_cast<size_t>(n));
    if (nul != nullptr) {
      out.append(buffer, static_cast<size_t>(static_cast<const char*>(nul) - buffer));
      return 0;
    }
    out.append(buffer, static_cast<size_t>(n));
    address += static_cast<uint64_t>(n);
  }
  return ENAMETOOLONG;
}

namespace {

// Argument strings lie close together: one page read serves many of them.
class Pages {
 public:
  explicit Pages(int tid) : tid_(tid) {}
  // The bytes of the page of `address` from there on; empty when it cannot be read.
  std::string_view from(uint64_t address) {
    const uint64_t page = address & ~uint64_t{kPage - 1};
    Slot& slot = slots_[(page / kPage) % std::size(slots_)];
    if (slot.page != page || slot.size == 0) {
      const ssize_t n = read_some(tid_, page, slot.bytes, kPage);
      slot.page = page;
      slot.size = n > 0 ? static_cast<size_t>(n) : 0;
    }
    const size_t at = address - page;
    if (at >= slot.size) return {};
    return {slot.bytes + at, slot.size - at};
  }

 private:
  struct Slot {
    uint64_t page = 1;  // no page starts there
    size_t size = 0;
    char bytes[kPage];
  };
  const int tid_;
  Slot slots_[4];
};

int copy_string(Pages& pages, uint64_t address, size_t max, std::string& out) {
  while (out.size() < max) {
    const std::string_view here = pages.from(address).substr(0, max - out.size());
    if (here.empty()) return EFAULT;
    const size_t nul = here.find('\0');
    out.append(here.substr(0, nul));
    if (nul != std::string_view::npos) return 0;
    address += here.size();
  }
  return E2BIG;
}

int copy_pointer(Pages& pages, uint64_t address, uint64_t& out) {
  char bytes[sizeof out];
  for (size_t i = 0; i < sizeof out;) {  // a vector need not be aligned
    const std::string_view here = pages.from(address + i).substr(0, sizeof out - i);
    if (here.empty()) return EFAULT;
    std::memcpy(bytes + i, here.data(), here.size());
    i += here.size();
  }
  std::memcpy(&out, bytes, sizeof out);
  return 0;
}

}  // namespace

int read_strings(int tid, uint64_t address, size_t max_count, size_t max_bytes,
                 std::vector<std::string>& out) {
  out.clear();
  if (address == 0) return 0;  // Linux takes a null vector for an empty one
  Pages pages(tid);
  size_t total = 0;
  for (size_t i = 0; i <= max_count; ++i) {
    uint64_t pointer = 0;
    if (int error = copy_pointer(pages, address + i * sizeof pointer, pointer)) return error;
    if (pointer == 0) return 0;
    if (i == max_count) return E2BIG;
    std::string text;
    if (int error = copy_string(pages, pointer, max_bytes - total + 1, text)) return error;
    total += text.size() + 1;
    if (total > max_bytes) return E2BIG;
    out.push_back(std::move(text));
  }
  return E2BIG;
}

Result<std::string> read_file(const std::string& path, size_t max) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  if (!fd) return fail_errno("open " + path, errno);
  std::string out;
  char buffer[16384];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read " + path, errno);
    if (n == 0) return out;
    if (out.size() + static_cast<size_t>(n) > max)
      return fail("read " + path + ": too long", EFBIG);
    out.append(buffer, static_cast<size_t>(n));
  }
}

bool signal_waits(int tid) {
  SignalSets own;
  if (!signal_sets(tid, own)) return false;
  if ((own.thread & ~own.blocked) != 0) return true;
  const uint64_t shared = own.process & ~own.blocked;
  if (shared == 0 || own.tgid == tid) return shared != 0;
  // The kernel wakes the leader for it, unless the leader blocks it.
  SignalSets leader;
  return signal_sets(own.tgid, leader) && (shared & leader.blocked) != 0;
}

Result<uint64_t> file_size_limit(int tid) {
  constexpr std::string_view kName = "Max file size";
  CG_TRY(const std::string text, read_file("/proc/" + std::to_string(tid) + "/limits", 65536));
  const size_t at = text.find(kName);
  if (at == std::string::npos) return fail("/proc/" + std::to_string(tid) + "/limits has no file size", ESRCH);
  const size_t value = text.find_first_not_of(' ', at + kName.size());
  if (value == std::string::npos || text.compare(value, 9, "unlimited") == 0) return UINT64_MAX;
  return std::strtoull(text.c_str() + value, nullptr, 10);
}

Result<TaskFacts> task_facts(int tid) {
  CG_TRY(const std::string text, read_file("/proc/" + std::to_string(tid) + "/status", 65536));
  TaskFacts facts;
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string_view line(text.data() + at, end - at);
    at = end + 1;
    if (line.starts_with("Umask:")) {
      facts.umask = static_cast<mode_t>(std::strtoul(line.data() + 6, nullptr, 8));
    } else if (line.starts_with("Uid:")) {
      facts.uids = numbers(line);
    } else if (line.starts_with("Gid:")) {
      facts.gids = numbers(line);
    } else if (line.starts_with("NStgid:")) {
      const auto all = numbers(line);
      if (!all.empty()) {
        facts.tgid = static_cast<pid_t>(all.front());
        facts.inner_tgid = static_cast<pid_t>(all.back());
      }
    } else if (line.starts_with("NSpid:")) {
      const auto all = numbers(line);
      if (!all.empty()) facts.inner_tid = static_cast<pid_t>(all.back());
    }
  }
  if (facts.tgid == 0 || facts.inner_tid == 0) {
    return fail("/proc/" + std::to_string(tid) + "/status lacks NStgid: is /proc masked?", ESRCH);
  }
  return facts;
}

Result<UniqueFd> open_task_link(int tid, const std::string& what) {
  const std::string path = "/proc/" + std::to_string(tid) + "/" + what;
  UniqueFd fd(::open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) return fail_errno("open " + path, errno);
  return fd;
}

}  // namespace certgate::sandbox
