#include "agentd/token_store.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "agentd/state_dir.h"
#include "supervisor/token_slot.h"

namespace certgate::agentd {
namespace {

using sandbox::UniqueFd;
using supervisor::EpochSlot;
using supervisor::kTokenPageBytes;
using supervisor::TokenSlot;

constexpr const char* kEpoch = "tokens/epoch";

bool is_id(const std::string& id) {
  return id.size() == sizeof TokenSlot::id && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Result<std::string> boot_id() {
  const UniqueFd fd(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  std::string out(36, '\0');
  if (!fd || ::read(fd.get(), out.data(), out.size()) != static_cast<ssize_t>(out.size()))
    return fail("cannot read /proc/sys/kernel/random/boot_id; is it hidden?");
  return out;
}

class Page {
 public:
  static Result<Page> map(int fd, const std::string& name) {
    struct stat s {};
    if (::fstat(fd, &s) != 0) return disk_error(name, errno);
    if (static_cast<size_t>(s.st_size) != kTokenPageBytes)
      return fail(name + ": damaged (its size cannot be); restore the state directory from a copy");
    void* at = ::mmap(nullptr, kTokenPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return fail_errno("map " + name, errno);
    return Page(at);
  }
  Page(Page&& other) noexcept : at_(std::exchange(other.at_, nullptr)) {}
  Page& operator=(Page&&) = delete;
  ~Page() {
    if (at_ != nullptr) ::munmap(at_, kTokenPageBytes);
  }
  template <typename T>
  T& as() const {
    return *static_cast<T*>(at_);
  }

 private:
  explicit Page(void* at) : at_(at) {}
  void* at_;
};

int64_t now_boot_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

template <typename T>
Status make_page(int dir, const std::string& name, const T& content, Keep keep) {
  std::vector<uint8_t> bytes(kTokenPageBytes);
  std::memcpy(bytes.data(), static_cast<const void*>(&content), sizeof content);
  if (keep == Keep::kForTheRun) {
    const UniqueFd fd(::openat(dir, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    return fd ? write_all(fd.get(), bytes.data(), bytes.size(), name)
              : Status(disk_error(name, errno));
  }
  DurableWriter writer(dir);
  CG_CHECK(writer.put(name, bytes.data(), bytes.size()));
  return writer.flush();
}

Result<UniqueFd> open_page(int dir, const std::string& name, int how) {
  UniqueFd fd(::openat(dir, name.c_str(), how | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return disk_error(name, errno);
  return fd;
}

Status sync(int fd, const std::string& name) {
  return ::fsync(fd) == 0 ? ok() : Status(disk_error(name, errno));
}

// The caller holds the directory's lock.
Result<UniqueFd> open_slot(int dir, const std::string& id, Keep keep) {
  const std::string name = "tokens/" + id;
  if (::faccessat(dir, name.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
    CG_TRY(const std::string boot, boot_id());
    const auto fresh = std::make_unique<TokenSlot>();
    std::memcpy(fresh->id, id.data(), sizeof fresh->id);
    std::memcpy(fresh->boot, boot.data(), boot.size());
    CG_CHECK(make_page(dir, name, *fresh, keep));
  }
  CG_TRY(UniqueFd fd, open_page(dir, name, O_RDWR));
  CG_TRY(const Page page, Page::map(fd.get(), name));
  const auto& slot = page.as<TokenSlot>();
  if (slot.magic != supervisor::kTokenSlotMagic ||
      std::memcmp(slot.id, id.data(), sizeof slot.id) != 0) {
    return fail(name + ": damaged; restore the state directory from a copy");
  }
  return fd;
}

// The counts of another boot may not have reached the disk, what was reserved has. Of a rate
// nothing is known any more: a whole period counts as used.
Status begin_boot(int fd, const kernel::Token& token) {
  const std::string name = "tokens/" + token.id;
  CG_TRY(const std::string boot, boot_id());
  CG_TRY(const Page page, Page::map(fd, name));
  auto& slot = page.as<TokenSlot>();
  if (std::memcmp(slot.boot, boot.data(), boot.size()) == 0) return ok();
  for (size_t i = 0; i <= token.scopes.size(); ++i) {
    supervisor::MeterSlot& meter = slot.meters[i];
    const uint64_t reserved = std::max(meter.ceiling.load(), meter.used.load());
    meter.used.store(reserved);
    meter.ceiling.store(reserved);
    meter.durable.store(reserved);
    meter.full_ns.store(now_boot_ns() + (i == 0 ? token.rate : token.scopes[i - 1].rate).per_ns);
  }
  CG_CHECK(sync(fd, name));
  std::memcpy(slot.boot, boot.data(), boot.size());
  return sync(fd, name);
}

}  // namespace

Result<TokenStore> TokenStore::open(int dir) {
  UniqueFd own(::fcntl(dir, F_DUPFD_CLOEXEC, 0));
  if (!own) return fail_errno("open the token store", errno);
  CG_TRY(const DirLock lock, DirLock::exclusive(dir));
  if (::faccessat(dir, kEpoch, F_OK, AT_SYMLINK_NOFOLLOW) != 0)
    CG_CHECK(make_page(dir, kEpoch, EpochSlot(), Keep::kForGood));
  CG_TRY(const UniqueFd fd, open_page(dir, kEpoch, O_RDWR));
  CG_TRY(const Page page, Page::map(fd.get(), kEpoch));
  if (page.as<EpochSlot>().magic != supervisor::kEpochMagic)
    return fail(std::string(kEpoch) + ": damaged; restore the state directory from a copy");
  return TokenStore(std::move(own), page.as<EpochSlot>().epoch.load());
}

Result<UniqueFd> TokenStore::epoch_for_reading() const {
  return open_page(dir_.get(), kEpoch, O_RDONLY);
}

Result<UniqueFd> TokenStore::slot(const kernel::Token& token, Keep keep) const {
  if (!is_id(token.id)) return fail("token: an id that is not 32 hex digits");
  CG_TRY(const DirLock lock, DirLock::exclusive(dir_.get()));
  CG_TRY(UniqueFd fd, open_slot(dir_.get(), token.id, keep));
  CG_CHECK(begin_boot(fd.get(), token));
  return fd;
}

Status TokenStore::revoke(const std::string& id) const {
  if (!is_id(id)) return fail("a token's id is 32 hex digits (certgate token show)");
  CG_TRY(const DirLock lock, DirLock::exclusive(dir_.get()));
  CG_TRY(const UniqueFd fd, open_slot(dir_.get(), id, Keep::kForGood));
  CG_TRY(const Page page, Page::map(fd.get(), "tokens/" + id));
  page.as<TokenSlot>().revoked.store(1);
  return sync(fd.get(), "tokens/" + id);
}

Result<uint64_t> TokenStore::rotate() {
  CG_TRY(const DirLock lock, DirLock::exclusive(dir_.get()));
  CG_TRY(const UniqueFd fd, open_page(dir_.get(), kEpoch, O_RDWR));
  CG_TRY(const Page page, Page::map(fd.get(), kEpoch));
  epoch_ = page.as<EpochSlot>().epoch.fetch_add(1) + 1;
  CG_CHECK(sync(fd.get(), kEpoch));
  return epoch_;
}

Status TokenStore::forget(const std::string& id) const {
  if (!is_id(id)) return ok();
  CG_TRY(const bool gone, remove_entry(dir_.get(), "tokens/" + id, false));
  (void)gone;
  return ok();
}

}  // namespace certgate::agentd
