#include "supervisor/content.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

// Longer than the granularity of any file system's timestamps.
constexpr int64_t kSettledNs = 2'000'000'000;

Result<kernel::Digest> hash_file(int fd, uint64_t size) {
  if (size > kMaxExecutableBytes) return fail("an executable larger than 2 GiB", EFBIG);
  static EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  if (sha256 == nullptr || !ctx || EVP_DigestInit_ex(ctx.get(), sha256, nullptr) != 1) {
    return fail("SHA-256 is not available in this OpenSSL", EIO);
  }
  std::vector<unsigned char> buffer(size < 65536 ? size + 1 : 262144);
  uint64_t at = 0;
  for (;;) {
    const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno("read an executable", errno);
    if (n == 0) break;
    at += static_cast<uint64_t>(n);
    if (at > kMaxExecutableBytes) return fail("an executable larger than 2 GiB", EFBIG);
    EVP_DigestUpdate(ctx.get(), buffer.data(), static_cast<size_t>(n));
  }
  kernel::Digest digest{};
  unsigned length = 0;
  EVP_DigestFinal_ex(ctx.get(), digest.data(), &length);
  return digest;
}

}  // namespace

bool ContentDigests::agent_can_write(int fd, const ObjectFacts& facts) const {
  struct statvfs s {};
  if (::fstatvfs(fd, &s) != 0 || !(s.f_flag & ST_RDONLY)) return true;
  if ((facts.mode & 022) != 0) return true;
  if (facts.uid != agent_) return false;
  // Owners that our user namespace does not map look like `nobody`, who may be the agent. The
  // kernel knows: a lease is for the owner.
  if (::fcntl(fd, F_SETLEASE, F_RDLCK) == 0)
    ::fcntl(fd, F_SETLEASE, F_UNLCK);
  else if (errno == EACCES)
    return false;
  return true;
}

Result<kernel::Digest> ContentDigests::of(int fd, const ObjectFacts& facts) {
  const Key key{facts.dev, facts.identity.ino, facts.mtime_ns, facts.ctime_ns, facts.size};
  {
    const std::lock_guard lock(mutex_);
    const auto it = cache_.find(key);
    if (it != cache_.end()) return it->second;
  }
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t age_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec - facts.ctime_ns;
  const bool cacheable =
      !agent_can_write(fd, facts) || (age_ns > kSettledNs && !open_for_writing(fd));
  CG_TRY(const kernel::Digest digest, hash_file(fd, facts.size));
  if (!cacheable) return digest;
  const std::lock_guard lock(mutex_);
  if (cache_.size() >= kMaxCachedDigests) cache_.clear();
  cache_.emplace(key, digest);
  return digest;
}

}  // namespace certgate::supervisor
