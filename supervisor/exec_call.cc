#include "supervisor/exec_call.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "kernel/mutant.h"
#include "sandbox/remote.h"
#include "sandbox/trace.h"
#include "supervisor/exec_proof.h"
#include "supervisor/exit_watch.h"
#include "supervisor/image.h"
#include "supervisor/inherited.h"

namespace certgate::supervisor {
namespace {

using sandbox::TrappedCall;
using sandbox::UniqueFd;

const char* name_of(int nr) { return nr == SYS_execveat ? "execveat" : "execve"; }

std::string with_fd_prefix(int dirfd, const std::string& path) {
  const std::string base = "/dev/fd/" + std::to_string(dirfd);
  return path.empty() ? base : base + "/" + path;
}

}  // namespace

kernel::ExecEffect PinnedExec::effect() const {
  kernel::ExecEffect e;
  for (const PinnedImage& i : images) e.images.push_back(i.image);
  for (const PinnedImage& i : loader) e.images.push_back(i.image);
  e.argv = argv;
  e.env = env;
  e.cwd = cwd;
  e.named = execfn;
  e.inherited = inherited;
  return e;
}

ExecCalls::ExecCalls(Trap& trap, ScriptBindings& bindings, ContentDigests& digests)
    : trap_(trap), bindings_(bindings), digests_(digests), tracer_([this] { run(); }) {}

ExecCalls::~ExecCalls() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  tracer_.join();
}

void ExecCalls::submit(const TrappedCall& call) {
  const std::lock_guard lock(mutex_);
  queue_.push_back(call);  // at most one entry per thread of the agent: each waits for its answer
  wake_.notify_one();
}

void ExecCalls::run_apart(std::function<void()> job) {
  const std::lock_guard lock(mutex_);
  jobs_.push_back(std::move(job));  // the gate has one for each of its few connections
  wake_.notify_one();
}

int ExecCalls::pin_program(const std::string& path, PinnedExec& pin) {
  PinnedImage named;
  if (int error = pin_image(::getpid(), Base{}, path, named)) return error;
  pin.asked = pin.execfn = path;
  pin.images.push_back(std::move(named));
  return pin_chain(::getpid(), Base{}, pin);
}

Result<kernel::Label> ExecCalls::images_label(const PinnedExec& pin, Reads reads) const {
  kernel::Label out;
  for (const auto* images : {&pin.images, &pin.loader}) {
    for (const PinnedImage& i : *images) {
      if (!i.labelled) continue;
      CG_TRY(const kernel::Label label,
             trap_.session.file_label(i.image.file, i.image.path, reads));
      out = out.join(label);
    }
  }
  return out;
}

// Only for tools that want to know: it takes a look at every descriptor.
void ExecCalls::look_at_descriptors(int tid, PinnedExec& pin) const {
  for (const kernel::Tool& tool : trap_.session.decider().policy().tools) {
    if (tool.descriptors != kernel::Tool::Descriptors::kStdio) continue;
    if (tool.program != pin.images[0].image.path) continue;
    // What cannot be looked at counts as there.
    if (inherited_descriptors(tid, 1, pin.inherited) != 0) pin.inherited = {-1};
    return;
  }
}

void ExecCalls::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty() || !jobs_.empty(); });
    if (stop_) return;
    if (queue_.empty()) {
      const auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
      continue;
    }
    const TrappedCall call = queue_.front();
    queue_.pop_front();
    lock.unlock();
    trap_.session.wait_for_room();
    handle(call);
    lock.lock();
  }
}

// The kernel knows the loader by its place and name: at the end of a chain, "ld-…". It needs no
// right of its own, so nothing else may stand there under such a name.
static bool poses_as_loader(const PinnedExec& pin) {
  if (!pin.loader.empty() || pin.images.size() < 2) return false;
  const std::string& path = pin.images.back().image.path;
  return path.compare(path.find_last_of('/') + 1, 3, "ld-") == 0;
}

void ExecCalls::handle(const TrappedCall& call) {
  PinnedExec pin;
  const int error = decode(call, pin);
  if (!trap_.listener.valid(call.id)) return;
  const CallInfo info{call.tid, name_of(call.nr), pin.asked, Waits::kYes};
  const bool poses = error == 0 && poses_as_loader(pin);
  if (error == EKEYREJECTED || poses) {
    // Runnable for the kernel, but not provable by us.
    const char* why =
        poses ? "an interpreter whose name begins like the ELF loader's (ld-) is not run"
              : "only files with a path and readable content can be certified for exec";
    trap_.listener.refuse(
        call.id, trap_.session.refuse_constraint(info, pin.asked, kernel::Verb::kExec, why));
    return;
  }
  if (error != 0) {
    trap_.listener.refuse(call.id, error);
    return;
  }
  const auto label = images_label(pin, Reads::kFromNowOn);
  kernel::Call judged_call{pin.effect(), {}};
  if (!label)
    return trap_.decline(call, trap_.session.refuse_unknown(info, judged_call, label.error().what));
  judged_call.object = *label;
  Judged judged = trap_.session.judge(info, judged_call, Hold{});
  if (!judged.certificate) return trap_.decline(call, judged);
  for (const kernel::Tool& tool : trap_.session.decider().policy().tools) {
    if (tool.name == judged.certificate->tool())
      pin.stdio_only = tool.descriptors == kernel::Tool::Descriptors::kStdio;
  }
  perform(call, std::move(judged), pin);
}

int ExecCalls::decode(const TrappedCall& call, PinnedExec& pin) {
  const bool at = call.nr == SYS_execveat;
  const uint64_t path = call.args[at ? 1 : 0];
  if (int error = sandbox::read_string(call.tid, path, kMaxPath, pin.asked)) return error;
  if (int error = pin_named(call, pin)) return error;
  const uint64_t argv = call.args[at ? 2 : 1], envp = call.args[at ? 3 : 2];
  if (int error = sandbox::read_strings(call.tid, argv, kMaxExecStrings, kMaxExecBytes, pin.argv))
    return error;
  if (int error = sandbox::read_strings(call.tid, envp, kMaxExecStrings, kMaxExecBytes, pin.env))
    return error;
  if (pin.argv.empty()) pin.argv.emplace_back();  // Linux gives such a program one empty argument
  auto cwd = sandbox::open_task_link(call.tid, "cwd");
  if (!cwd) return ESRCH;
  (void)PathWalk::path_of(cwd->get(), false, pin.cwd);  // "" where it has none: only tools ask
  if (int error = pin_chain(call.tid, Base{cwd->get()}, pin)) return error;
  look_at_descriptors(call.tid, pin);
  return 0;
}

int ExecCalls::pin_named(const TrappedCall& call, PinnedExec& pin) {
  const bool at = call.nr == SYS_execveat;
  const int dirfd = at ? static_cast<int>(call.args[0]) : AT_FDCWD;
  const uint64_t flags = at ? call.args[4] : 0;
  if (flags & ~uint64_t{AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW}) return EINVAL;
  const bool by_fd = pin.asked.empty() && (flags & AT_EMPTY_PATH);
  pin.execfn = dirfd == AT_FDCWD || (!pin.asked.empty() && pin.asked[0] == '/')
                   ? pin.asked
                   : with_fd_prefix(dirfd, pin.asked);
  UniqueFd base;
  if (int error = Trap::base_of(call.tid, dirfd, by_fd ? "." : pin.asked, base)) return error;
  PinnedImage named;
  if (by_fd) {
    named.fd = std::move(base);
  } else {
    const Final final = flags & AT_SYMLINK_NOFOLLOW ? Final::kNoFollow : Final::kFollow;
    Resolution r =
        trap_.walk.resolve(Caller{call.tid}, Base{base.get()}, pin.asked, final, Missing::kError);
    if (r.error) return r.error;
    named.fd = std::move(r.object);
  }
  if (int error = finish_image(named)) return error;
  pin.images.push_back(std::move(named));
  return 0;
}

// `image.fd` pins the object: checks that it can be executed, reads it, names it.
int ExecCalls::finish_image(PinnedImage& image) {
  if (int error = object_facts(image.fd.get(), image.facts)) return error;
  if (image.facts.symlink) return ELOOP;
  if (image.facts.kind != kernel::FileKind::kRegular) return EACCES;
  struct statvfs mount {};
  if (::fstatvfs(image.fd.get(), &mount) != 0 || (mount.f_flag & ST_NOEXEC)) return EACCES;
  if (::faccessat(image.fd.get(), "", X_OK, AT_EMPTY_PATH | AT_EACCESS) != 0) return errno;
  const bool deleted = image.facts.nlink == 0;
  if (int error = PathWalk::path_of(image.fd.get(), deleted, image.image.path)) return error;
  if (image.image.path.empty() || image.facts.nlink == 0) return EKEYREJECTED;
  const int readable = reopen(image.fd.get(), O_RDONLY | O_NONBLOCK);
  if (readable < 0) return readable == -EACCES ? EKEYREJECTED : -readable;
  image.fd.reset(readable);
  image.image.file = image.facts.identity;
  image.image.inside = trap_.places.contains(image.facts.dev);
  image.labelled = !image.image.inside;
  const auto digest = digests_.of(readable, image.facts);
  if (!digest) return digest.error().code != 0 ? digest.error().code : EIO;
  image.image.sha256 = *digest;
  return 0;
}

int ExecCalls::pin_image(int tid, Base base, const std::string& path, PinnedImage& out) {
  Resolution r = trap_.walk.resolve(Caller{tid}, base, path, Final::kFollow, Missing::kError);
  if (r.error) return r.error;
  out.fd = std::move(r.object);
  return finish_image(out);
}

// Follows #! lines to the binary, then the binary to its loader, as the kernel will.
int ExecCalls::pin_chain(int tid, Base cwd, PinnedExec& pin) {
  pin.final_argv = pin.argv;
  std::string name = pin.execfn;  // what the next interpreter is told to open
  for (int depth = 0;; ++depth) {
    const auto kind = image_kind(pin.images.back().fd.get());
    if (!kind) return kind.error().code != 0 ? kind.error().code : ENOEXEC;
    if (!kind->script) {
      if (!kind->loader) return 0;
      PinnedImage loader;
      if (int error = pin_image(tid, cwd, *kind->loader, loader)) return error;
      pin.loader.push_back(std::move(loader));
      return 0;
    }
    if (depth >= kMaxInterpreters) return ELOOP;
    const Shebang& shebang = *kind->script;
    std::vector<std::string> rewritten{shebang.interpreter};
    if (shebang.argument) rewritten.push_back(*shebang.argument);
    rewritten.push_back(name);
    if (!pin.final_argv.empty())
      rewritten.insert(rewritten.end(), pin.final_argv.begin() + 1, pin.final_argv.end());
    pin.final_argv = std::move(rewritten);
    pin.script_path = name;
    PinnedImage next;
    if (int error = pin_image(tid, cwd, shebang.interpreter, next)) return error;
    pin.images.push_back(std::move(next));
    name = shebang.interpreter;
  }
}

void ExecCalls::perform(const TrappedCall& call, Judged judged, PinnedExec& pin) {
  const kernel::Certificate certificate = *std::move(judged.certificate);
  const char* name = name_of(call.nr);
  const auto give_up = [&](int error, const char* grade) {
    trap_.session.outcome(judged.seq, name, call.tid, error, grade);
    trap_.listener.refuse(call.id, error);
  };
  if (kernel::action_digest(pin.effect()) != certificate.digest())
    return give_up(EACCES, "emulated");
  if (const auto seized = sandbox::seize_for_exec(call.tid); !seized) {
    return give_up(seized.error().code == ESRCH ? ESRCH : EACCES, "emulated");
  }
  const bool proceeding = trap_.listener.proceed_to_exec(call.id);
  const sandbox::ExecStop stop = sandbox::wait_exec(call.tid);
  using Kind = sandbox::ExecStop::Kind;
  if (!proceeding || stop.kind != Kind::kExeced) {
    if (stop.kind == Kind::kFailed) sandbox::detach(stop.pid);
    trap_.session.outcome(judged.seq, name, call.tid,
                          stop.kind == Kind::kFailed ? stop.error : ESRCH, "emulated");
    return;
  }
  const std::string wrong = difference(stop.pid, pin);
  if (!wrong.empty()) {
    sandbox::kill_traced(stop.pid);
    trap_.session.outcome(judged.seq, name, stop.pid, 0, "killed:proof");
    return;
  }
  std::optional<ScriptBinding> binding;
  if (!pin.script_path.empty()) {
    binding = ScriptBinding{pin.script_path, pin.images[pin.images.size() - 2].image, judged.seq};
  }
  if (!bindings_.bind(stop.pid, std::move(binding))) {
    sandbox::kill_traced(stop.pid);
    trap_.session.outcome(judged.seq, name, stop.pid, 0, "killed:proof");
    return;
  }
  started_ = true;
  const uint64_t started = trap_.session.image_started(stop.pid, judged.seq);
  if (trap_.exits != nullptr) trap_.exits->watch(stop.pid, started, judged.seq);
  trap_.session.outcome(judged.seq, name, stop.pid, 0, "exec-proved");
  sandbox::detach(stop.pid);
}

std::string ExecCalls::difference(pid_t pid, const PinnedExec& pin) {
  if (mutant(Mutant::kExecProof)) return "";
  const auto proof = read_exec_proof(pid);
  if (!proof) return proof.error().what;
  const PinnedImage& binary = pin.binary();
  const auto same_file = [this](const PinnedImage& image, int fd) {
    ObjectFacts facts;
    if (object_facts(fd, facts) != 0 || !(facts.identity == image.image.file)) return false;
    const auto digest = digests_.of(image.fd.get(), facts);
    return digest && *digest == image.image.sha256;
  };
  if (!same_file(binary, proof->exe.get())) return "another executable";
  if ((proof->loader_base == 0) != pin.loader.empty()) return "another loader";
  if (!pin.loader.empty()) {
    const PinnedImage& loader = pin.loader[0];
    if (!maps_file_at(pid, proof->loader_base, loader.fd.get())) return "another loader";
    if (!same_file(loader, loader.fd.get())) return "another loader";
  }
  if (proof->argv != pin.final_argv) return "other arguments";
  if (proof->env != pin.env) return "another environment";
  if (proof->execfn != pin.execfn) return "another AT_EXECFN";
  if (pin.stdio_only && leaves_descriptors(pid)) return "another descriptor";
  const std::vector<uint32_t> uids(2, trap_.uid), gids(2, trap_.gid);
  if (proof->uids != uids || proof->gids != gids || proof->privileged) return "other credentials";
  return "";
}

}  // namespace certgate::supervisor
