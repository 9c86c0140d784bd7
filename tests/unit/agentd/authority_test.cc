#include "agentd/authority.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "agentd/cli/verbs.h"
#include "supervisor/label_view.h"
#include "supervisor/recorder.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;

class AuthorityTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-authority-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    request_.command_line = "true";
    request_.initial_label = "operator";
    request_.policy_digest.fill(0x11);
  }
  void TearDown() override { fs::remove_all(dir_); }
  AuthorityPaths paths() const { return {dir_ + "/state", dir_ + "/labels"}; }
  int verify() const {
    testing::internal::CaptureStdout();
    const int status = cli::audit_main({"verify", "--state", dir_ + "/state"});
    testing::internal::GetCapturedStdout();
    return status;
  }

  std::string dir_;
  RunRequest request_;
};

// Plays a supervisor: takes the grant, records, labels a file, and ends as told.
[[noreturn]] void play_supervisor(int channel_fd, bool orderly) {
  auto grant = supervisor::receive_grant(channel_fd);
  if (!grant) ::_exit(1);
  const auto chain = kernel::verify_chain(grant->token_chain, grant->public_key);
  if (!chain || chain->back().holder != grant->run) ::_exit(2);
  auto labels =
      supervisor::LabelView::open(std::move(grant->label_table), std::move(grant->label_names));
  supervisor::Recorder recorder(grant->run, chain->back().id, std::move(grant->segment),
                                grant->next_seq);
  supervisor::Channel channel{sandbox::UniqueFd(channel_fd)};
  kernel::Record record;
  record.kind = kernel::RecordKind::kRefusal;
  record.object = "/x";
  record.reason = "FORBIDDEN";
  for (int i = 0; i < 300; ++i) {
    if (!recorder.append(record, kernel::Durability::kOrdered)) ::_exit(3);
  }
  if (!channel.join_file({1, 2, 3}, *kernel::Label::parse("web:a.test"))) ::_exit(4);
  const auto found = labels->find({1, 2, 3});
  if (!found || !*found || (*found)->text() != "web:a.test") ::_exit(5);
  if (!orderly) ::raise(SIGKILL);
  if (!recorder.close({})) ::_exit(6);
  ::_exit(0);
}

void run_once(const AuthorityPaths& paths, const RunRequest& request, bool orderly) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    play_supervisor(ends[1], orderly);
  }
  ::close(ends[1]);
  const sandbox::UniqueFd channel(ends[0]);
  const sandbox::UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  {
    auto authority = Authority::open(paths);
    ASSERT_TRUE(authority) << authority.error().what;
    auto run = authority->begin(request);
    ASSERT_TRUE(run) << run.error().what;
    EXPECT_EQ(run->id.size(), 8u);
    ASSERT_TRUE(supervisor::send_grant(channel.get(), run->grant));
    run->grant = {};
    const auto served = authority->serve(channel.get(), pidfd.get());
    EXPECT_TRUE(served) << served.error().what;
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, orderly ? 0 : SIGKILL);
    const auto finished = authority->finish();
    EXPECT_TRUE(finished) << finished.error().what;
  }
}

TEST_F(AuthorityTest, ARunIsSealedAndVerifies) {
  run_once(paths(), request_, true);
  EXPECT_EQ(verify(), 0);
}

TEST_F(AuthorityTest, AKilledSupervisorsRecordsAreSealedToo) {
  run_once(paths(), request_, false);
  EXPECT_EQ(verify(), 0);
  run_once(paths(), request_, true);
  EXPECT_EQ(verify(), 0);
}

TEST_F(AuthorityTest, SeveralShareOneStateDirectory) {
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(::fork());
    if (children.back() == 0) {
      run_once(paths(), request_, i % 2 == 0);
      ::_exit(testing::Test::HasFailure() ? 1 : 0);
    }
  }
  for (const pid_t child : children) {
    int status = 1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(verify(), 0);
}

}  // namespace
}  // namespace certgate::agentd
