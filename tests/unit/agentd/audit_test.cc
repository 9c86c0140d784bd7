#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <set>

#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;

struct Said {
  int status = 0;
  std::string out, err;
};

Said audit(const cli::Args& args) {
  std::ostringstream out, err;
  std::streambuf* const old_out = std::cout.rdbuf(out.rdbuf());
  std::streambuf* const old_err = std::cerr.rdbuf(err.rdbuf());
  Said said;
  said.status = cli::audit_main(args);
  std::cout.rdbuf(old_out);
  std::cerr.rdbuf(old_err);
  said.out = out.str();
  said.err = err.str();
  return said;
}

// A run that reads a page and then wants to run a shell: the story of the threat model.
class AuditTest : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    store_.emplace(opened());
    auto segment = store_->create_segment("k3u7x2qa");
    ASSERT_TRUE(segment);
    segment_ = std::move(*segment);
    for (const Record& r : story()) ASSERT_TRUE(append_record(segment_.append.get(), r));
  }

  static Record make(uint64_t seq, RecordKind kind, const std::string& call,
                     const std::string& object) {
    Record r = record("k3u7x2qa", seq, kind);
    r.call = call;
    r.object = object;
    r.token = "0123456789abcdef";
    r.origins = "operator,user";
    return r;
  }

  static std::vector<Record> story() {
    std::vector<Record> all;
    all.push_back(make(1, RecordKind::kStart, "", "agent --task 'read the page'"));
    all.push_back(make(2, RecordKind::kCertificate, "openat", "/work/notes\n\x1b[2J.txt"));
    all.back().rule = "workspace";
    all.push_back(make(3, RecordKind::kOutcome, "openat", ""));
    all.back().ref = 2;
    all.back().error = 2;
    all.push_back(make(4, RecordKind::kCertificate, "connect", "page.test:80"));
    all.back().rule = "web";
    all.back().raised = "operator,user,web:page.test";
    all.push_back(make(5, RecordKind::kCertificate, "connect", "page.test:80"));
    all.back().raised = "operator,user,web:page.test,web:other.test";
    all.push_back(make(6, RecordKind::kRefusal, "execve", "/bin/sh"));
    all.back().argv = {"sh", "-c", "rm -rf \xff/"};
    all.back().rule = "exec-clean";
    all.back().why = "only clean commands run";
    all.back().reason = "UNTRUSTED_ORIGIN";
    all.back().culprit = "web:page.test";
    all.back().argument = "agent";
    all.back().origins = "operator,user,web:other.test,web:page.test";
    all.back().error = 13;
    all.push_back(make(7, RecordKind::kStop, "", ""));
    all.back().count = 6;
    return all;
  }

  Said run(cli::Args args) {
    args.insert(args.end(), {"--state", state_});
    return audit(args);
  }

  std::optional<LogStore> store_;
  SegmentFile segment_;
};

TEST_F(AuditTest, ListHasOneObjectALineWithItsKeysInOrder) {
  const Said said = run({"list", "--json"});
  EXPECT_EQ(said.status, 0) << said.err;
  const std::string second = said.out.substr(said.out.find('\n') + 1);
  EXPECT_EQ(
      second.substr(0, second.find('\n')),
      R"({"id":"k3u7x2qa-2","time":"2026-11-23T10:40:00.000000002Z","agent":"k3u7x2qa","seq":2,)"
      R"("kind":"certificate","verdict":"allow","call":"openat",)"
      R"("object":"/work/notes\\n\\x1B[2J.txt","rule":"workspace","reason":"",)"
      R"("token":"0123456789abcdef","origins":"operator,user","raised":"","errno":2})");
  EXPECT_EQ(std::count(said.out.begin(), said.out.end(), '\n'), 7);
}

TEST_F(AuditTest, SealedAndUnsealedRecordsAreListedAlikeAndOnce) {
  const std::string unsealed = run({"list", "--json"}).out;
  ASSERT_TRUE(store_->seal(segment_.tail));
  EXPECT_EQ(run({"list", "--json"}).out, unsealed);
  ASSERT_TRUE(store_->finish(segment_.tail));
  EXPECT_EQ(run({"list", "--json"}).out, unsealed);
}

TEST_F(AuditTest, NothingUntrustedReachesTheTerminal) {
  for (const cli::Args& args : {cli::Args{"list"},
                                {"list", "--json"},
                                {"why", "k3u7x2qa-2"},
                                {"why", "k3u7x2qa-6"},
                                {"why", "k3u7x2qa-6", "--json"}}) {
    const Said said = run(args);
    EXPECT_EQ(said.status, 0);
    for (const char c : said.out) ASSERT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7F)) << said.out;
  }
}

TEST_F(AuditTest, WhyTellsAgentArgumentSourceRuleAndTime) {
  for (const bool sealed : {false, true}) {
    if (sealed) {
      ASSERT_TRUE(store_->seal(segment_.tail));
    }
    const Said said = run({"why", "k3u7x2qa-6"});
    EXPECT_EQ(said.status, 0) << said.err;
    for (const char* part :
         {"k3u7x2qa: agent --task 'read the page'", "2026-11-23T10:40:00.000000006Z",
          "execve /bin/sh", "argv[2]", "rm -rf \\xFF/", "refused, the agent saw errno 13 (EACCES)",
          "exec-clean: only clean commands run", "UNTRUSTED_ORIGIN",
          "web:page.test (bytes from the host page.test)", "agent (the sandbox's own label",
          "operator,user,web:other.test,web:page.test",
          "k3u7x2qa-4 at 2026-11-23T10:40:00.000000004Z: connect page.test:80 (rule web)",
          "raised the sandbox's label to operator,user,web:page.test"}) {
      EXPECT_NE(said.out.find(part), std::string::npos) << part << "\nin\n" << said.out;
    }
    EXPECT_NE(said.out.find(sealed ? " of the sealed log" : "not sealed yet"),
              std::string::npos);
  }
}

TEST_F(AuditTest, WhyOfAnAllowedCallTellsItsOutcome) {
  const Said said = run({"why", "k3u7x2qa-2"});
  EXPECT_NE(said.out.find("allowed"), std::string::npos);
  EXPECT_NE(said.out.find("errno 2 (ENOENT)"), std::string::npos) << said.out;
}

TEST_F(AuditTest, WhyTakesAPrefixThatOnlyOneHas) {
  EXPECT_EQ(run({"why", "k3u7x2qa-6"}).status, 0);
  const Said several = run({"why", "k3u"});
  EXPECT_EQ(several.status, 2);
  EXPECT_NE(several.err.find("k3u7x2qa-1 k3u7x2qa-2"), std::string::npos);
  EXPECT_EQ(run({"why", "zzz"}).status, 2);
  ASSERT_TRUE(store_->finish(segment_.tail));
  whole_run(*store_, "other", 1);
  EXPECT_EQ(run({"why", "o"}).status, 0);
}

TEST_F(AuditTest, WhyFollowsAFileToTheRunThatWroteIt) {
  ASSERT_TRUE(store_->finish(segment_.tail));
  auto segment = store_->create_segment("writer");
  Record wrote = record("writer", 1);
  wrote.verb = static_cast<uint8_t>(kernel::Verb::kWrite) + 1;
  wrote.object = "/work/x.sh";
  wrote.ino = 77;
  wrote.origins = "web:evil.test";
  Record refused = record("writer", 2, RecordKind::kRefusal);
  refused.object = wrote.object;
  refused.ino = 77;
  refused.culprit = "web:evil.test";
  refused.argument = "file";
  ASSERT_TRUE(append_record(segment->append.get(), wrote));
  ASSERT_TRUE(append_record(segment->append.get(), refused));
  const Said said = run({"why", "writer-2"});
  EXPECT_NE(said.out.find("written by  writer-1"), std::string::npos) << said.out;
}

TEST_F(AuditTest, VerifySaysYesOrNoAndExitsSo) {
  ASSERT_TRUE(store_->finish(segment_.tail));
  const Said yes = run({"verify"});
  EXPECT_EQ(yes.status, 0);
  EXPECT_TRUE(yes.out.starts_with("yes: 7 records, root ")) << yes.out;
  EXPECT_TRUE(
      run({"verify", "--json"}).out.starts_with(R"({"verdict":"yes","records":7,"root":")"));
  std::string key = read(state_ + "/key.pub");
  key.pop_back();
  EXPECT_EQ(run({"verify", "--key", key}).status, 0);
  key.back() = key.back() == 'A' ? 'B' : 'A';
  EXPECT_EQ(run({"verify", "--key", key}).status, 1);
  const std::string path = state_ + "/log/tile/entries/000.p/7";
  std::string bytes = read(path);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  write(path, bytes);
  const Said no = run({"verify"});
  EXPECT_EQ(no.status, 1);
  EXPECT_TRUE(no.out.starts_with("no: log/tile/entries/000.p/7, record 6: ")) << no.out;
  EXPECT_EQ(audit({"verify", "--state", root_ + "/none"}).status, 2);
}

TEST_F(AuditTest, AWrongCommandLineIsTrouble) {
  for (const cli::Args& args :
       {cli::Args{}, {"what"}, {"list", "x"}, {"why"}, {"list", "--bad"}, {"list", "--state"}}) {
    const Said said = audit(args);
    EXPECT_EQ(said.status, 2);
    EXPECT_NE(said.err.find("usage:"), std::string::npos);
  }
  EXPECT_EQ(audit({"--help"}).status, 0);
}

TEST(Escape, LeavesPrintableTextAndShowsAllElseAsBytes) {
  EXPECT_EQ(cli::escape("plain /path ü 水"), "plain /path ü 水");
  EXPECT_EQ(cli::escape("a\nb\tc\\d"), "a\\nb\\tc\\x5Cd");
  EXPECT_EQ(cli::escape("\x1b[31m\x7f\r"), "\\x1B[31m\\x7F\\x0D");
  EXPECT_EQ(cli::escape("\xff\xc3"), "\\xFF\\xC3");
  EXPECT_EQ(cli::escape("\xc2\x9b"), "\\xC2\\x9B");           // C1: CSI in one character
  EXPECT_EQ(cli::escape("\xe2\x80\xae"), "\\xE2\\x80\\xAE");  // right-to-left override
  EXPECT_EQ(cli::escape(std::string("\0", 1)), "\\x00");
}

TEST(Escape, IsUnambiguous) {
  std::set<std::string> seen;
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      EXPECT_TRUE(
          seen.insert(cli::escape(std::string{static_cast<char>(a), static_cast<char>(b)})).second)
          << a << ' ' << b;
    }
  }
}

TEST(DefaultStateDir, FollowsXdg) {
  const char* const old = std::getenv("XDG_STATE_HOME");
  const std::string kept = old == nullptr ? "" : old;
  ::setenv("XDG_STATE_HOME", "/x/state", 1);
  EXPECT_EQ(cli::default_state_dir(), "/x/state/certgate");
  ::setenv("XDG_STATE_HOME", "relative", 1);
  EXPECT_TRUE(cli::default_state_dir().starts_with('/'));
  if (::geteuid() == 0) {
    EXPECT_EQ(cli::default_state_dir(), "/var/lib/certgate");
  }
  if (old == nullptr)
    ::unsetenv("XDG_STATE_HOME");
  else
    ::setenv("XDG_STATE_HOME", kept.c_str(), 1);
}

TEST(AuditView, LabelsHoldTheirOriginsAndWholeClasses) {
  EXPECT_TRUE(label_has("operator,web:a.test", "web:a.test"));
  EXPECT_TRUE(label_has("operator,web:*", "web:a.test"));
  EXPECT_FALSE(label_has("operator,web:a.test", "web:a"));
  EXPECT_FALSE(label_has("webs:*,file:*", "web:a"));
  EXPECT_FALSE(label_has("", "web:a"));
  EXPECT_FALSE(label_has("user", ""));
}

TEST(AuditView, TimesAreRfc3339InUtc) {
  EXPECT_EQ(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
  EXPECT_EQ(rfc3339(1795430400123456789), "2026-11-23T10:40:00.123456789Z");
  EXPECT_EQ(rfc3339(-1), "1969-12-31T23:59:59.999999999Z");
}

}  // namespace
}  // namespace certgate::agentd
