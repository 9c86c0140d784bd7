#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "sandbox/child_plan.h"

// Runs between clone() and the agent's exec: no allocation.
namespace certgate::sandbox {
namespace {

constexpr int kStreams = 3;
constexpr unsigned kStdin = 1u << STDIN_FILENO;

Failure open_master(UniqueFd& master, char* name, size_t size) {
  master.reset(open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master) return fail_step(Step::kTerminal, "/dev/ptmx");
  int number = -1, locked = 0;
  if (ioctl(master.get(), TIOCGPTN, &number) != 0 ||
      ioctl(master.get(), TIOCSPTLCK, &locked) != 0) {
    return fail_step(Step::kTerminal, "(unlock)");
  }
  std::snprintf(name, size, "/dev/pts/%d", number);
  return {};
}

}  // namespace

Failure start_session(unsigned streams, UniqueFd& master) {
  if (setsid() < 0) return fail_step(Step::kTerminal, "(setsid)");
  if (streams == 0) return {};
  char name[32];
  if (const Failure failure = open_master(master, name, sizeof name)) return failure;
  UniqueFd slave(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) return fail_step(Step::kTerminal, name);
  if (ioctl(slave.get(), TIOCSCTTY, 0) != 0) return fail_step(Step::kTerminal, "(control)");
  // What a person types is for whoever asked for it: without a terminal as stdin, reading needs an
  // open of /dev/tty, and that is judged.
  if ((streams & kStdin) == 0) slave.reset(open(name, O_WRONLY | O_NOCTTY | O_CLOEXEC));
  if (!slave) return fail_step(Step::kTerminal, name);
  for (int fd = 0; fd < kStreams; ++fd) {
    if ((streams & (1u << fd)) == 0) continue;
    if (dup2(slave.get(), fd) != fd) return fail_step(Step::kTerminal, "(streams)");
  }
  return {};
}

}  // namespace certgate::sandbox
