#include "bench/scene.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

namespace certgate::bench {
namespace {

namespace fs = std::filesystem;
using sandbox::UniqueFd;

// certgate never runs an agent as root: it takes the workspace's owner, here "nobody".
constexpr uid_t kOrdinaryUid = 65534;
constexpr size_t kSmallFileBytes = 4096;
constexpr size_t kHostTreeFiles = 1000;      // fewer headers than this are no tree worth searching
constexpr size_t kFullTreeFiles = 3000;
constexpr size_t kSmallTreeFiles = 200;
constexpr size_t kFilesPerDirectory = 50;
constexpr size_t kMaxOpenPeers = 1024;
constexpr const char* kHostTree = "/usr/include";

Status write_file(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  return out ? ok() : Status(fail("write " + path + ": is the disk full?"));
}

// A whole tree to the ordinary uid; nothing to do for an ordinary user.
Status give_away(const std::string& root) {
  if (::geteuid() != 0) return ok();
  std::error_code error;
  if (::lchown(root.c_str(), kOrdinaryUid, kOrdinaryUid) != 0) return fail_errno("chown " + root, errno);
  for (const auto& entry : fs::recursive_directory_iterator(root, error)) {
    if (::lchown(entry.path().c_str(), kOrdinaryUid, kOrdinaryUid) != 0) {
      return fail_errno("chown " + entry.path().string(), errno);
    }
  }
  return error ? Status(fail("list " + root + ": " + error.message())) : ok();
}

size_t count_headers(const std::string& root, size_t enough) {
  size_t count = 0;
  std::error_code error;
  fs::recursive_directory_iterator at(root, fs::directory_options::skip_permission_denied, error);
  for (; !error && at != fs::recursive_directory_iterator() && count < enough; at.increment(error)) {
    if (at->path().extension() == ".h") ++count;
  }
  return count;
}

// Headers of 1 to 16 kB, as unequal as real ones, the same in every run.
Status make_tree(const std::string& root, size_t files) {
  constexpr const char* kLine = "extern int function_{0}_{1}(const struct object_{0} *object, int argument_{1});\n";
  for (size_t i = 0; i < files; ++i) {
    const std::string dir = fmt::format("{}/part{:03}", root, i / kFilesPerDirectory);
    std::error_code error;
    fs::create_directories(dir, error);
    if (error) return fail("make " + dir + ": " + error.message());
    std::string text;
    for (size_t line = 0; line < 12 + i * 37 % 190; ++line) text += fmt::format(kLine, i, line);
    CG_CHECK(write_file(fmt::format("{}/header{:04}.h", dir, i), text));
  }
  return ok();
}

std::string policy_text(uint16_t port) {
  constexpr const char* kAccept =
      R"(["operator", "user", "unknown", "web:*", "file:*", "model"])";
  return fmt::format(R"(# Everything is allowed: the price of judging is measured, not the judgement.
name = "bench"

[[zone]]
name = "host"
paths = ["/**"]
origin = "operator"

[[rule]]
id = "files"
why = "The benchmark reads, writes and executes what it likes."
allow = ["read", "write", "exec"]
paths = ["/**"]
accept = {0}

[[rule]]
id = "listener"
why = "The benchmark connects to its own listener on host loopback."
allow = ["connect"]
to = ["127.0.0.1:{1}"]
via = "127.0.0.1:{1}"
origin = "user"
accept = {0}
)",
                     kAccept, port);
}

// Drops each peer when it closes. One that never does costs a slot, and the oldest goes first.
[[noreturn]] void serve_connections(int listener) {
  std::vector<pollfd> ready{{listener, POLLIN, 0}};
  const linger reset{1, 0};
  for (;;) {
    if (::poll(ready.data(), ready.size(), -1) < 0 && errno != EINTR) ::_exit(1);
    for (size_t i = ready.size() - 1; i > 0; --i) {
      char drop[256];
      if (ready[i].revents == 0 || ::recv(ready[i].fd, drop, sizeof drop, MSG_DONTWAIT) > 0) continue;
      ::close(ready[i].fd);
      ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if ((ready[0].revents & POLLIN) == 0) continue;
    const int peer = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (peer < 0) continue;
    ::setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    ready.push_back({peer, POLLIN, 0});
    if (ready.size() <= kMaxOpenPeers) continue;
    ::close(ready[1].fd);
    ready.erase(ready.begin() + 1);
  }
}

Result<std::string> own_path() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  if (error) return fail("read /proc/self/exe: " + error.message());
  return self.string();
}

Status fill_workspace(Scene& scene, Scene::Size size) {
  std::error_code error;
  fs::create_directory(scene.workspace, error);
  if (!error) fs::copy_file("/proc/self/exe", scene.inner_program, error);
  if (!error) fs::permissions(scene.inner_program, fs::perms(0755), error);
  if (error) return fail("fill " + scene.workspace + ": " + error.message());
  CG_CHECK(write_file(scene.small_file, std::string(kSmallFileBytes, 'x')));
  const size_t found = size == Scene::Size::kFull ? count_headers(kHostTree, kHostTreeFiles) : 0;
  if (found >= kHostTreeFiles) {
    scene.tree = kHostTree;
    scene.tree_note = kHostTree;
  } else {
    const size_t files = size == Scene::Size::kFull ? kFullTreeFiles : kSmallTreeFiles;
    scene.tree = scene.workspace + "/headers";
    scene.tree_note = fmt::format("{} generated headers", files);
    CG_CHECK(make_tree(scene.tree, files));
  }
  return give_away(scene.workspace);
}

}  // namespace

Result<EchoHost> EchoHost::start() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr generic{};
  std::memcpy(&generic, &address, sizeof generic);
  socklen_t size = sizeof generic;
  if (!listener || ::bind(listener.get(), &generic, size) != 0 || ::listen(listener.get(), SOMAXCONN) != 0 ||
      ::getsockname(listener.get(), &generic, &size) != 0) {
    return fail_errno("listen on 127.0.0.1", errno);
  }
  std::memcpy(&address, &generic, sizeof address);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno("start the listener's process", errno);
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    serve_connections(listener.get());
  }
  return EchoHost(pid, ntohs(address.sin_port));
}

EchoHost::EchoHost(EchoHost&& other) noexcept : pid_(std::exchange(other.pid_, -1)), port_(other.port_) {}

EchoHost::~EchoHost() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<TempDir> TempDir::make() {
  const char* base = std::getenv("TMPDIR");
  std::error_code error;
  // Resolved, so that the path is the same inside a sandbox.
  const fs::path real = fs::canonical(base != nullptr && base[0] == '/' ? base : "/tmp", error);
  if (error) return fail(std::string("TMPDIR: ") + error.message() + "; set it to an existing directory");
  std::string path = real.string() + "/certgate-bench.XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) return fail_errno("make " + path + " (set TMPDIR to a writable one)", errno);
  TempDir dir(path);
  // The agent's uid must be able to pass through.
  if (::chmod(path.c_str(), 0755) != 0) return fail_errno("chmod " + path, errno);
  return dir;
}

TempDir::TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, {})) {}

TempDir::~TempDir() {
  if (path_.empty()) return;
  std::error_code error;
  fs::remove_all(path_, error);   // what cannot be removed has no one to be told
}

Result<Scene> Scene::make(Size size) {
  CG_TRY(TempDir dir, TempDir::make());
  CG_TRY(EchoHost host, EchoHost::start());
  CG_TRY(const std::string self, own_path());
  Scene scene{std::move(dir), std::move(host), {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  const std::string root = scene.dir.path();
  scene.workspace = root + "/workspace";
  scene.inner_program = scene.workspace + "/certgate-bench";
  scene.small_file = scene.workspace + "/small.txt";
  scene.policy = root + "/policy.toml";
  scene.state = root + "/state";
  scene.labels = root + "/labels";
  scene.error_file = root + "/stderr";
  scene.certgate = self.substr(0, self.find_last_of('/')) + "/certgate";
  CG_CHECK(fill_workspace(scene, size));
  CG_CHECK(write_file(scene.policy, policy_text(scene.host.port())));
  const std::string log = root + "/record.log";
  scene.record_log.reset(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!scene.record_log) return fail_errno("create " + log, errno);
  return scene;
}

}  // namespace certgate::bench
