// Replays the corpus of every fuzz target, and mutations of each file, without a fuzzer.
//
//   certgate_fuzz_replay CORPUS [--mutations N]        every target; last line:
//                                                      "fuzz-replay: N passed, N failed, N skipped"
//   certgate_fuzz_replay --one TARGET FILE [MUTATION]  one input, in this process, for a debugger
//
// A mutation is made from the target's name, the file's name and its number alone, so a failure is
// the same on every machine. Each target runs in a child: a broken law or a crash costs one file.
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "tests/fuzz/fuzz.h"

namespace certgate::fuzz {
namespace {

namespace fs = std::filesystem;
using Input = std::vector<uint8_t>;

constexpr size_t kDefaultMutations = 300;
constexpr size_t kMaxInput = 1u << 17;
constexpr unsigned kSecondsPerFile = 60;  // an input that does not end is a failure too

std::map<std::string, Target>& targets() {
  static std::map<std::string, Target> all;
  return all;
}

struct Case {
  std::string target;
  fs::path file;
};

// Where the child is: shared with its parent, which reports it when the child dies.
struct Progress {
  size_t next_case;
  size_t mutation;
};

// xorshift64*: no library, the same on every machine.
class Random {
 public:
  explicit Random(std::string_view seed) {
    for (const char c : seed) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
    if (state_ == 0) state_ = 1;
  }
  size_t below(size_t bound) { return bound == 0 ? 0 : next() % bound; }

 private:
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  uint64_t state_ = 0xcbf29ce484222325u;
};

Input read_input(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  Input out((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.good() && !in.eof()) {
    std::fprintf(stderr, "cannot read %s\n", file.c_str());
    std::exit(2);
  }
  out.resize(std::min(out.size(), kMaxInput));
  return out;
}

std::ptrdiff_t at(size_t index) { return static_cast<std::ptrdiff_t>(index); }

void mutate_once(Input& input, const Input& other, Random& random) {
  static constexpr uint8_t kTelling[] = {0,   1,   0x7f, 0x80, 0xff, '\n',
                                         '/', '*', '"',  ',',  ':',  ' '};
  const size_t where = random.below(input.size());
  const size_t length = 1 + random.below(std::min<size_t>(input.size() - where, 16));
  switch (random.below(7)) {
    case 0:  // one bit
      input[where] ^= static_cast<uint8_t>(1u << random.below(8));
      break;
    case 1:
      input[where] = kTelling[random.below(std::size(kTelling))];
      break;
    case 2:  // cut out
      input.erase(input.begin() + at(where), input.begin() + at(where + length));
      break;
    case 3: {  // repeat
      const Input part(input.begin() + at(where), input.begin() + at(where + length));
      const size_t times = 1 + random.below(8);
      for (size_t i = 0; i < times; ++i)
        input.insert(input.begin() + at(where), part.begin(), part.end());
      break;
    }
    case 4:
      input.insert(input.begin() + at(where), static_cast<uint8_t>(random.below(256)));
      break;
    case 5:  // cut off
      input.resize(where);
      break;
    default: {  // a piece of another file of the same target
      if (other.empty()) break;
      const size_t from = random.below(other.size());
      const size_t n = 1 + random.below(std::min<size_t>(other.size() - from, 64));
      input.insert(input.begin() + at(where), other.begin() + at(from),
                   other.begin() + at(from + n));
    }
  }
}

// Mutation 0 is the file itself.
Input mutated(const Case& c, const Input& original, const Input& other, size_t mutation) {
  Input out = original;
  if (mutation == 0) return out;
  Random random(c.target + "/" + c.file.filename().string() + "/" + std::to_string(mutation));
  const size_t steps = 1 + random.below(4);
  for (size_t i = 0; i < steps && !out.empty(); ++i) mutate_once(out, other, random);
  out.resize(std::min(out.size(), kMaxInput));
  return out;
}

// A copy of exactly the right size on the heap, so that a sanitizer sees any byte too far.
void run_input(Target target, const Input& input) {
  const Input exact(input.begin(), input.end());
  target(exact.data(), exact.size());
}

std::vector<Case> cases_in(const fs::path& corpus) {
  std::vector<Case> out;
  for (const auto& [name, target] : targets()) {
    std::vector<fs::path> files;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(corpus / name, error))
      if (entry.is_regular_file()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    if (files.empty()) {
      std::fprintf(stderr, "FAIL %s: no corpus in %s\n", name.c_str(), (corpus / name).c_str());
      std::exit(1);
    }
    for (fs::path& file : files) out.push_back({name, std::move(file)});
  }
  return out;
}

Input neighbour(const std::vector<Case>& cases, size_t index) {
  for (const size_t next : {index + 1, index - 1}) {
    if (next < cases.size() && cases[next].target == cases[index].target)
      return read_input(cases[next].file);
  }
  return {};
}

void run_case(const std::vector<Case>& cases, size_t index, size_t mutations, Progress& progress) {
  const Case& c = cases[index];
  const Input original = read_input(c.file), other = neighbour(cases, index);
  ::alarm(kSecondsPerFile);
  for (size_t i = 0; i <= mutations; ++i) {
    progress.mutation = i;
    run_input(targets().at(c.target), mutated(c, original, other, i));
  }
  ::alarm(0);
}

// Runs cases from progress.next_case on in a child; true when all of them passed.
bool run_rest(const std::vector<Case>& cases, size_t mutations, Progress& progress) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) std::abort();
  if (child == 0) {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    for (; progress.next_case < cases.size(); ++progress.next_case)
      run_case(cases, progress.next_case, mutations, progress);
    std::exit(0);  // destructors of the targets' own directories
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child) std::abort();
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  const Case& c = cases[std::min(progress.next_case, cases.size() - 1)];
  std::printf("FAIL %s: %s %d; again: certgate_fuzz_replay --one %s %s %zu\n", c.target.c_str(),
              WIFSIGNALED(status) ? "signal" : "exit status",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), c.target.c_str(),
              c.file.c_str(), progress.mutation);
  return false;
}

int replay_all(const fs::path& corpus, size_t mutations) {
  const std::vector<Case> cases = cases_in(corpus);
  void* shared =
      ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) std::abort();
  auto& progress = *new (shared) Progress{0, 0};
  size_t failed = 0;
  while (progress.next_case < cases.size() && !run_rest(cases, mutations, progress)) {
    ++failed;
    ++progress.next_case;
  }
  std::printf("fuzz-replay: %zu passed, %zu failed, 0 skipped\n", cases.size() - failed, failed);
  return failed == 0 && !cases.empty() ? 0 : 1;
}

int replay_one(const std::string& target, const fs::path& file, size_t mutation) {
  const auto it = targets().find(target);
  if (it == targets().end()) {
    std::fprintf(stderr, "no target '%s'\n", target.c_str());
    return 2;
  }
  const Case c{target, file};
  std::vector<Case> around;
  const fs::path dir = file.has_parent_path() ? file.parent_path() : fs::path(".");
  for (const auto& entry : fs::directory_iterator(dir)) around.push_back({target, entry.path()});
  std::sort(around.begin(), around.end(),
            [](const Case& a, const Case& b) { return a.file < b.file; });
  const auto here = std::find_if(around.begin(), around.end(),
                                 [&](const Case& each) { return each.file == file; });
  const Input other = neighbour(around, static_cast<size_t>(here - around.begin()));
  run_input(it->second, mutated(c, read_input(file), other, mutation));
  std::printf("ended well\n");
  return 0;
}

}  // namespace

Registered::Registered(const char* name, Target target) { targets()[name] = target; }

int replay(const std::vector<std::string>& args) {
  if (args.size() >= 3 && args[0] == "--one")
    return replay_one(args[1], args[2], args.size() > 3 ? std::stoul(args[3]) : 0);
  if (args.size() == 1) return replay_all(args[0], kDefaultMutations);
  if (args.size() == 3 && args[1] == "--mutations") return replay_all(args[0], std::stoul(args[2]));
  std::fprintf(
      stderr,
      "usage: certgate_fuzz_replay CORPUS [--mutations N] | --one TARGET FILE [MUTATION]\n");
  return 2;
}

}  // namespace certgate::fuzz

int main(int argc, char** argv) {
  return certgate::fuzz::replay(std::vector<std::string>(argv + 1, argv + argc));
}
