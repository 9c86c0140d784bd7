#include "supervisor/exit_watch.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "sandbox/fd.h"
#include "supervisor/process_stat.h"
#include "supervisor/recorder.h"

namespace certgate::supervisor {
namespace {

namespace asio = boost::asio;

// Of Linux 6.15; Debian 12's headers have neither.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroup;
  uint32_t pid, tgid, ppid, ids[8];
  int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned long kPidfdGetInfo = _IOWR(0xFF, 11, PidfdInfo);
constexpr uint64_t kPidfdInfoExit = 1 << 3;

// Known to the kernel once somebody, or nobody any more, has waited for the process.
std::optional<int> status_after_wait(int pidfd) {
  PidfdInfo info{};
  info.mask = kPidfdInfoExit;
  if (::ioctl(pidfd, kPidfdGetInfo, &info) != 0 || (info.mask & kPidfdInfoExit) == 0)
    return std::nullopt;
  return info.exit_code;
}

std::optional<int> status_before_wait(int pid, uint64_t started) {
  const auto stat = process_stat(pid);
  if (!stat || stat->state != 'Z' || stat->field[kStatStarted] != started) return std::nullopt;
  return static_cast<int>(stat->field[kStatExit]);
}

bool has_ended(int pidfd) {
  pollfd one{pidfd, POLLIN, 0};
  return ::poll(&one, 1, 0) > 0;
}

size_t most_watched() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return 0;
  return std::min<size_t>(kMaxWatched, files.rlim_cur / 4);
}

}  // namespace

std::optional<int> wait_status_of(int pidfd, int pid, uint64_t started) {
  if (!has_ended(pidfd)) return std::nullopt;
  if (const auto status = status_after_wait(pidfd)) return status;
  if (const auto status = status_before_wait(pid, started)) return status;
  return status_after_wait(pidfd);  // its parent came in between
}

struct ExitWatch::Impl : std::enable_shared_from_this<Impl> {
  Impl(asio::io_context& context, Recorder& to, std::function<void(const std::string&)> failed)
      : io(context), recorder(to), on_failure(std::move(failed)), most(most_watched()) {}

  using Process = std::pair<int, uint64_t>;  // pid, start time
  struct Started {
    Process process;
    uint64_t exec = 0;
    sandbox::UniqueFd pidfd;
  };
  struct Watched {
    uint64_t exec = 0;
    asio::posix::stream_descriptor pidfd;
  };

  // New ones wait here for the io thread.
  void take_started() {
    std::vector<Started> taken;
    {
      const std::lock_guard lock(mutex);
      taken.swap(started);
    }
    for (Started& one : taken) {
      if (const auto known = watched.find(one.process); known != watched.end()) {
        known->second.exec = one.exec;
        --held;
        continue;
      }
      const auto [at, made] = watched.try_emplace(
          one.process, Watched{one.exec, asio::posix::stream_descriptor(io, one.pidfd.release())});
      at->second.pidfd.async_wait(
          asio::posix::stream_descriptor::wait_read,
          [self = shared_from_this(), process = one.process](const boost::system::error_code& e) {
            if (!e) self->ended(process);
          });
    }
  }

  void ended(const Process& process) {
    const auto found = watched.find(process);
    if (found == watched.end()) return;
    kernel::Record record;
    record.kind = kernel::RecordKind::kExit;
    record.pid = static_cast<uint32_t>(process.first);
    record.started = process.second;
    record.exec = found->second.exec;
    const auto status =
        wait_status_of(found->second.pidfd.native_handle(), process.first, process.second);
    if (status) record.count = 1 + static_cast<uint64_t>(static_cast<uint32_t>(*status));
    watched.erase(found);
    --held;
    const auto done = recorder.append(std::move(record), kernel::Durability::kOrdered);
    if (!done && on_failure) on_failure(done.error().what);
  }

  asio::io_context& io;
  Recorder& recorder;
  const std::function<void(const std::string&)> on_failure;
  const size_t most;
  std::atomic<size_t> held{0};  // descriptors, waiting or watched
  std::mutex mutex;             // guards the next
  std::vector<Started> started;
  std::map<Process, Watched> watched;  // the io thread's
};

ExitWatch::ExitWatch(asio::io_context& io, Recorder& recorder,
                     std::function<void(const std::string&)> on_failure)
    : impl_(std::make_shared<Impl>(io, recorder, std::move(on_failure))) {}

ExitWatch::~ExitWatch() { impl_->watched.clear(); }

void ExitWatch::watch(int pid, uint64_t started, uint64_t exec) {
  if (impl_->held.fetch_add(1) >= impl_->most) {
    --impl_->held;
    return;
  }
  sandbox::UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) {
    --impl_->held;
    return;
  }
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->started.push_back({{pid, started}, exec, std::move(pidfd)});
  }
  asio::post(impl_->io, [impl = impl_] { impl->take_started(); });
}

void ExitWatch::finish() {
  impl_->take_started();
  std::vector<Impl::Process> over;
  for (auto& [process, watched] : impl_->watched) {
    if (has_ended(watched.pidfd.native_handle())) over.push_back(process);
  }
  for (const Impl::Process& process : over) impl_->ended(process);
}

}  // namespace certgate::supervisor
