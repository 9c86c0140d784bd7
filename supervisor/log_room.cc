#include "supervisor/log_room.h"

#include <fcntl.h>
#include <sys/statvfs.h>

#include <cerrno>

#include "kernel/mutant.h"

namespace certgate::supervisor {
namespace {

bool means_full(int error) { return error == ENOSPC || error == EDQUOT; }

}  // namespace

Result<bool> LogRoom::has_room(uint64_t size) {
  if (mutant(Mutant::kLogRoom)) return true;
  if (can_reserve_ && size + kReservedBytes <= reserved_) return true;
  // Without reserving, a look costs a system call: once for each quarter of the reserve.
  if (!can_reserve_ && !full() && size - looked_at_ < kReservedBytes / 4) return true;
  looked_at_ = size;
  const uint64_t wanted = size + 2 * kReservedBytes - (can_reserve_ ? reserved_ : size);
  struct statvfs disk {};
  if (::fstatvfs(segment_, &disk) != 0) return fail_errno("look at the log's disk", errno);
  if (uint64_t{disk.f_bavail} * disk.f_frsize < wanted + kLeftForOthers) return false;
  if (!can_reserve_) return true;
  int done = 0;
  do {
    done = ::fallocate(segment_, FALLOC_FL_KEEP_SIZE, static_cast<off_t>(reserved_),
                       static_cast<off_t>(wanted));
  } while (done != 0 && errno == EINTR);
  if (done == 0) {
    reserved_ += wanted;
    return true;
  }
  if (means_full(errno)) return false;
  if (errno != EOPNOTSUPP && errno != ENOSYS) return fail_errno("reserve room for records", errno);
  can_reserve_ = false;
  return true;
}

Result<LogRoom::Change> LogRoom::keep(uint64_t size) {
  CG_TRY(const bool room, has_room(size));
  if (room != full()) return Change::kSame;
  full_.store(!room, std::memory_order_relaxed);
  return room ? Change::kRoomAgain : Change::kFull;
}

}  // namespace certgate::supervisor
