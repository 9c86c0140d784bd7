// Paths: our walk and the kernel's find the same object, or say the same errno, over a tree full of
// links.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <iterator>

#include "supervisor/path_walk.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate::supervisor;
using certgate::sandbox::UniqueFd;
namespace fs = std::filesystem;
namespace fuzz = certgate::fuzz;

namespace {

constexpr size_t kLongest = 1500;
constexpr int kTries = 20, kAgain = 10000;

// Stands for the agent's root; removed when the program ends.
class Tree {
 public:
  Tree() : path_((fs::temp_directory_path() / "certgate-fuzz-XXXXXX").string()) {
    CG_LAW(::mkdtemp(path_.data()) != nullptr);
    for (const char* directory : {"a", "a/b", "a/b/c", "d"}) fs::create_directory(in(directory));
    for (const char* file : {"file", "a/file", "a/b/file"})
      UniqueFd(::open(in(file).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    for (const auto& [name, target] : kLinks) fs::create_symlink(target, in(name));
    root_.reset(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    CG_LAW(root_);
  }
  ~Tree() { fs::remove_all(path_); }
  int root() const { return root_.get(); }

 private:
  static constexpr std::pair<const char*, const char*> kLinks[] = {{"abs", "/a/b"},
                                                                   {"a/up", ".."},
                                                                   {"a/b/far", "../../../../d"},
                                                                   {"loop", "loop"},
                                                                   {"ping", "a/pong"},
                                                                   {"a/pong", "/ping"},
                                                                   {"dangling", "a/nobody"},
                                                                   {"a/slash", "b/"},
                                                                   {"to_file", "a/b/file"},
                                                                   {"file_slash", "file/"},
                                                                   {"root", "/"},
                                                                   {"chain", "abs/../up/abs/c"},
                                                                   {"dot", "."},
                                                                   {"a/deep", "b/c/../c"},
                                                                   {"beyond", "/nobody/x"}};
  fs::path in(const char* name) const { return fs::path(path_) / name; }

  std::string path_;
  UniqueFd root_;
};

// Bytes below the table's size are whole components, so that most inputs lead somewhere.
constexpr const char* kWords[] = {"a",       "b",          "c",     "d",    "file",   "abs",
                                  "up",      "far",        "..",    ".",    "",       "loop",
                                  "ping",    "pong",       "dot",   "root", "chain",  "dangling",
                                  "to_file", "file_slash", "slash", "deep", "beyond", "nobody"};

std::string decode(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto word = static_cast<unsigned char>(c);
    if (word < std::size(kWords)) {
      out += kWords[word];
      out += '/';
    } else if (c != '\0') {
      out += c;
    }
    if (out.size() > kLongest) break;
  }
  return out;
}

// What the kernel says; the errno, or 0 with the object.
int by_kernel(int root, const std::string& path, Final final, struct stat& found) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC | (final == Final::kNoFollow ? O_NOFOLLOW : 0);
  how.resolve = RESOLVE_IN_ROOT;
  UniqueFd fd;
  // EAGAIN: somebody renamed something somewhere while ".." was looked up. ELOOP: perhaps; a walk
  // that loses its lock-free race starts afresh without forgetting the links it has counted.
  for (int tries = 0, again = 0; !fd && tries < kTries && again < kAgain;) {
    fd.reset(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
    if (!fd && errno != EAGAIN && errno != ELOOP) break;
    ++(!fd && errno == EAGAIN ? again : tries);
  }
  return fd ? (::fstat(fd.get(), &found), 0) : errno;
}

void same_object(int fd, const struct stat& wanted) {
  struct stat s {};
  CG_LAW(::fstat(fd, &s) == 0);
  CG_LAW(s.st_ino == wanted.st_ino && s.st_dev == wanted.st_dev);
}

}  // namespace

FUZZ_TARGET(path) {
  static const Tree tree;
  fuzz::Bytes in(data, size);
  const uint8_t choice = in.byte();
  const Final final = (choice & 1) != 0 ? Final::kFollow : Final::kNoFollow;
  const std::string base = (choice & 2) != 0 ? "/a/b" : "";
  std::string path = decode(in.rest());
  if ((choice & 4) != 0 && path.ends_with('/')) path.pop_back();
  if (path.empty()) return 0;

  UniqueFd start;
  if (!base.empty()) start.reset(::openat(tree.root(), "a/b", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const std::string whole = path[0] == '/' || base.empty() ? path : base + "/" + path;
  struct stat wanted {};
  const int error = by_kernel(tree.root(), whole, final, wanted);

  const PathWalk walk(tree.root());
  const Caller caller{::getpid()};
  const Resolution plain = walk.resolve(caller, Base{start.get()}, path, final, Missing::kError);
  CG_LAW(plain.error == error);
  if (error == 0) same_object(plain.object.get(), wanted);

  const Resolution making = walk.resolve(caller, Base{start.get()}, path, final, Missing::kParent);
  if (making.error != 0) {
    // A file cannot be made with a slash at its end, and the kernel says so first.
    CG_LAW(making.error == error ||
           (making.error == EISDIR && error == ENOENT && path.ends_with('/')));
  } else if (making.object) {
    CG_LAW(error == 0);
    same_object(making.object.get(), wanted);
  } else {
    CG_LAW(error == ENOENT);
    CG_LAW(!making.name.empty() && making.name.find('/') == std::string::npos);
    CG_LAW(making.name != "." && making.name != "..");
    struct stat s {};
    CG_LAW(::fstatat(making.parent.get(), making.name.c_str(), &s, AT_SYMLINK_NOFOLLOW) != 0 &&
           errno == ENOENT);
  }
  return 0;
}
