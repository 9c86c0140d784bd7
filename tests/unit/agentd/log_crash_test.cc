// Death and EIO at every file system call of an append: ptrace is the hand that does it.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <optional>
#include <set>

#include "agentd/log_snapshot.h"
#include "agentd/state_dir.h"
#include "log_fixture.h"
#include "supervisor/segment_writer.h"

#if defined(__x86_64__)

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::RecordKind;

constexpr uint64_t kBefore = 254;  // so that the run under test crosses a tile
constexpr int kMaxCalls = 2000;

const std::set<unsigned long long> kFileCalls = {
    SYS_openat,     SYS_write,     SYS_pread64,  SYS_fsync,     SYS_fdatasync,
    SYS_renameat,   SYS_renameat2, SYS_unlinkat, SYS_mkdirat,   SYS_linkat,
    SYS_newfstatat, SYS_flock,     SYS_fchmod,   SYS_getdents64,
    SYS_fallocate,  SYS_ftruncate, SYS_fstatfs,  SYS_madvise};

bool is_file_call(const user_regs_struct& regs) {
  // Of the mappings those of files: the others are malloc's.
  if (regs.orig_rax == SYS_mmap) return static_cast<int>(regs.r8) >= 0;
  return kFileCalls.contains(regs.orig_rax);
}

// What the child has reached; it survives the child.
struct Progress {
  uint64_t appended = 0;
  uint64_t sealed = 0;
  bool mapped = false;
};

std::vector<uint8_t> frame_of(const kernel::Record& record) {
  std::vector<uint8_t> bytes, frame;
  kernel::encode_record(record, bytes);
  EXPECT_TRUE(supervisor::append_frame(bytes.data(), bytes.size(), frame));
  return frame;
}

enum class Fault { kKill, kEio, kNoSpace };

class LogCrashTest : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    {
      LogStore store = opened();
      whole_run(store, "before", kBefore);
    }
    fs::rename(state_, root_ + "/template");
    void* page = ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(page, MAP_FAILED);
    progress_ = static_cast<Progress*>(page);
  }
  void TearDown() override {
    ::munmap(progress_, sizeof(Progress));
    LogTest::TearDown();
  }

  // As the authority does while the disk is full: there is room at the second attempt.
  static bool tried_again(const std::function<Status()>& work) {
    const Status done = work();
    return done || (disk_full(done.error()) && work());
  }

  // The life of one run, as the authority and its supervisor lead it.
  bool live() const {
    auto store = LogStore::open(state_);
    if (!store || !store->recover()) return false;
    auto segment = store->create_segment("crash");
    if (!segment) return false;
    std::optional<supervisor::SegmentWriter> writer;
    for (uint64_t seq = 1; seq <= 4; ++seq) {
      const auto kind = seq == 4 ? RecordKind::kStop : RecordKind::kCertificate;
      if (seq == 1 && !append_record(segment->append.get(), record("crash", seq, kind)))
        return false;
      if (seq == 2) writer.emplace(std::move(segment->append));
      if (seq > 1 && (!writer->append(frame_of(record("crash", seq, kind))) || !writer->keep_room()))
        return false;
      if (writer && writer->mapped()) progress_->mapped = true;
      progress_->appended = seq;
      if (seq != 2) continue;
      if (!tried_again([&]() -> Status {
            CG_CHECK(store->seal(segment->tail));
            return ok();
          }))
        return false;
      progress_->sealed = seq;
    }
    if (!tried_again([&] { return store->finish(segment->tail); })) return false;
    progress_->sealed = 4;
    return true;
  }

  // Runs live() and strikes at its `nth` file call (from 1). False when there was no such call.
  bool strike(Fault fault, int nth) {
    *progress_ = Progress();
    const pid_t child = ::fork();
    if (child == 0) {
      ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
      ::raise(SIGSTOP);
      ::_exit(live() ? 0 : 1);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
    int calls = 0;
    bool entry = true, failing = false, struck = false;
    for (;;) {
      if (::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) != 0) break;
      if (::waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) break;
      if (WSTOPSIG(status) != (SIGTRAP | 0x80)) continue;
      user_regs_struct regs{};
      ::ptrace(PTRACE_GETREGS, child, nullptr, &regs);
      if (entry && is_file_call(regs) && ++calls == nth) {
        struck = true;
        if (fault == Fault::kKill) {
          ::kill(child, SIGKILL);
        } else {
          regs.orig_rax = ~0ull;  // no such call: nothing happens
          failing = true;
          ::ptrace(PTRACE_SETREGS, child, nullptr, &regs);
        }
      } else if (!entry && failing) {
        regs.rax = static_cast<unsigned long long>(fault == Fault::kEio ? -EIO : -ENOSPC);
        failing = false;
        ::ptrace(PTRACE_SETREGS, child, nullptr, &regs);
      }
      entry = !entry;
    }
    if (!WIFEXITED(status) && !WIFSIGNALED(status)) ::waitpid(child, &status, 0);
    went_on_ += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return struck;
  }

  // The next start: everything that was appended is in the log, nothing twice, nothing changed.
  void expect_whole(int nth) {
    const uint64_t signed_before = records();
    {
      LogStore store = opened();
      const Status done = store.recover();
      ASSERT_TRUE(done) << nth << ": " << done.error().what;
    }
    ASSERT_EQ(verdict(), "yes") << nth;
    EXPECT_GE(records(), signed_before) << nth;
    const auto snapshot = LogSnapshot::open(state_);
    ASSERT_TRUE(snapshot);
    uint64_t before = 0, found = 0;
    ASSERT_TRUE(snapshot->each([&](const LogEntry& entry) {
      if (entry.record.run == "before") ++before;
      if (entry.record.run == "crash" && entry.record.kind != RecordKind::kGap) ++found;
      return ok();
    }));
    EXPECT_EQ(before, kBefore);
    EXPECT_GE(found, progress_->appended) << nth;
    EXPECT_LE(found, progress_->appended + 1)
        << nth;  // written, but it died before it could say so
    EXPECT_TRUE(fs::is_empty(state_ + "/segments")) << nth;
  }

  void strike_everywhere(Fault fault) {
    const sandbox::UniqueFd here(::open(root_.c_str(), O_PATH | O_CLOEXEC));
    const bool maps = supervisor::keeps_reserved_blocks(here.get());
    int nth = 1;
    for (; nth < kMaxCalls; ++nth) {
      fs::remove_all(state_);
      fs::copy(root_ + "/template", state_, fs::copy_options::recursive);
      const int before = went_on_;
      if (!strike(fault, nth)) break;
      // Whoever came to the end of its life has left nothing for the next start to put right.
      if (went_on_ > before && fault == Fault::kNoSpace) {
        // Only publication may wait for the next one to take the lock.
        const std::string said = verdict();
        ASSERT_TRUE(said == "yes" || said.starts_with("no: log/checkpoint: the log has"))
            << nth << said;
      }
      expect_whole(nth);
      if (HasFatalFailure()) return;
    }
    EXPECT_GT(nth, 60);
    EXPECT_EQ(progress_->sealed, 4u);
    EXPECT_EQ(progress_->mapped, maps);
  }

  Progress* progress_ = nullptr;
  int went_on_ = 0;  // lives that came to their end
};

TEST_F(LogCrashTest, DeathAtAnyFileCallLosesNothingThatWasAppended) {
  strike_everywhere(Fault::kKill);
}

TEST_F(LogCrashTest, AnErrorOfAnyFileCallLosesNothingThatWasAppended) {
  strike_everywhere(Fault::kEio);
}

TEST_F(LogCrashTest, AFullDiskAtAnyFileCallLosesNothingAndTheSealingGoesOn) {
  strike_everywhere(Fault::kNoSpace);
  EXPECT_GT(went_on_, 20);
}

}  // namespace
}  // namespace certgate::agentd

#endif
