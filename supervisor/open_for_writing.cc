// Whether anyone has a file open for writing, as the kernel knows it (session.h).
#include <fcntl.h>
#include <unistd.h>

#include "sandbox/fd.h"
#include "supervisor/path_walk.h"
#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

// A FIFO has no leases. Nothing is taken out of it: tee() finds its end only when nobody has it
// open for writing.
bool fifo_at_end(int fd) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return false;
  const sandbox::UniqueFd out(ends[0]), in(ends[1]);
  return ::tee(fd, in.get(), 1, SPLICE_F_NONBLOCK) == 0;
}

}  // namespace

bool open_for_writing(int pin) {
  // A read lease is granted only while nobody has the file open for writing. It is given back at
  // once.
  sandbox::UniqueFd fd(reopen(pin, O_RDONLY | O_NONBLOCK | O_NOCTTY));
  if (!fd) return true;
  if (::fcntl(fd.get(), F_SETLEASE, F_RDLCK) != 0) return !fifo_at_end(fd.get());
  ::fcntl(fd.get(), F_SETLEASE, F_UNLCK);
  return false;
}

}  // namespace certgate::supervisor
