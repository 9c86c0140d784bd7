#include "bench/runner.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include "sandbox/wire.h"

namespace certgate::bench {
namespace {

using sandbox::UniqueFd;

constexpr int kPatienceMs = 120'000;   // the inner loop gives up by itself before this
constexpr size_t kMaxOutput = 64 * 1024;
constexpr size_t kMaxComplaint = 300;
constexpr int kExitNotStarted = 127;

volatile sig_atomic_t interrupt = 0;
void on_interrupt(int) { interrupt = 1; }

// Keeps this thread, and what it forks meanwhile, on one CPU.
class Pin {
 public:
  explicit Pin(int cpu) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(cpu), &one);
    if (::sched_getaffinity(0, sizeof old_, &old_) != 0 || ::sched_setaffinity(0, sizeof one, &one) != 0) {
      error_ = errno;
    }
  }
  ~Pin() {
    if (error_ == 0) ::sched_setaffinity(0, sizeof old_, &old_);
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
  int error() const { return error_; }

 private:
  cpu_set_t old_{};
  int error_ = 0;
};

struct Pipes {
  UniqueFd out_read, out_write;       // the inner loop's result
  UniqueFd wire_parent, wire_child;   // the listener comes to us here
  UniqueFd input, errors;
};

Result<Pipes> make_pipes(const Scene& scene) {
  Pipes p;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("make a pipe", errno);
  p.out_read.reset(ends[0]);
  p.out_write.reset(ends[1]);
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) return fail_errno("make a socket", errno);
  p.wire_parent.reset(ends[0]);
  p.wire_child.reset(ends[1]);
  p.input.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  p.errors.reset(::open(scene.error_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (!p.input || !p.errors) return fail_errno("open " + scene.error_file, errno);
  return p;
}

// In the child: only async-signal-safe calls.
[[noreturn]] void become_job(const Job& job, const Pipes& pipes, char* const* argv, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(kExitNotStarted);
  if (::dup2(pipes.input.get(), STDIN_FILENO) < 0 || ::dup2(pipes.out_write.get(), STDOUT_FILENO) < 0 ||
      ::dup2(pipes.errors.get(), STDERR_FILENO) < 0) {
    ::_exit(kExitNotStarted);
  }
  if (job.trap != Trap::kNone) {
    const int listener = install_trap(job.trap);
    if (sandbox::send_message(pipes.wire_child.get(), &listener, sizeof listener, listener) != 0 || listener < 0) {
      ::_exit(kExitNotStarted);
    }
    ::close(listener);
  }
  ::execv(argv[0], argv);
  const char* why = std::strerror(errno);   // a constant of the C library for every errno of exec
  if (::write(STDERR_FILENO, why, std::strlen(why)) < 0) ::_exit(kExitNotStarted);
  ::_exit(kExitNotStarted);
}

// What the job said on stderr: the first line is most often the cause, the last one the consequence.
std::string complaint(const Scene& scene) {
  std::ifstream in(scene.error_file);
  std::string first, last;
  for (std::string line; std::getline(in, line);) {
    if (line.empty()) continue;
    last = line.substr(0, kMaxComplaint);
    if (first.empty()) first = last;
  }
  return first == last ? last : first + " ... " + last;
}

int64_t now_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000 + t.tv_nsec / 1'000'000;
}

// Reads to the end of the output, or until patience ends.
Result<std::string> read_output(int fd) {
  std::string out;
  const int64_t until = now_ms() + kPatienceMs;
  for (;;) {
    const int64_t left = until - now_ms();
    pollfd ready{fd, POLLIN, 0};
    if (interrupted()) return fail("interrupted");
    if (left <= 0) return fail("did not finish in " + std::to_string(kPatienceMs / 1000) + " s");
    const int got = ::poll(&ready, 1, static_cast<int>(left));
    if (got < 0 && errno != EINTR) return fail_errno("wait for the result", errno);
    if (got <= 0) continue;
    char room[4096];
    const ssize_t size = ::read(fd, room, sizeof room);
    if (size == 0) return out;
    if (size < 0 && errno != EINTR) return fail_errno("read the result", errno);
    if (size > 0) out.append(room, static_cast<size_t>(size));
    if (out.size() > kMaxOutput) return fail("printed more than a result");
  }
}

Result<FloorReport> serve(const Job& job, const Pipes& pipes, pid_t child, const Scene& scene) {
  int listener = -1;
  UniqueFd fd;
  const ssize_t got = sandbox::receive_message(pipes.wire_parent.get(), &listener, sizeof listener, fd);
  if (got == static_cast<ssize_t>(sizeof listener) && listener < 0) {
    return fail_errno("install a seccomp listener (EBUSY: another one is above us)", -listener);
  }
  if (got != static_cast<ssize_t>(sizeof listener) || !fd) return fail("the traced program did not start");
  return serve_floor(job.trap, std::move(fd), child, scene.record_log.get());
}

Error ended_badly(int status, const Scene& scene) {
  const std::string said = complaint(scene);
  if (!said.empty()) return fail(said);
  return WIFSIGNALED(status) ? fail("ended by signal " + std::to_string(WTERMSIG(status)))
                             : fail("exit status " + std::to_string(WEXITSTATUS(status)));
}

Result<Sample> follow(const Job& job, Pipes& pipes, pid_t child, const Scene& scene) {
  Sample sample;
  pipes.out_write.reset();
  pipes.wire_child.reset();
  Status served = ok();
  if (job.trap != Trap::kNone) {
    const auto report = serve(job, pipes, child, scene);
    if (report) sample.same_cpu = report->same_cpu;
    else served = report.error();
  }
  Result<std::string> output = served ? read_output(pipes.out_read.get()) : Result<std::string>(served.error());
  if (!output) ::kill(child, SIGKILL);   // ours, and not reaped yet
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!output) return output.error();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return ended_badly(status, scene);
  CG_TRY(sample.timing, parse_timing(*output));
  return sample;
}

// A program that runs beside a job.
class Companion {
 public:
  static Result<Companion> start(const std::vector<std::string>& command, const Scene& scene) {
    Job job;
    job.argv = command;
    CG_TRY(Pipes pipes, make_pipes(scene));
    std::vector<std::string> copy = command;
    std::vector<char*> argv;
    for (std::string& arg : copy) argv.push_back(arg.data());
    argv.push_back(nullptr);
    const pid_t parent = ::getpid();
    Companion made;
    made.pid_ = ::fork();
    if (made.pid_ < 0) return fail_errno("start a process", errno);
    if (made.pid_ == 0) become_job(job, pipes, argv.data(), parent);
    pipes.out_write.reset();
    pollfd ready{pipes.out_read.get(), POLLIN, 0};
    char byte = 0;
    while (::poll(&ready, 1, kPatienceMs) < 0 && errno == EINTR && !interrupted()) {
    }
    if (::read(pipes.out_read.get(), &byte, 1) != 1) return fail("what runs beside did not begin: " + complaint(scene));
    return made;
  }
  Companion() = default;
  Companion(Companion&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
  Companion& operator=(Companion&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }
  Companion(const Companion&) = delete;
  Companion& operator=(const Companion&) = delete;
  ~Companion() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGTERM);   // ours, and not reaped yet; its own alarm ends it at the latest
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

 private:
  pid_t pid_ = -1;
};

}  // namespace

void watch_interrupts() {
  struct sigaction action{};
  action.sa_handler = on_interrupt;   // no SA_RESTART: waiting ends
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

bool interrupted() { return interrupt != 0; }

Result<int> pinned_cpu() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return fail_errno("ask for the CPUs", errno);
  for (int cpu = CPU_SETSIZE - 1; cpu >= 0; --cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &set)) return cpu;
  }
  return fail("no CPU to run on");
}

Result<Sample> run_job(const Job& job, const Scene& scene) {
  CG_TRY(const int cpu, pinned_cpu());
  std::optional<Companion> beside;
  if (!job.beside.empty()) {
    CG_TRY(beside, Companion::start(job.beside, scene));
  }
  CG_TRY(Pipes pipes, make_pipes(scene));
  std::vector<std::string> copy = job.argv;
  std::vector<char*> argv;
  for (std::string& arg : copy) argv.push_back(arg.data());
  argv.push_back(nullptr);
  std::optional<Pin> pin;
  if (job.pinned) pin.emplace(cpu);
  if (pin && pin->error() != 0) return fail_errno("stay on CPU " + std::to_string(cpu), pin->error());
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail_errno("start a process", errno);
  if (child == 0) become_job(job, pipes, argv.data(), parent);
  return follow(job, pipes, child, scene);
}

}  // namespace certgate::bench
