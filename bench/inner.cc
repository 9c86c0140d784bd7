#include "bench/inner.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <sstream>
#include <thread>

#include "sandbox/fd.h"

namespace certgate::bench {
namespace {

using sandbox::UniqueFd;

constexpr const char* kResultWord = "certgate-bench-result";
constexpr size_t kMaxOperations = 10'000'000;
// Nothing measured here takes as long; a call that is never answered must not hang the benchmark.
constexpr unsigned kGiveUpSeconds = 100;

uint64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(t.tv_nsec);
}

// What two readings of the clock cost at least: it is in every sample, and is taken out again.
uint64_t clock_cost() {
  uint64_t best = std::numeric_limits<uint64_t>::max();
  for (int i = 0; i < 2000; ++i) {
    const uint64_t start = now_ns();
    best = std::min(best, now_ns() - start);
  }
  return best;
}

Timing summarise(std::vector<uint64_t>& samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    const auto index = static_cast<size_t>(share * static_cast<double>(samples.size() - 1) + 0.5);
    return static_cast<double>(samples[index]);
  };
  double sum = 0;
  for (const uint64_t sample : samples) sum += static_cast<double>(sample);
  return {at(0.50), at(0.99), sum / static_cast<double>(samples.size())};
}

struct Loop {
  size_t count = 0, warm_up = 0;
};

// `timed` is the operation; `after` clears up behind it, off the clock. Both return an errno.
template <typename Timed, typename After>
Result<Timing> measure(const Loop& loop, const std::string& what, Timed timed, After after) {
  const uint64_t cost = clock_cost();
  std::vector<uint64_t> samples(loop.count);   // touched here: no page faults on the clock
  for (size_t i = 0; i < loop.warm_up + loop.count; ++i) {
    const uint64_t start = now_ns();
    const int error = timed();
    const uint64_t taken = now_ns() - start;
    if (error != 0) return fail_errno(what, error);
    if (const int late = after(); late != 0) return fail_errno(what, late);
    if (i >= loop.warm_up) samples[i - loop.warm_up] = taken > cost ? taken - cost : 0;
  }
  return summarise(samples);
}

Result<Timing> measure_open(const Loop& loop, const std::string& file) {
  const char* path = file.c_str();
  const auto open_and_close = [path] {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    return ::close(fd) == 0 ? 0 : errno;
  };
  return measure(loop, "open " + file, open_and_close, [] { return 0; });
}

// One whole connection of a client. Lingering is off, so that thousands of them leave no TIME_WAIT
// behind and the local ports do not run out.
int connect_and_close(const sockaddr_in& to) {
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return errno;
  const linger reset{1, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  sockaddr generic{};
  static_assert(sizeof generic == sizeof to);
  std::memcpy(&generic, &to, sizeof to);
  return ::connect(socket.get(), &generic, sizeof generic) == 0 ? 0 : errno;
}

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

Result<Timing> measure_connect(const Loop& loop, uint16_t port) {
  const sockaddr_in to = loopback(port);
  return measure(loop, "connect", [&to] { return connect_and_close(to); }, [] { return 0; });
}

Result<Timing> measure_connect_own(const Loop& loop) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener) return fail_errno("make a socket", errno);
  const sockaddr_in any_port = loopback(0);
  sockaddr generic{};
  std::memcpy(&generic, &any_port, sizeof generic);
  socklen_t size = sizeof generic;
  if (::bind(listener.get(), &generic, sizeof generic) != 0 || ::listen(listener.get(), 64) != 0 ||
      ::getsockname(listener.get(), &generic, &size) != 0) {
    return fail_errno("listen on the own loopback", errno);
  }
  sockaddr_in to{};
  std::memcpy(&to, &generic, sizeof to);
  // The connection is complete without accept, so one thread can be both ends.
  const auto take = [&listener] {
    const UniqueFd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    return peer ? 0 : errno;
  };
  return measure(loop, "connect to the own loopback", [&to] { return connect_and_close(to); }, take);
}

Result<Timing> measure_spawn(const Loop& loop, int wanted, const std::vector<std::string>& command) {
  std::vector<std::string> copy = command;
  std::vector<char*> argv;
  for (std::string& arg : copy) argv.push_back(arg.data());
  argv.push_back(nullptr);
  int status = 0;
  const auto spawn_and_wait = [&] {
    pid_t child = -1;
    if (const int error = ::posix_spawn(&child, argv[0], nullptr, nullptr, argv.data(), environ)) return error;
    while (::waitpid(child, &status, 0) < 0) {
      if (errno != EINTR) return errno;
    }
    return 0;
  };
  bool as_wanted = true;
  const auto check = [&] {
    as_wanted = WIFEXITED(status) && WEXITSTATUS(status) == wanted;
    return as_wanted ? 0 : ECANCELED;
  };
  auto timing = measure(loop, "spawn " + command[0], spawn_and_wait, check);
  if (as_wanted) return timing;
  return WIFEXITED(status) ? fail(command[0] + " ended with status " + std::to_string(WEXITSTATUS(status)))
                           : fail(command[0] + " was ended by signal " + std::to_string(WTERMSIG(status)));
}

Result<size_t> number(const std::string& text, size_t max) {
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > max) {
    return fail("not a number up to " + std::to_string(max) + ": " + text);
  }
  return value;
}

// Opens and closes in so many threads at once, for as long as it is let. Says when all have begun.
Status flood(size_t threads, const std::string& file) {
  std::atomic<size_t> begun = 0;
  for (size_t i = 0; i < threads; ++i) {
    std::thread([&begun, path = file.c_str()] {
      for (bool first = true;; first = false) {
        const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) ::_exit(1);
        ::close(fd);
        begun += first;
      }
    }).detach();
  }
  while (begun < threads) ::usleep(1000);
  if (::write(STDOUT_FILENO, "r", 1) != 1) return fail_errno("say that all threads have begun", errno);
  for (;;) ::pause();   // until a signal, or the alarm
}

Result<Timing> run_verb(const std::vector<std::string>& args) {
  if (args.size() < 3) return fail("usage: --inner VERB COUNT WARM-UP [ARG…]");
  Loop loop;
  CG_TRY(loop.count, number(args[1], kMaxOperations));
  CG_TRY(loop.warm_up, number(args[2], kMaxOperations));
  if (loop.count == 0) return fail("nothing to measure: the count is 0");
  if (args[0] == "open" && args.size() == 4) return measure_open(loop, args[3]);
  if (args[0] == "connect" && args.size() == 4) {
    CG_TRY(const size_t port, number(args[3], 65535));
    return measure_connect(loop, static_cast<uint16_t>(port));
  }
  if (args[0] == "flood" && args.size() == 4) {
    CG_CHECK(flood(loop.count, args[3]));
    return Timing{};
  }
  if (args[0] == "connect-own" && args.size() == 3) return measure_connect_own(loop);
  if (args[0] == "spawn" && args.size() >= 5) {
    CG_TRY(const size_t status, number(args[3], 255));
    return measure_spawn(loop, static_cast<int>(status), {args.begin() + 4, args.end()});
  }
  return fail("no such measurement: " + args[0]);
}

}  // namespace

int inner_main(const std::vector<std::string>& args) {
  ::alarm(kGiveUpSeconds);
  const auto timing = run_verb(args);
  if (!timing) {
    std::fprintf(stderr, "certgate-bench: %s\n", timing.error().what.c_str());
    return 1;
  }
  std::printf("%s %.0f %.0f %.0f\n", kResultWord, timing->median_ns, timing->p99_ns, timing->mean_ns);
  return std::fflush(stdout) == 0 ? 0 : 1;
}

Result<Timing> parse_timing(const std::string& output) {
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    Timing timing;
    if (words >> word >> timing.median_ns >> timing.p99_ns >> timing.mean_ns && word == kResultWord) return timing;
  }
  return fail("the inner loop printed no result");
}

}  // namespace certgate::bench
