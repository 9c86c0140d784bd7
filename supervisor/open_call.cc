#include "supervisor/open_call.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "kernel/mutant.h"
#include "sandbox/remote.h"

namespace certgate::supervisor {
namespace {

using sandbox::TrappedCall;
using sandbox::UniqueFd;

// Which argument plays which role, per system call; -1 = it has none.
struct OpenRow {
  int nr;
  const char* name;
  int dirfd, path, flags, mode, how, how_size;
};
constexpr OpenRow kOpenRows[] = {
    {SYS_open, "open", -1, 0, 1, 2, -1, -1},
    {SYS_openat, "openat", 0, 1, 2, 3, -1, -1},
    {SYS_creat, "creat", -1, 0, -1, 1, -1, -1},
    {SYS_openat2, "openat2", 0, 1, -1, -1, 2, 3},
};
constexpr uint64_t kTmpfile = O_TMPFILE & ~O_DIRECTORY;
constexpr uint64_t kKnownFlags = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND |
                                 O_NONBLOCK | O_SYNC | O_DSYNC | O_ASYNC | O_DIRECT | O_LARGEFILE |
                                 O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH |
                                 kTmpfile | 0100000;
constexpr uint64_t kKnownResolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS |
                                   RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_CACHED;
constexpr size_t kMaxSeen = 16384;
constexpr int kMaxRaces = 8;  // a name that appears and vanishes under us

const OpenRow* row_of(int nr) {
  for (const OpenRow& row : kOpenRows) {
    if (row.nr == nr) return &row;
  }
  return nullptr;
}

// Copies open_how as the kernel does (openat2(2)): one snapshot, longer structs only if zero.
int read_how(int tid, uint64_t address, uint64_t size, open_how& how) {
  if (size < sizeof how) return EINVAL;
  if (size > 4096) return E2BIG;
  std::array<char, 4096> room;
  if (int error = sandbox::read_memory(tid, address, room.data(), size)) return error;
  if (std::any_of(room.begin() + sizeof how, room.begin() + static_cast<std::ptrdiff_t>(size),
                  [](char c) { return c != 0; })) {
    return E2BIG;
  }
  std::memcpy(&how, room.data(), sizeof how);
  if ((how.flags & ~kKnownFlags) || (how.resolve & ~kKnownResolve)) return EINVAL;
  constexpr uint64_t kScopes = RESOLVE_BENEATH | RESOLVE_IN_ROOT;
  if ((how.resolve & kScopes) == kScopes) return EINVAL;
  const bool makes = (how.flags & O_CREAT) || (how.flags & kTmpfile);
  if (how.mode & ~uint64_t{07777}) return EINVAL;
  if (!makes && how.mode != 0) return EINVAL;
  return 0;
}

// /proc/<pid>/mem would make every argument in memory changeable from outside the thread.
bool is_process_memory(const std::string& path) {
  return !mutant(Mutant::kProcessMemory) && path.starts_with("/proc/") &&
         (path.ends_with("/mem") || path.ends_with("/clear_refs"));
}

// A worker's signal tells it that its caller is gone, and the id of a caller that is being answered
// looks so too. Were the injection interrupted then, the caller would return 0 without a
// descriptor.
class UninterruptedInjection {
 public:
  explicit UninterruptedInjection(bool on_worker) : blocked_(on_worker) {
    if (!blocked_) return;  // nobody signals the notify thread
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~UninterruptedInjection() {
    if (blocked_) ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  UninterruptedInjection(const UninterruptedInjection&) = delete;
  UninterruptedInjection& operator=(const UninterruptedInjection&) = delete;

 private:
  const bool blocked_;
  sigset_t before_{};
};

bool is_terminal(dev_t rdev) {
  const unsigned major = ::major(rdev);
  return major == 4 || major == 5 || (major >= 136 && major <= 143);
}

}  // namespace

kernel::OpenEffect PinnedOpen::effect() const {
  kernel::OpenEffect e;
  e.path = path;
  e.kind = create() ? kernel::FileKind::kRegular : facts.kind;
  e.file = facts.identity;
  e.read = read;
  e.write = write;
  e.create = create();
  e.inside = inside;
  e.replaces = !mutant(Mutant::kReplaces) && !name.empty();
  e.other_names = !mutant(Mutant::kOtherNames) && write && !create() &&
                  facts.kind == kernel::FileKind::kRegular && facts.nlink > 1;
  e.flags = flags;
  e.mode = mode;
  return e;
}

int OpenCalls::decode(const TrappedCall& call, PinnedOpen& pin) const {
  const OpenRow* row = row_of(call.nr);
  if (row == nullptr) return ENOSYS;
  uint64_t resolve = 0, mode = 0;
  if (row->how >= 0) {
    open_how how{};
    if (int error = read_how(call.tid, call.args[row->how], call.args[row->how_size], how))
      return error;
    // An O_PATH descriptor cannot be injected, and these flags are in memory: callers fall back to
    // openat.
    if (how.flags & O_PATH) return ENOSYS;
    pin.flags = how.flags;
    mode = how.mode;
    resolve = how.resolve;
  } else {
    pin.flags = row->flags >= 0 ? static_cast<uint32_t>(call.args[row->flags]) & kKnownFlags
                                : uint64_t{O_CREAT | O_WRONLY | O_TRUNC};
    mode = call.args[row->mode] & 07777;
  }
  const uint64_t access = pin.flags & O_ACCMODE;
  pin.tmpfile = (pin.flags & kTmpfile) != 0;
  if (pin.tmpfile && ((pin.flags & O_TMPFILE) != O_TMPFILE || access == O_RDONLY)) return EINVAL;
  if ((pin.flags & (O_CREAT | O_DIRECTORY)) == (O_CREAT | O_DIRECTORY) && !pin.tmpfile)
    return EINVAL;
  // As in the kernel, flags that make no sense are said before the path is looked at.
  const int dirfd = row->dirfd >= 0 ? static_cast<int>(call.args[row->dirfd]) : AT_FDCWD;
  if (int error = sandbox::read_string(call.tid, call.args[row->path], kMaxPath, pin.asked))
    return error;
  if (pin.asked.empty()) return ENOENT;
  pin.read = access == O_RDONLY || access == O_RDWR;
  pin.write = access != O_RDONLY || (pin.flags & O_TRUNC);
  if (int error = pin_object(call.tid, dirfd, resolve, pin)) return error;
  pin.inside = trap_.places.contains(pin.facts.dev);
  if (mutant(Mutant::kMagicLinks) && pin.path.starts_with("/proc/")) pin.inside = true;
  if (pin.create()) {
    auto task = sandbox::task_facts(call.tid);
    if (!task) return ESRCH;
    pin.mode = static_cast<uint32_t>(mode & ~task->umask);
    pin.write = true;
  }
  return 0;
}

// One kernel walk instead of two, for the commonest call of all: reading a regular file. The hint
// may be wrong at no cost but time; what is found is checked, and judged, before anyone is given
// it.
bool OpenCalls::pin_in_one_step(Base base, PinnedOpen& pin) const {
  constexpr uint64_t kOther = O_CREAT | O_TRUNC | kTmpfile | O_DIRECTORY | O_PATH;
  if (!pin.read || pin.write || (pin.flags & kOther)) return false;
  const bool system = pin.asked.starts_with("/usr/") || pin.asked.starts_with("/lib") ||
                      pin.asked.starts_with("/etc/");
  if (!system && !seen_regular_.contains(std::hash<std::string>{}(pin.asked))) return false;
  const uint64_t flags = pin.flags & ~uint64_t{O_CLOEXEC};
  // Found without following a link, a plain path is the object's own: no need to ask for it.
  const size_t hash = std::hash<std::string>{}(pin.asked);
  if (PathWalk::is_plain(pin.asked) && !behind_link_.contains(hash)) {
    pin.object = trap_.walk.open_likely_regular(base, pin.asked, flags, PathWalk::Links::kNone);
    if (pin.object) pin.path = pin.asked;
  }
  if (!pin.object) {
    pin.object = trap_.walk.open_likely_regular(base, pin.asked, flags, PathWalk::Links::kFollow);
    if (pin.object && behind_link_.size() < kMaxSeen) behind_link_.insert(hash);
    if (pin.object && PathWalk::path_of(pin.object.get(), false, pin.path) != 0) pin.path.clear();
  }
  pin.ready = pin.object && !pin.path.empty() && object_facts(pin.object.get(), pin.facts) == 0 &&
              pin.facts.kind == kernel::FileKind::kRegular && pin.facts.nlink > 0;
  if (!pin.ready) pin.object.reset();
  return pin.ready;
}

int OpenCalls::pin_object(int tid, int dirfd, uint64_t resolve, PinnedOpen& pin) const {
  UniqueFd base;
  if (int error = Trap::base_of(tid, dirfd, pin.asked, base)) return error;
  if (resolve == 0 && pin_in_one_step(Base{base.get()}, pin)) return 0;
  const bool creates = (pin.flags & O_CREAT) && !pin.tmpfile;
  if (creates && pin.asked.back() == '/') {
    // O_CREAT makes no directories, whatever is there: only the way to it can fail differently.
    const size_t end = pin.asked.find_last_not_of('/');
    const size_t slash = end == std::string::npos ? end : pin.asked.find_last_of('/', end);
    const std::string name = pin.asked.substr(slash + 1, end - slash);
    if (end != std::string::npos && name != "." && name != "..") {
      const std::string dir = slash == std::string::npos ? "./" : pin.asked.substr(0, slash + 1);
      const Resolution r = trap_.walk.resolve(Caller{tid}, Base{base.get()}, dir, Final::kFollow,
                                              Missing::kError, resolve);
      return r.error != 0 ? r.error : EISDIR;
    }
  }
  const bool no_follow = (pin.flags & O_NOFOLLOW) || (creates && (pin.flags & O_EXCL));
  Resolution r = trap_.walk.resolve(Caller{tid}, Base{base.get()}, pin.asked,
                                    no_follow ? Final::kNoFollow : Final::kFollow,
                                    creates ? Missing::kParent : Missing::kError, resolve);
  if (r.error) return r.error;
  if (r.parent) {
    pin.parent = std::move(r.parent);
    pin.name = std::move(r.name);
    if (int error = object_facts(pin.parent.get(), pin.facts)) return error;
    if (int error = PathWalk::path_of(pin.parent.get(), pin.facts.nlink == 0, pin.path))
      return error;
    if (pin.path.empty()) return EACCES;
    if (pin.path.back() != '/') pin.path += '/';
    pin.path += pin.name;
    return pin.path.size() < kMaxPath ? 0 : ENAMETOOLONG;
  }
  pin.object = std::move(r.object);
  if (int error = object_facts(pin.object.get(), pin.facts)) return error;
  if (creates && (pin.flags & O_EXCL)) return EEXIST;
  if (pin.facts.symlink) return pin.flags & O_DIRECTORY ? ENOTDIR : ELOOP;
  const bool directory = pin.facts.kind == kernel::FileKind::kDirectory;
  if (pin.facts.kind == kernel::FileKind::kRegular && seen_regular_.size() < kMaxSeen) {
    seen_regular_.insert(std::hash<std::string>{}(pin.asked));
  }
  if ((pin.flags & O_DIRECTORY) && !directory) return ENOTDIR;
  if (directory && !pin.tmpfile && (pin.write || creates)) return EISDIR;
  if (pin.facts.kind == kernel::FileKind::kSocket) return ENXIO;
  if (pin.facts.kind == kernel::FileKind::kDevice && pin.facts.rdev == ::makedev(5, 0)) {
    if (int error = pin_terminal(tid, pin)) return error;
  }
  if (int error = PathWalk::path_of(pin.object.get(), pin.facts.nlink == 0, pin.path)) return error;
  if (pin.path.empty()) {
    // No path at all: a pipe or another anonymous object, reached through /proc/<pid>/fd.
    pin.path = pin.asked;
    if (pin.facts.kind == kernel::FileKind::kFifo) pin.facts.kind = kernel::FileKind::kPipe;
  } else if (pin.tmpfile) {
    pin.path += "/#tmpfile";
  }
  if (mutant(Mutant::kMagicLinks) && pin.asked.starts_with("/proc/")) pin.path = pin.asked;
  return 0;
}

// /dev/tty is the *caller's* controlling terminal: none, or one of the sandbox's own (every process
// inside is in a session that began there).
int OpenCalls::pin_terminal(int tid, PinnedOpen& pin) const {
  const auto stat = sandbox::read_file("/proc/" + std::to_string(tid) + "/stat", 4096);
  if (!stat) return ENXIO;
  const size_t paren = stat->rfind(')');  // the command name may hold anything
  int group = 0, session = 0, tty = 0;
  char state = 0;
  int parent = 0;
  if (paren == std::string::npos || std::sscanf(stat->c_str() + paren + 1, " %c %d %d %d %d",
                                                &state, &parent, &group, &session, &tty) != 5) {
    return ENXIO;
  }
  if (tty == 0) return ENXIO;
  const auto number = static_cast<unsigned>(tty);
  const unsigned minor = (number & 0xff) | ((number >> 12) & 0xfff00);
  Resolution r = trap_.walk.resolve(Caller{tid}, Base{}, "/dev/pts/" + std::to_string(minor),
                                    Final::kNoFollow, Missing::kError);
  if (r.error) return ENXIO;
  pin.object = std::move(r.object);
  if (int error = object_facts(pin.object.get(), pin.facts)) return error;
  return pin.facts.rdev == ::makedev((number >> 8) & 0xfff, minor) ? 0 : ENXIO;
}

// What the kernel would refuse anyway is no effect and no matter of policy: the caller gets exactly
// that errno (programs probe), and nothing is recorded.
int OpenCalls::natively_refused(const PinnedOpen& pin) const {
  if (pin.create() && !pin.tmpfile) {
    return ::faccessat(pin.parent.get(), "", W_OK | X_OK, AT_EMPTY_PATH | AT_EACCESS) == 0 ? 0
                                                                                           : errno;
  }
  if (pin.facts.kind == kernel::FileKind::kPipe) return 0;
  const int want = (pin.read ? R_OK : 0) | (pin.write ? W_OK : 0);
  return ::faccessat(pin.object.get(), "", want, AT_EMPTY_PATH | AT_EACCESS) == 0 ? 0 : errno;
}

// Bottom for what lives and dies with the sandbox.
Result<kernel::Label> OpenCalls::label_of(const PinnedOpen& pin) const {
  const bool device = pin.facts.kind == kernel::FileKind::kDevice;
  const bool outside = device && !pin.inside && is_terminal(pin.facts.rdev);
  if (outside || (device && trap_.terminal.is(pin.facts)))
    return kernel::Label::of({{kernel::OriginClass::kUser, ""}});
  if (pin.facts.kind == kernel::FileKind::kPipe || pin.inside) return kernel::Label();
  // The devices shown inside keep nothing that was written: what the store has says nothing.
  if (device) return trap_.session.decider().policy().zone_label(pin.path);
  if (pin.create()) return trap_.session.decider().policy().zone_label(pin.path);
  const Reads reads = pin.read ? Reads::kFromNowOn : Reads::kOnce;
  return trap_.session.file_label(pin.facts.identity, pin.path, reads);
}

// A name that is made marks its directory.
Mark OpenCalls::mark_of(const PinnedOpen& pin) const {
  if (pin.name.empty() || pin.inside) return {};
  return {Mark::Kind::kNames, pin.facts.identity, pin.path};
}

Hold OpenCalls::hold_of(const PinnedOpen& pin) const {
  Hold hold;
  // Who reads a FIFO of the workspace may be outside.
  const bool fifo = pin.facts.kind == kernel::FileKind::kFifo && !pin.inside;
  const bool file = pin.facts.kind == kernel::FileKind::kRegular || pin.create() || fifo;
  if (!pin.write || !file) return hold;
  hold.kind = Hold::Kind::kWritableFile;
  hold.pin = pin.create() ? -1 : pin.object.get();
  hold.file = pin.facts.identity;
  hold.labelled = !pin.inside;
  return hold;
}

void OpenCalls::handle(const TrappedCall& call) {
  // A name may appear between decode and perform; then the call is judged again for what is there.
  for (int races = 0; races < kMaxRaces; ++races) {
    if (try_once(call) != Attempt::kRaced) return;
  }
  trap_.listener.refuse(call.id, EAGAIN);
}

OpenCalls::Attempt OpenCalls::try_once(const TrappedCall& call) {
  const auto pin = std::make_shared<PinnedOpen>();
  int error = decode(call, *pin);
  if (!trap_.listener.valid(call.id)) return Attempt::kDone;
  if (error == 0 && pin->write) error = natively_refused(*pin);
  if (error != 0) {
    trap_.listener.refuse(call.id, error);
    return Attempt::kDone;
  }
  CallInfo info{call.tid, row_of(call.nr)->name, pin->asked, Waits::kYes};
  info.durable_later = true;
  if (is_process_memory(pin->path)) {
    const kernel::Verb verb = pin->write ? kernel::Verb::kWrite : kernel::Verb::kRead;
    trap_.listener.refuse(call.id,
                          trap_.session.refuse_constraint(info, pin->path, verb,
                                                          "memory of a process is never opened"));
    return Attempt::kDone;
  }
  if (trap_.stdio.covers(pin->facts, pin->read, pin->write))
    pin->facts.kind = kernel::FileKind::kPipe;
  const auto object = label_of(*pin);
  const kernel::Call judged_call{pin->effect(), object ? *object : kernel::Label::unknown()};
  Judged judged = object ? trap_.session.judge(info, judged_call, hold_of(*pin), mark_of(*pin))
                         : trap_.session.refuse_unknown(info, judged_call, object.error().what);
  if (!judged.certificate) {
    trap_.decline(call, judged);
    return Attempt::kDone;
  }
  const bool strict = judged.certificate->durability() == kernel::Durability::kStrict;
  // The mutant's delay must not hold up the changes that it waits for.
  const bool pipe = pin->facts.kind == kernel::FileKind::kFifo ||
                    pin->facts.kind == kernel::FileKind::kPipe || mutant(Mutant::kPinnedOpen);
  const bool waits = pipe && !pin->create() && (pin->flags & O_NONBLOCK) == 0;
  if (!waits && !strict) return perform(call, std::move(judged), *pin, judged_call.object);
  pin->waits = waits;
  return perform_apart(call, std::move(judged), pin, judged_call.object);
}

// On a thread that may wait: for a FIFO's other end, or for the disk, where one fdatasync is for
// all who wait.
OpenCalls::Attempt OpenCalls::perform_apart(const TrappedCall& call, Judged judged,
                                            const std::shared_ptr<PinnedOpen>& pin,
                                            const kernel::Label& label) {
  const bool strict = judged.certificate->durability() == kernel::Durability::kStrict;
  const auto shared = std::make_shared<Judged>(std::move(judged));
  const auto go_on = [this, call, shared, pin, label, strict] {
    if (!strict || trap_.session.make_durable())
      return perform(call, std::move(*shared), *pin, label);
    trap_.listener.refuse(call.id, EIO);
    return Attempt::kDone;
  };
  if (on_ == On::kWorker) {
    pin->waits = true;
    return go_on();
  }
  const bool taken = pool_.try_run(call, [this, call, pin, go_on] {
    pin->waits = true;
    // The hints of this object are the notify thread's: who must begin again does so with others.
    if (go_on() == Attempt::kRaced)
      OpenCalls(trap_, pool_, bindings_, digests_, On::kWorker).handle(call);
  });
  if (taken) return Attempt::kDone;
  if (!pin->waits) return go_on();  // the disk answers in the end, a FIFO perhaps not
  trap_.session.outcome(shared->seq, row_of(call.nr)->name, call.tid, EAGAIN, "emulated");
  trap_.listener.refuse(call.id, EAGAIN);
  return Attempt::kDone;
}

int OpenCalls::open_pinned(const kernel::Certificate& certificate, PinnedOpen& pin,
                           UniqueFd& out) const {
  if (kernel::action_digest(pin.effect()) != certificate.digest()) return EACCES;
  const uint64_t dropped = O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  const int flags = static_cast<int>((pin.flags & ~dropped) | O_NOCTTY | O_CLOEXEC);
  if (pin.tmpfile) {
    const std::string dir = "/proc/self/fd/" + std::to_string(pin.object.get());
    out.reset(::open(dir.c_str(), flags | static_cast<int>(pin.flags & O_EXCL), pin.mode));
    return out ? 0 : errno;
  }
  if (pin.create()) {
    // O_EXCL follows no link; O_NOFOLLOW would show in F_GETFL.
    const int asked = static_cast<int>(pin.flags & O_NOFOLLOW);
    out.reset(
        ::openat(pin.parent.get(), pin.name.c_str(), flags | O_CREAT | O_EXCL | asked, pin.mode));
    return out ? 0 : errno;
  }
  if (pin.ready) return out = std::move(pin.object), 0;
  const int fd = reopen(pin.object.get(), flags);
  if (fd < 0) return -fd;
  out.reset(fd);
  struct stat s {};
  if (::fstat(fd, &s) != 0 || s.st_ino != pin.facts.identity.ino || s.st_dev != pin.facts.dev) {
    // Only a device may answer with another inode than its name has (/dev/tty, /dev/ptmx).
    if (pin.facts.kind != kernel::FileKind::kDevice) return EACCES;
  }
  return 0;
}

// The script an interpreter was started for must be the certified one, byte for byte.
int OpenCalls::check_binding(const TrappedCall& call, const PinnedOpen& pin, int fd) {
  const auto binding = bindings_.take(call.tid, pin.asked);
  if (!binding || mutant(Mutant::kScriptBinding)) return 0;
  ObjectFacts facts;
  if (object_facts(fd, facts) == 0 && facts.identity == binding->script.file) {
    const auto digest = digests_.of(fd, facts);
    if (digest && *digest == binding->script.sha256) return 0;
  }
  trap_.session.outcome(binding->certificate_seq, "execve", call.tid, 0, "killed:proof");
  ::kill(call.tid, SIGKILL);
  return EACCES;
}

OpenCalls::Attempt OpenCalls::perform(const TrappedCall& call, Judged judged, PinnedOpen& pin,
                                      const kernel::Label& label) {
  const kernel::Certificate certificate = *std::move(judged.certificate);
  UniqueFd fd;
  int error = 0;
  if (mutant(Mutant::kPinnedOpen) && !pin.create() && pin.asked[0] != '/') {
    // What a monitor that checks first and opens later does.
    UniqueFd base;
    error = Trap::base_of(call.tid, AT_FDCWD, pin.asked, base);
    ::usleep(200);
    fd.reset(::openat(base.get(), pin.asked.c_str(), static_cast<int>(pin.flags & O_ACCMODE)));
    if (!fd) error = errno;
  } else {
    error = open_pinned(certificate, pin, fd);
  }
  const bool raced = error == EEXIST && !pin.name.empty() && !(pin.flags & O_EXCL);
  if (error == 0 && judged.hold != 0) {
    ObjectFacts made = pin.facts;
    if (pin.create()) error = object_facts(fd.get(), made);
    const auto settled = trap_.session.settle_file(
        judged.hold, fd.get(), made.identity, label.join(certificate.object_label()), !pin.inside);
    if (!settled && settled.error().code == EBUSY) {
      error = EACCES;
    } else if (!settled) {
      trap_.session.fatal(settled.error().what);
      error = EIO;
    }
  }
  if (error == 0) error = check_binding(call, pin, fd.get());
  if (error == 0 && pin.waits && !trap_.session.tokens_live()) error = EACCES;
  if (error == 0) {
    const UninterruptedInjection quiet(pin.waits);
    error = trap_.listener.inject(call, fd.get(), pin.flags & O_CLOEXEC ? O_CLOEXEC : 0);
    if (error == 0) {
      if (pin.read && trap_.terminal.is(pin.facts)) trap_.terminal.keys_wanted();
      return Attempt::kDone;
    }
  }
  trap_.session.release(judged.hold);
  trap_.session.outcome(judged.seq, row_of(call.nr)->name, call.tid, error, "emulated");
  if (error == EINTR) error = BlockingPool::interruption(call.tid);
  if (raced) return Attempt::kRaced;
  trap_.listener.refuse(call.id, error);
  return Attempt::kDone;
}

}  // namespace certgate::supervisor
