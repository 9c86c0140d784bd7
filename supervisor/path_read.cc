#include "supervisor/path_read.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <vector>

#include "kernel/mutant.h"
#include "sandbox/remote.h"

namespace certgate::supervisor {
namespace {

using sandbox::TrappedCall;
using sandbox::UniqueFd;

constexpr size_t kMaxXattrName = 256;
constexpr size_t kMaxXattrBytes = 65536;  // XATTR_SIZE_MAX, XATTR_LIST_MAX

enum class What : uint8_t { kLinkText, kAttribute, kAttributeList, kWatch };
enum class How : uint8_t { kFollow, kNoFollow, kHandle, kByMask };

// Argument numbers; -1 = the call has none.
struct ReadRow {
  int nr;
  const char* name;
  What what;
  How how;
  int dirfd, path;
  int attribute;     // its name
  int buffer, size;  // where the answer goes
};
constexpr ReadRow kRows[] = {
    {SYS_readlink, "readlink", What::kLinkText, How::kNoFollow, -1, 0, -1, 1, 2},
    {SYS_readlinkat, "readlinkat", What::kLinkText, How::kNoFollow, 0, 1, -1, 2, 3},
    {SYS_getxattr, "getxattr", What::kAttribute, How::kFollow, -1, 0, 1, 2, 3},
    {SYS_lgetxattr, "lgetxattr", What::kAttribute, How::kNoFollow, -1, 0, 1, 2, 3},
    {SYS_fgetxattr, "fgetxattr", What::kAttribute, How::kHandle, 0, -1, 1, 2, 3},
    {SYS_listxattr, "listxattr", What::kAttributeList, How::kFollow, -1, 0, -1, 1, 2},
    {SYS_llistxattr, "llistxattr", What::kAttributeList, How::kNoFollow, -1, 0, -1, 1, 2},
    {SYS_flistxattr, "flistxattr", What::kAttributeList, How::kHandle, 0, -1, -1, 1, 2},
    {SYS_inotify_add_watch, "inotify_add_watch", What::kWatch, How::kByMask, -1, 1, -1, -1, -1},
};

const ReadRow* row_of(int nr) {
  const auto* it = std::find_if(std::begin(kRows), std::end(kRows),
                                [nr](const ReadRow& r) { return r.nr == nr; });
  return it != std::end(kRows) ? it : nullptr;
}

}  // namespace

struct PathReads::Pinned {
  const ReadRow* row = nullptr;
  UniqueFd object;  // O_PATH, or the caller's own descriptor
  UniqueFd watcher;
  std::string asked, path, attribute;
  ObjectFacts facts;
  bool inside = false;
  size_t room = 0;  // bytes that the caller has for the answer
  std::string through() const { return "/proc/self/fd/" + std::to_string(object.get()); }
};

namespace {

using Bytes = std::vector<char>;

// A negative result is an errno; else what the call returns, with `out` for the caller's buffer.
int64_t read_link(const Trap& trap, const TrappedCall& call, const std::string& asked, int object,
                  size_t room, Bytes& out) {
  out.resize(kMaxPath);
  ssize_t n = ::readlinkat(object, "", out.data(), out.size());
  if (n < 0 && errno == ENOENT) {
    // "self" in /proc means the caller, and we are not in there.
    const std::string own = trap.walk.own_link(Caller{call.tid}, asked);
    if (own.empty()) return -ENOENT;
    std::copy(own.begin(), own.end(), out.begin());
    n = static_cast<ssize_t>(own.size());
  }
  if (n < 0) return -errno;
  out.resize(std::min(room, static_cast<size_t>(n)));
  return static_cast<int64_t>(out.size());
}

// getxattr and listxattr: a buffer of no size asks how long the answer is.
template <typename Read>
int64_t read_attribute(Read read, size_t room, Bytes& out) {
  out.resize(std::min(room, kMaxXattrBytes));
  const ssize_t n = read(out.data(), out.size());
  if (n < 0) return -errno;
  out.resize(room == 0 ? 0 : static_cast<size_t>(n));
  return n;
}

}  // namespace

bool PathReads::handles(int nr) { return row_of(nr) != nullptr; }

int PathReads::pin(const TrappedCall& call, Pinned& out) const {
  const ReadRow& row = *row_of(call.nr);
  out.row = &row;
  if (row.what == What::kWatch) {
    if (int error = Trap::descriptor_of(call.tid, static_cast<int>(call.args[0]), out.watcher))
      return error;
  } else {
    out.room = call.args[row.size];
    if (row.what == What::kLinkText) {
      const auto size = static_cast<int>(call.args[row.size]);
      if (size <= 0) return EINVAL;
      out.room = static_cast<size_t>(size);
    }
  }
  if (row.attribute >= 0) {
    const int error =
        sandbox::read_string(call.tid, call.args[row.attribute], kMaxXattrName, out.attribute);
    if (error != 0) return error == ENAMETOOLONG ? ERANGE : error;
    if (out.attribute.empty()) return ERANGE;
  }
  const int dirfd = row.dirfd >= 0 ? static_cast<int>(call.args[row.dirfd]) : AT_FDCWD;
  if (row.how == How::kHandle) {
    if (int error = Trap::descriptor_of(call.tid, dirfd, out.object)) return error;
  } else {
    if (int error = sandbox::read_string(call.tid, call.args[row.path], kMaxPath, out.asked))
      return error;
    const bool by_fd = out.asked.empty() && call.nr == SYS_readlinkat;
    if (out.asked.empty() && !by_fd) return ENOENT;
    UniqueFd base;
    if (int error = Trap::base_of(call.tid, dirfd, by_fd ? "." : out.asked, base)) return error;
    const bool follow =
        row.how == How::kFollow || (row.how == How::kByMask && !(call.args[2] & IN_DONT_FOLLOW));
    Resolution r =
        by_fd ? Resolution::found(std::move(base))
              : trap_.walk.resolve(Caller{call.tid}, Base{base.get()}, out.asked,
                                   follow ? Final::kFollow : Final::kNoFollow, Missing::kError);
    if (r.error) return r.error;
    out.object = std::move(r.object);
    if (by_fd && (::fcntl(out.object.get(), F_GETFL) & O_PATH) == 0) return ENOENT;
  }
  if (int error = object_facts(out.object.get(), out.facts)) return error;
  if (row.what == What::kLinkText && !out.facts.symlink) return out.asked.empty() ? ENOENT : EINVAL;
  if (int error = PathWalk::path_of(out.object.get(), out.facts.nlink == 0, out.path)) return error;
  // Init's links lead to what the agent has no view of.
  if (out.path.starts_with("/proc/1/")) return EACCES;
  out.inside = trap_.places.contains(out.facts.dev) || out.path.empty();
  return 0;
}

// A link's text is as tainted as its name; `unknown` where its directory has gone.
Result<kernel::Label> PathReads::label_of(const Pinned& pinned) const {
  if (mutant(Mutant::kPathReads)) return kernel::Label();
  const Reads reads = pinned.row->what == What::kWatch ? Reads::kFromNowOn : Reads::kOnce;
  CG_TRY(kernel::Label label, trap_.session.file_label(pinned.facts.identity, pinned.path, reads));
  if (pinned.row->what != What::kLinkText) return label;
  const std::string dir = pinned.path.substr(0, std::max<size_t>(1, pinned.path.rfind('/')));
  const Resolution parent =
      trap_.walk.resolve(Caller{}, Base{}, dir, Final::kNoFollow, Missing::kError);
  ObjectFacts facts;
  if (parent.error || object_facts(parent.object.get(), facts) != 0)
    return label.join(kernel::Label::unknown());
  CG_TRY(const kernel::Label names, trap_.session.file_label(facts.identity, dir, Reads::kOnce));
  return label.join(names);
}

void PathReads::handle(const TrappedCall& call) {
  Pinned pinned;
  int error = pin(call, pinned);
  // Opened before the last check that this is still the caller, so that nobody else's is written.
  auto writer = sandbox::RemoteWriter::open(call.tid);
  if (!trap_.listener.valid(call.id)) return;
  if (error == 0 && !writer) error = EFAULT;
  if (error == 0 && !pinned.inside) {
    kernel::OpenEffect effect;
    effect.path = pinned.path;
    effect.kind = pinned.facts.kind;
    effect.file = pinned.facts.identity;
    effect.read = true;
    effect.how = pinned.row->name;
    if (!pinned.attribute.empty()) (effect.how += '\0') += pinned.attribute;
    const CallInfo info{call.tid, pinned.row->name, pinned.asked, Waits::kYes};
    const auto label = label_of(pinned);
    const Judged judged =
        label ? trap_.session.judge(info, {effect, *label}, Hold{})
              : trap_.session.refuse_unknown(info, {effect, {}}, label.error().what);
    if (!judged.certificate) return trap_.decline(call, judged);
    if (kernel::action_digest(effect) != judged.certificate->digest()) error = EACCES;
  }
  if (error != 0) {
    trap_.listener.refuse(call.id, error);
    return;
  }
  Bytes out;
  int64_t result = 0;
  switch (pinned.row->what) {
    case What::kLinkText:
      result = read_link(trap_, call, pinned.asked, pinned.object.get(), pinned.room, out);
      break;
    case What::kAttribute:
      result = read_attribute(
          [&](char* data, size_t size) {
            return ::getxattr(pinned.through().c_str(), pinned.attribute.c_str(), data, size);
          },
          pinned.room, out);
      break;
    case What::kAttributeList:
      result = read_attribute(
          [&](char* data, size_t size) {
            return ::listxattr(pinned.through().c_str(), data, size);
          },
          pinned.room, out);
      break;
    case What::kWatch: {
      const auto mask = static_cast<uint32_t>(call.args[2]) & ~uint32_t{IN_DONT_FOLLOW};
      const int wd = ::inotify_add_watch(pinned.watcher.get(), pinned.through().c_str(), mask);
      result = wd >= 0 ? wd : -errno;
      break;
    }
  }
  if (result >= 0 && !out.empty() &&
      writer->write(call.args[pinned.row->buffer], out.data(), out.size()) != 0) {
    result = -EFAULT;
  }
  result >= 0 ? trap_.listener.answer(call, result)
              : trap_.listener.refuse(call.id, static_cast<int>(-result));
}

}  // namespace certgate::supervisor
