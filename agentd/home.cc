#include "agentd/home.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/sha.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <vector>

#include "agentd/signing_key.h"
#include "agentd/state_dir.h"
#include "supervisor/home_archive.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

constexpr const char* kPart = ".part";
constexpr size_t kMaxShownName = 40;

bool untrusted(const kernel::Origin& origin) {
  switch (origin.cls) {
    case kernel::OriginClass::kOperator:
    case kernel::OriginClass::kUser:
    case kernel::OriginClass::kPolicy:
    case kernel::OriginClass::kModel:
    case kernel::OriginClass::kTool:
      return false;
    default:
      return true;
  }
}

// What runs that were killed left: a part that nobody holds.
Status remove_dead_parts(int dir) {
  CG_TRY(const std::vector<std::string> names, list_dir(dir, "."));
  for (const std::string& name : names) {
    if (!name.ends_with(kPart)) continue;
    const sandbox::UniqueFd fd(::openat(dir, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) ::unlinkat(dir, name.c_str(), 0);
  }
  return ok();
}

}  // namespace

std::string home_key(const kernel::Label& label) {
  std::vector<kernel::Origin> origins;
  for (const kernel::Origin& origin : label.origins()) {
    if (untrusted(origin)) origins.push_back(origin);
  }
  return kernel::Label::of(std::move(origins)).text();
}

std::string KeptHome::name(const std::string& key) const {
  const std::string whole = policy_ + '\0' + std::to_string(uid_) + '\0' + key;
  unsigned char digest[SHA256_DIGEST_LENGTH];
  // NOLINTNEXTLINE: bytes as OpenSSL wants them
  SHA256(reinterpret_cast<const unsigned char*>(whole.data()), whole.size(), digest);
  std::string shown;
  for (const char c : policy_.substr(0, kMaxShownName))
    shown += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  for (size_t i = 0; i < 12; ++i) shown += fmt::format("{}{:02x}", i == 0 ? "-" : "", digest[i]);
  return shown;
}

Result<KeptHome> KeptHome::take(const HomeRequest& request) {
  KeptHome home;
  home.policy_ = request.policy;
  home.uid_ = request.uid;
  const std::string key = home_key(request.initial);
  CG_TRY(const sandbox::UniqueFd state, open_state_dir(request.state_dir));
  CG_CHECK(make_dir(state.get(), "homes"));
  home.dir_.reset(::openat(state.get(), "homes", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!home.dir_) return disk_error("open " + request.state_dir + "/homes", errno);
  const std::string lock = home.name(key) + ".lock";
  home.lock_.reset(
      ::openat(home.dir_.get(), lock.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!home.lock_) return disk_error("open the lock of the kept home", errno);
  if (::flock(home.lock_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail_errno("lock the kept home", errno);
    return fail(
        "the kept home of policy '" + supervisor::escape(request.policy) +
        "' is in use by another run; wait for its end, or give this run a policy of another "
        "name or with home = \"fresh\"");
  }
  CG_CHECK(home.open_archive(key));
  // A part is not locked yet when it has just been made.
  if (::flock(home.dir_.get(), LOCK_EX) != 0) return fail_errno("lock the kept homes", errno);
  CG_CHECK(remove_dead_parts(home.dir_.get()));
  CG_CHECK(home.open_part());
  ::flock(home.dir_.get(), LOCK_UN);
  return home;
}

Status KeptHome::open_archive(const std::string& key) {
  const std::string file = name(key) + ".home";
  in_.reset(::openat(dir_.get(), file.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!in_) return errno == ENOENT ? ok() : Status(disk_error("open the kept home", errno));
  auto label = supervisor::archive_label(in_.get());
  if (label && home_key(*label) != key) label = fail("the kept home is damaged: a wrong label");
  if (!label)
    return fail(label.error().what + "; move homes/" + file + " of the state directory away");
  label_ = *std::move(label);
  return ok();
}

Status KeptHome::open_part() {
  CG_TRY(const std::string random, random_base32(16));
  part_ = random + kPart;
  out_.reset(::openat(dir_.get(), part_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                      0600));
  if (!out_) return disk_error("make the next kept home", errno);
  if (::flock(out_.get(), LOCK_EX | LOCK_NB) != 0) return fail_errno("lock the kept home", errno);
  return ok();
}

KeptHome::~KeptHome() {
  if (out_ && !part_.empty()) ::unlinkat(dir_.get(), part_.c_str(), 0);
}

Status KeptHome::keep() {
  struct stat s {};
  if (::fstat(out_.get(), &s) != 0) return fail_errno("look at the kept home", errno);
  if (s.st_size == 0) return ok();  // the agent never ran, or the supervisor has said why
  CG_TRY(const kernel::Label label, supervisor::archive_label(out_.get()));
  if (!label.covers(label_)) return fail("the kept home lost a label; it is not kept");
  if (::fsync(out_.get()) != 0) return disk_error("write the kept home", errno);
  const std::string file = name(home_key(label)) + ".home";
  if (::renameat(dir_.get(), part_.c_str(), dir_.get(), file.c_str()) != 0)
    return disk_error("replace the kept home", errno);
  part_.clear();
  return sync_dir(dir_.get(), "");
}

}  // namespace certgate::agentd
