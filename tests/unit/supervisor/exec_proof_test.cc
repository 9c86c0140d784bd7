#include "supervisor/exec_proof.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include "sandbox/remote.h"
#include "supervisor/image.h"

namespace certgate::supervisor {
namespace {

using sandbox::UniqueFd;

constexpr const char* kProgram = "/bin/true";

UniqueFd open_file(const std::string& path) {
  return UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
}

bool same_object(int a, int b) {
  struct stat x {
  }, y{};
  return ::fstat(a, &x) == 0 && ::fstat(b, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

// A child that has just exec'd and has run no instruction of the new image.
class StoppedAtExec {
 public:
  StoppedAtExec(const std::string& program, const std::vector<std::string>& argv,
                const std::vector<std::string>& env) {
    const auto args = pointers(argv), variables = pointers(env);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::execve(program.c_str(), args.data(), variables.data());
      ::_exit(99);
    }
    int status = 0;
    stopped_ = ::waitpid(pid_, &status, 0) == pid_ && WIFSTOPPED(status);
  }
  ~StoppedAtExec() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  StoppedAtExec(const StoppedAtExec&) = delete;
  StoppedAtExec& operator=(const StoppedAtExec&) = delete;
  bool stopped() const { return stopped_; }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  bool stopped_ = false;
};

void expect_proved(const std::vector<std::string>& argv, const std::vector<std::string>& env) {
  const StoppedAtExec child(kProgram, argv, env);
  ASSERT_TRUE(child.stopped());
  const auto proof = read_exec_proof(child.pid());
  ASSERT_TRUE(proof) << proof.error().what;
  EXPECT_EQ(proof->argv, argv);
  EXPECT_EQ(proof->env, env);
  EXPECT_EQ(proof->execfn, kProgram);
}

TEST(ExecProof, SaysWhatTheNewProgramWillSeeByteForByte) {
  expect_proved({"true"}, {});
  expect_proved({"true", "", "a b", "\xff\xfe\n"}, {"A=1", "", "no equals sign", "B="});
  // More than one piece of stack: many strings, and long ones.
  expect_proved(std::vector<std::string>(5000, "argument"), std::vector<std::string>(3000, "E=x"));
  expect_proved({"true", std::string(100'000, 'a'), std::string(8192, 'b')},
                {"BIG=" + std::string(120'000, 'c')});
}

TEST(ExecProof, NamesTheFileTheLoaderAndTheCredentials) {
  const StoppedAtExec child(kProgram, {"true"}, {});
  ASSERT_TRUE(child.stopped());
  const auto proof = read_exec_proof(child.pid());
  ASSERT_TRUE(proof) << proof.error().what;
  const UniqueFd program = open_file(kProgram);
  EXPECT_TRUE(same_object(proof->exe.get(), program.get()));
  EXPECT_FALSE(proof->privileged);
  for (const uint32_t uid : proof->uids) EXPECT_EQ(uid, ::getuid());
  for (const uint32_t gid : proof->gids) EXPECT_EQ(gid, ::getgid());
  EXPECT_EQ(proof->uids.size(), 2u);

  const auto kind = image_kind(program.get());
  ASSERT_TRUE(kind && kind->loader);
  const UniqueFd loader = open_file(*kind->loader);
  ASSERT_NE(proof->loader_base, 0u);
  EXPECT_TRUE(maps_file_at(child.pid(), proof->loader_base, loader.get()));
  EXPECT_FALSE(maps_file_at(child.pid(), proof->loader_base, program.get()));
  EXPECT_FALSE(maps_file_at(child.pid(), proof->loader_base + 1, loader.get()));
}

TEST(ExecProof, OfAProcessThatHasEndedIsAnError) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(read_exec_proof(child));
  const UniqueFd program = open_file(kProgram);
  EXPECT_FALSE(maps_file_at(child, 0x1000, program.get()));
}

TEST(ExecProof, OfAProcessThatIsNotTracedIsAnError) { EXPECT_FALSE(read_exec_proof(::getpid())); }

// A path says nothing about a mapping: a file with the same content and name is another file.
TEST(MapsFileAt, KnowsTheFileNotItsNameOrContent) {
  std::string name = "/tmp/certgate-maps-XXXXXX";
  const UniqueFd file(::mkstemp(name.data()));
  ASSERT_EQ(::ftruncate(file.get(), 8192), 0);
  void* at = ::mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE, file.get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  const auto address = reinterpret_cast<uint64_t>(at);
  EXPECT_TRUE(maps_file_at(::getpid(), address, file.get()));
  EXPECT_FALSE(maps_file_at(::getpid(), address + 4096, file.get()));  // not its start
  ASSERT_EQ(::unlink(name.c_str()), 0);
  const UniqueFd other(::open(name.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(other.get(), 8192), 0);
  EXPECT_FALSE(maps_file_at(::getpid(), address, other.get()));
  EXPECT_TRUE(maps_file_at(::getpid(), address, file.get()));
  ::munmap(at, 8192);
  ::unlink(name.c_str());
}

}  // namespace
}  // namespace certgate::supervisor
