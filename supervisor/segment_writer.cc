#include "supervisor/segment_writer.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>

namespace certgate::supervisor {
namespace {

constexpr size_t kLengthBytes = 4;
constexpr uint64_t kPage = 4096;
constexpr decltype(statfs::f_type) kXfs = 0x58465342;  // not in linux/magic.h of every release
constexpr decltype(statfs::f_type) kMapped[] = {EXT4_SUPER_MAGIC, kXfs, TMPFS_MAGIC};

Result<uint64_t> size_of(int fd) {
  struct stat s {};
  if (::fstat(fd, &s) != 0) return fail_errno("look at the log segment", errno);
  return static_cast<uint64_t>(s.st_size);
}

}  // namespace

bool keeps_reserved_blocks(int fd) {
  struct statfs disk {};
  return ::fstatfs(fd, &disk) == 0 &&
         std::find(std::begin(kMapped), std::end(kMapped), disk.f_type) != std::end(kMapped);
}

SegmentWriter::SegmentWriter(sandbox::UniqueFd segment)
    : segment_(std::move(segment)),
      found_(size_of(segment_.get())),
      size_(found_ ? *found_ : 0),
      room_(segment_.get(), size_),
      can_map_((::fcntl(segment_.get(), F_GETFL) & O_ACCMODE) == O_RDWR &&
               keeps_reserved_blocks(segment_.get())) {}

SegmentWriter::~SegmentWriter() { unmap(); }

void SegmentWriter::unmap() {
  if (map_ != nullptr) ::munmap(map_, map_end_ - map_begin_);
  map_ = nullptr;
}

// The blocks are there already; the file is made as long only now that they can be reached.
Status SegmentWriter::map_reserved() {
  const uint64_t begin = size_ / kPage * kPage, end = room_.reserved();
  void* map = ::mmap(nullptr, end - begin, PROT_READ | PROT_WRITE, MAP_SHARED, segment_.get(),
                     static_cast<off_t>(begin));
  if (map == MAP_FAILED) return fail_errno("map the log segment", errno);
  unmap();
  map_ = static_cast<uint8_t*>(map);
  map_begin_ = begin;
  map_end_ = end;
  if (::madvise(map, end - begin, MADV_DONTFORK) != 0)
    return fail_errno("keep the log segment out of children", errno);
  if (::ftruncate(segment_.get(), static_cast<off_t>(end)) != 0)
    return fail_errno("make the log segment as long as what is reserved", errno);
  return ok();
}

Result<LogRoom::Change> SegmentWriter::keep_room() {
  if (!found_) return found_.error();
  CG_TRY(const LogRoom::Change change, room_.keep(size_));
  if (can_map_ && room_.reserved() > std::max(map_end_, size_)) CG_CHECK(map_reserved());
  return change;
}

Status SegmentWriter::append(std::span<const uint8_t> frame) {
  if (!found_) return found_.error();
  if (map_ == nullptr) {
    // One write per frame: a short write leaves a torn frame behind, so nothing may follow it.
    const ssize_t n = ::write(segment_.get(), frame.data(), frame.size());
    if (n != static_cast<ssize_t>(frame.size()))
      return fail_errno("append to the log segment (is the disk full?)", n < 0 ? errno : ENOSPC);
    size_ += frame.size();
    return ok();
  }
  if (frame.size() > map_end_ - size_)
    return fail("append to the log segment: what was reserved on the disk is used up", ENOSPC);
  uint8_t* const at = map_ + (size_ - map_begin_);
  std::memcpy(at + kLengthBytes, frame.data() + kLengthBytes, frame.size() - kLengthBytes);
  // Not aligned, so not atomic for who reads meanwhile: he reads again (LogStore).
  std::atomic_thread_fence(std::memory_order_release);
  std::memcpy(at, frame.data(), kLengthBytes);
  size_ += frame.size();
  return ok();
}

Status SegmentWriter::sync() {
  if (::fdatasync(segment_.get()) != 0) return fail_errno("fdatasync of the log segment", errno);
  return ok();
}

}  // namespace certgate::supervisor
