#include "agentd/running.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "kernel/mutant.h"

namespace certgate::agentd {
namespace {

using sandbox::UniqueFd;
using supervisor::ReaderTable;

using Clock = std::chrono::steady_clock;
constexpr std::string_view kPrefix = "run-";
constexpr size_t kMaxRunning = 1024;
constexpr std::chrono::milliseconds kAnswersWithin{2000};

// On a descriptor of our own: granted when nobody of that run lives.
bool dead(int fd) { return ::flock(fd, LOCK_EX | LOCK_NB) == 0; }

Result<std::vector<std::string>> run_files(int dir) {
  const int copy = ::openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const list = copy < 0 ? nullptr : ::fdopendir(copy);
  if (list == nullptr) return fail_errno("list the label store", errno);
  std::vector<std::string> names;
  for (const dirent* e; (e = ::readdir(list)) != nullptr && names.size() <= kMaxRunning;) {
    if (std::string_view(e->d_name).starts_with(kPrefix)) names.emplace_back(e->d_name);
  }
  ::closedir(list);
  if (names.size() > kMaxRunning) return fail("more than 1024 agents run on one label store");
  return names;
}

}  // namespace

Result<UniqueFd> Running::begin(int dir, const std::string& id) {
  own_ = id;
  const std::string name = std::string(kPrefix) + id;
  own_file_.reset(
      ::openat(dir, name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!own_file_) return fail_errno("make " + name + " in the label store", errno);
  CG_CHECK(ReaderTable::prepare(own_file_.get()));
  UniqueFd copy(::fcntl(own_file_.get(), F_DUPFD_CLOEXEC, 0));
  if (::flock(own_file_.get(), LOCK_EX | LOCK_NB) != 0 || !copy)
    return fail_errno("lock " + name + " in the label store", errno);
  return copy;
}

void Running::end(int dir) {
  if (!own_file_) return;
  ::unlinkat(dir, (std::string(kPrefix) + own_).c_str(), 0);
  own_file_.reset();
}

Status Running::look(int dir, uint64_t ever_began) {
  if (ever_began == looked_at_) return ok();
  std::erase_if(others_, [](const Other& other) { return dead(other.table->fd()); });
  CG_TRY(const std::vector<std::string> names, run_files(dir));
  for (const std::string& name : names) {
    const std::string id = name.substr(kPrefix.size());
    const bool known = std::any_of(others_.begin(), others_.end(),
                                   [&](const Other& other) { return other.id == id; });
    if (known || id == own_) continue;
    // O_NONBLOCK: whoever owns the directory may have put anything there.
    UniqueFd fd(::openat(dir, name.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;
    if (!fd) return fail_errno("open " + name + " in the label store", errno);
    if (dead(fd.get())) {
      ::unlinkat(dir, name.c_str(), 0);
      continue;
    }
    auto table = ReaderTable::open(std::move(fd));
    if (!table) return fail(name + " in the label store: " + table.error().what);
    others_.push_back({id, std::make_unique<ReaderTable>(std::move(*table))});
  }
  looked_at_ = ever_began;
  return ok();
}

RaiseOfOthers::RaiseOfOthers(Running& running, uint32_t label)
    : running_(running), label_(label), deadline_(Clock::now() + kAnswersWithin) {}

RaiseOfOthers::~RaiseOfOthers() { decide(ReaderTable::Decision::kLeave); }

Status RaiseOfOthers::take() {
  const std::vector<ReaderTable*> taking = waiting_;
  decide(ReaderTable::Decision::kTake);
  for (const ReaderTable* table : taking) {
    if (!table->finished(left()))
      return fail("a running agent that has read this does not answer; try again", EBUSY);
  }
  return ok();
}

std::chrono::milliseconds RaiseOfOthers::left() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now());
}

void RaiseOfOthers::decide(ReaderTable::Decision decision) {
  for (ReaderTable* table : waiting_) table->decide(decision);
  waiting_.clear();
}

Result<std::vector<kernel::FileIdentity>> RaiseOfOthers::ask_readers(
    const kernel::FileIdentity& file) {
  std::vector<kernel::FileIdentity> held;
  if (mutant(Mutant::kReaders)) return held;
  for (const Running::Other& other : running_.others_) {
    if (asked_.contains(other.id) || !other.table->may_read(file)) continue;
    asked_.insert(other.id);
    if (dead(other.table->fd())) continue;
    const auto answer = other.table->ask(label_, file, running_.own_, left());
    const std::string who = "the running agent " + other.id + ", which has read this, ";
    if (!answer) return fail(who + "does not answer; try again", EBUSY);
    waiting_.push_back(other.table.get());
    if (!answer->can)
      return fail(who + "has a file open for writing where this label may not write", EBUSY);
    held.insert(held.end(), answer->held.begin(), answer->held.end());
  }
  return held;
}

}  // namespace certgate::agentd
