// Content digests of executables, cached by (device, inode, mtime, ctime, size). A digest enters
// the cache only when no later change can go unseen: the agent cannot write the file at all, or
// nobody had it open for writing when it was read and its ctime is older than the clock's
// granularity.
#pragma once

#include <map>
#include <mutex>

#include "kernel/result.h"
#include "supervisor/path_walk.h"

namespace certgate::supervisor {

inline constexpr uint64_t kMaxExecutableBytes = 2ull << 30;
inline constexpr size_t kMaxCachedDigests = 4096;

class ContentDigests {
 public:
  explicit ContentDigests(uid_t agent) : agent_(agent) {}
  // SHA-256 of an open, readable regular file. error.code is the errno.
  Result<kernel::Digest> of(int fd, const ObjectFacts& facts);

 private:
  // Whether the agent could change this file's content (its owner, its mode or its mount lets it).
  bool agent_can_write(int fd, const ObjectFacts& facts) const;

  struct Key {
    dev_t dev;
    ino_t ino;
    int64_t mtime_ns, ctime_ns;
    uint64_t size;
    auto operator<=>(const Key&) const = default;
  };
  const uid_t agent_;
  std::mutex mutex_;  // guards cache_
  std::map<Key, kernel::Digest> cache_;
};

}  // namespace certgate::supervisor
