#include "supervisor/session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <thread>

#include "agentd/label_store.h"
#include "agentd/state_dir.h"
#include "agentd/token_store.h"
#include "supervisor/frame.h"
#include "supervisor/path_walk.h"

namespace certgate::supervisor {
namespace {

namespace fs = std::filesystem;
using kernel::Label;
using kernel::RecordKind;
using sandbox::UniqueFd;

Label label(const char* text) { return *Label::parse(text); }

kernel::Rule path_rule(const std::string& id, std::vector<kernel::Verb> verbs,
                       const std::string& path, const std::vector<std::string>& accept) {
  kernel::Rule rule;
  rule.id = id;
  rule.why = "because " + id;
  rule.verbs = std::move(verbs);
  rule.paths.push_back(*kernel::PathPattern::parse(path));
  rule.accept = *kernel::AcceptSet::parse(accept);
  return rule;
}

kernel::Rule connect_rule(const std::string& id, const std::string& host,
                          const std::vector<std::string>& accept) {
  kernel::Rule rule;
  rule.id = id;
  rule.why = "because " + id;
  rule.verbs = {kernel::Verb::kConnect};
  kernel::EndpointPattern endpoint;
  endpoint.host = *kernel::HostPattern::parse(host);
  rule.endpoints.push_back(endpoint);
  rule.accept = *kernel::AcceptSet::parse(accept);
  rule.origin = *kernel::Origin::parse("tool");
  return rule;
}

kernel::Policy test_policy() {
  using enum kernel::Verb;
  const std::vector<std::string> all = {"operator", "user",   "policy",  "model", "tool",
                                        "agent:*",  "file:*", "unknown", "web:*"};
  kernel::Policy policy;
  policy.name = "test";
  policy.zones.push_back(
      {"vault", *kernel::PathPattern::parse("/secret/**"), {}, "", label("secret:vault")});
  policy.rules.push_back(path_rule("read-all", {kRead}, "/in/**", all));
  policy.rules.push_back(path_rule("clean-write", {kWrite}, "/clean/**", {"operator", "tool"}));
  policy.rules.push_back(path_rule("any-write", {kWrite}, "/any/**", all));
  policy.rules.push_back(connect_rule("clean-host", "clean.test", {"operator", "tool"}));
  policy.rules.push_back(connect_rule("any-host", "any.test", all));
  policy.rules.push_back(path_rule("few", {kRead}, "/few/**", all));
  policy.rules.back().budget = 2;
  return policy;
}

kernel::Token token_for_everything() {
  kernel::Token token;
  token.id = "00112233aabbccdd00112233aabbccdd";
  token.holder = "abcdefgh";
  token.issuer = "test";
  token.expires_ns = INT64_MAX;
  token.scopes = kernel::every_scope();
  return token;
}

kernel::Call open_call(const std::string& path, bool write, const Label& object = {}) {
  kernel::OpenEffect effect;
  effect.path = path;
  effect.write = write;
  effect.read = !write;
  return {effect, object};
}

kernel::Call connect_call(const std::string& host) {
  kernel::ConnectEffect effect;
  effect.host = host;
  effect.port = 443;
  return {effect, {}};
}

const Hold kNothing{};
const Hold kConnection{.kind = Hold::Kind::kConnection, .pin = -1, .file = {}, .labelled = true};

// A session with a real recorder, a real label store, and a thread in the authority's place.
class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "certgate-session-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    auto store = agentd::LabelStore::open(dir_ + "/labels");
    ASSERT_TRUE(store) << store.error().what;
    store_.emplace(std::move(*store));
    auto readers = ReaderTable::open(*store_->begin_run("abcdefgh"));
    ASSERT_TRUE(readers) << readers.error().what;
    readers_.emplace(std::move(*readers));
    UniqueFd segment(
        ::open((dir_ + "/segment").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
    ledger_.emplace(*open_ledger());
    recorder_.emplace("abcdefgh", "00112233aabbccdd00112233aabbccdd", std::move(segment), 1);
    int ends[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    authority_ = UniqueFd(ends[0]);
    channel_.emplace(UniqueFd(ends[1]));
    serving_ = std::thread([this] { serve(); });
    make_session("operator");
  }
  void TearDown() override {
    session_.reset();
    channel_.reset();  // ends the authority's loop
    serving_.join();
    fs::remove_all(dir_);
  }

  Result<TokenLedger> open_ledger() const {
    CG_TRY(const UniqueFd state, agentd::open_state_dir(dir_ + "/state"));
    CG_CHECK(agentd::make_dir(state.get(), "tmp"));
    CG_TRY(const agentd::TokenStore tokens, agentd::TokenStore::open(state.get()));
    CG_TRY(UniqueFd epoch, tokens.epoch_for_reading());
    std::vector<UniqueFd> slots(1);
    CG_TRY(slots[0], tokens.slot(token_for_everything(), agentd::Keep::kForGood));
    return TokenLedger::open({token_for_everything()}, std::move(epoch), std::move(slots));
  }

  void make_session(const char* initial) {
    auto view = LabelView::open(*store_->table_for_reading(), *store_->names_for_reading());
    ASSERT_TRUE(view);
    session_.emplace(kernel::Decider(policy_, token_for_everything()), label(initial), *recorder_,
                     std::move(*view), *readers_, *channel_, *ledger_, Report::kText);
    session_->on_fatal([this](const std::string& what) { fatal_ = what; });
  }
  void serve() {
    for (;;) {
      const auto join = receive_join(authority_.get());
      if (!join) return;
      const Status stored =
          store_fails_ ? Status(fail("the disk is full")) : store_->join(join->file, join->label);
      if (!send_join_reply(authority_.get(), stored)) return;
    }
  }

  Judged judge(const kernel::Call& call, const Hold& hold = kNothing) {
    return session_->judge({42, "test", ""}, call, hold);
  }
  // Reads poison: the label rises to {operator, web:evil.test}.
  Judged poison() { return judge(open_call("/in/page", false, label("web:evil.test"))); }

  std::vector<kernel::Record> records() const {
    std::ifstream in(dir_ + "/segment", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    supervisor::FrameReader reader(data, bytes.size());
    std::vector<kernel::Record> out;
    supervisor::Frame frame = reader.next();
    for (; frame.state == supervisor::Frame::kOk; frame = reader.next()) {
      out.push_back(*kernel::decode_record(frame.data, frame.size));
    }
    EXPECT_EQ(frame.state, supervisor::Frame::kEnd);
    return out;
  }

  struct OpenFile {
    UniqueFd fd, pin;
    kernel::FileIdentity identity;
    Hold hold() const {
      return {
          .kind = Hold::Kind::kWritableFile, .pin = pin.get(), .file = identity, .labelled = true};
    }
  };
  OpenFile open_file(const std::string& name) const {
    OpenFile out;
    const std::string path = dir_ + "/" + name;
    out.fd = UniqueFd(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    out.pin = UniqueFd(::open(path.c_str(), O_PATH | O_CLOEXEC));
    ObjectFacts facts;
    EXPECT_EQ(object_facts(out.pin.get(), facts), 0);
    out.identity = facts.identity;
    return out;
  }
  std::string stored_label(const kernel::FileIdentity& file) const {
    const auto found = session_->file_label(file, "/nowhere", Reads::kOnce);
    return found ? found->text() : "error";
  }

  const kernel::Policy policy_ = test_policy();
  std::string dir_, fatal_;
  std::optional<agentd::LabelStore> store_;
  std::optional<ReaderTable> readers_;
  std::optional<TokenLedger> ledger_;
  std::optional<Recorder> recorder_;
  std::optional<Channel> channel_;
  std::optional<Session> session_;
  UniqueFd authority_;
  std::thread serving_;
  std::atomic<bool> store_fails_ = false;
};

TEST_F(SessionTest, EveryCallIsExactlyOneRecordBeforeItsEffect) {
  uint64_t seq = 0;
  for (const auto& [path, write, allowed] :
       std::initializer_list<std::tuple<const char*, bool, bool>>{{"/in/a", false, true},
                                                                  {"/out/a", false, false},
                                                                  {"/clean/a", true, true},
                                                                  {"/in/a", true, false},
                                                                  {"/in/b", false, true}}) {
    const Judged judged = judge(open_call(path, write, label("operator")));
    EXPECT_EQ(judged.certificate.has_value(), allowed) << path;
    EXPECT_EQ(judged.seq, ++seq);
    EXPECT_EQ(judged.error, allowed ? 0 : EACCES);
    const auto log = records();  // it is there when judge() returns
    ASSERT_EQ(log.size(), seq);
    EXPECT_EQ(log.back().kind, allowed ? RecordKind::kCertificate : RecordKind::kRefusal);
    EXPECT_EQ(log.back().seq, seq);
    EXPECT_EQ(log.back().object, path);
    EXPECT_EQ(log.back().digest.size(), allowed ? 32u : 0u);
  }
}

TEST_F(SessionTest, TheOrderOfTheLogIsTheOrderOfDecisionsForManyThreads) {
  constexpr size_t kThreads = 4, kCalls = 100;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (size_t i = 0; i < kCalls; ++i) {
        const Judged judged = judge(open_call("/in/" + std::to_string(t), false));
        EXPECT_TRUE(judged.certificate);
        if (i % 10 == 0) session_->outcome(judged.seq, "test", 1, 0, "emulated");
      }
    });
  }
  for (std::thread& t : threads) t.join();
  const auto log = records();
  ASSERT_EQ(log.size(), kThreads * (kCalls + kCalls / 10));
  for (size_t i = 0; i < log.size(); ++i) EXPECT_EQ(log[i].seq, i + 1);
}

TEST_F(SessionTest, ARefusalNamesTheOriginAndTheRule) {
  ASSERT_TRUE(poison().certificate);
  const Judged judged = judge(open_call("/clean/a", true));
  EXPECT_FALSE(judged.certificate);
  const kernel::Record record = records().back();
  EXPECT_EQ(record.reason, "UNTRUSTED_ORIGIN");
  EXPECT_EQ(record.culprit, "web:evil.test");
  EXPECT_EQ(record.rule, "clean-write");
  EXPECT_EQ(record.origins, "operator,web:evil.test");
  EXPECT_EQ(record.error, static_cast<uint32_t>(EACCES));
}

TEST_F(SessionTest, ARaiseShutsTheConnectionsWhoseRuleRejectsItBeforeItReturns) {
  const Judged clean = judge(connect_call("clean.test"), kConnection);
  const Judged any = judge(connect_call("any.test"), kConnection);
  ASSERT_TRUE(clean.certificate && any.certificate);
  int clean_shut = 0, any_shut = 0;
  ASSERT_TRUE(session_->settle_connection(clean.hold, [&] { ++clean_shut; }));
  ASSERT_TRUE(session_->settle_connection(any.hold, [&] { ++any_shut; }));
  ASSERT_TRUE(poison().certificate);
  EXPECT_EQ(clean_shut, 1);
  EXPECT_EQ(any_shut, 0);
  ASSERT_TRUE(judge(open_call("/in/q", false, label("web:more.test"))).certificate);
  EXPECT_EQ(clean_shut, 1) << "shut once";
  EXPECT_EQ(records().at(2).raised, "operator,tool,web:evil.test");
}

TEST_F(SessionTest, AConnectionThatARaiseOvertookIsNotHandedOver) {
  const Judged clean = judge(connect_call("clean.test"), kConnection);
  const Judged any = judge(connect_call("any.test"), kConnection);
  ASSERT_TRUE(clean.certificate && any.certificate);
  ASSERT_TRUE(poison().certificate);
  EXPECT_FALSE(session_->settle_connection(clean.hold, [] { FAIL() << "already gone"; }));
  EXPECT_TRUE(session_->settle_connection(any.hold, [] {}));
}

TEST_F(SessionTest, ASecretShutsEveryConnectionThatHasNoClearanceForIt) {
  const Judged live = judge(connect_call("any.test"), kConnection);
  const Judged in_flight = judge(connect_call("any.test"), kConnection);
  int shut = 0;
  ASSERT_TRUE(session_->settle_connection(live.hold, [&] { ++shut; }));
  ASSERT_TRUE(judge(open_call("/in/.env", false, label("operator,secret:env"))).certificate);
  EXPECT_EQ(shut, 1);
  EXPECT_FALSE(session_->settle_connection(in_flight.hold, [] { FAIL() << "already gone"; }));
  EXPECT_FALSE(judge(connect_call("any.test"), kConnection).certificate);
  const auto all = records();
  EXPECT_EQ(all.back().reason, "CLEARANCE_MISSING");
  EXPECT_EQ(all.back().culprit, "secret:env");
  EXPECT_EQ(all.back().lineage, (std::vector<uint64_t>{0, 1, 3}));
}

TEST_F(SessionTest, WhatLiesInASecretZoneIsSecretWhateverItsLabel) {
  const OpenFile file = open_file("f");
  const auto label_at = [&](const char* path) {
    return session_->file_label(file.identity, path, Reads::kOnce)->text();
  };
  EXPECT_EQ(label_at("/secret/f"), "unknown,secret:vault");
  ASSERT_TRUE(store_->join(file.identity, label("user")));
  EXPECT_EQ(label_at("/secret/f"), "user,secret:vault");
  EXPECT_EQ(label_at("/elsewhere/f"), "user");
}

TEST_F(SessionTest, AReleasedConnectionIsNotShut) {
  const Judged clean = judge(connect_call("clean.test"), kConnection);
  int shut = 0;
  ASSERT_TRUE(session_->settle_connection(clean.hold, [&] { ++shut; }));
  session_->release(clean.hold);
  ASSERT_TRUE(poison().certificate);
  EXPECT_EQ(shut, 0);
  session_->release(clean.hold);  // again, and of what never was: nothing
  session_->release(0);
  session_->release(12345);
}

TEST_F(SessionTest, ARaiseIsRefusedWhileAFileThatRejectsItIsOpenForWriting) {
  OpenFile file = open_file("held");
  const Judged writing = judge(open_call("/clean/held", true), file.hold());
  ASSERT_TRUE(writing.certificate);
  ASSERT_TRUE(session_->settle_file(writing.hold, file.fd.get(), file.identity,
                                    writing.certificate->object_label(), true));
  const Judged refused = poison();
  EXPECT_FALSE(refused.certificate);
  EXPECT_EQ(records().back().reason, "HELD_WRITABLE");
  EXPECT_EQ(records().back().culprit, "web:evil.test");
  EXPECT_EQ(session_->label().text(), "operator");
  EXPECT_EQ(stored_label(file.identity), "operator");

  file.fd.reset();  // nobody writes any more: the same read may go on
  EXPECT_TRUE(poison().certificate);
  EXPECT_EQ(stored_label(file.identity), "operator") << "it was closed before the raise";
}

TEST_F(SessionTest, AFileThatIsJudgedButNotYetOpenCountsAsOpen) {
  const OpenFile file = open_file("pending");
  const Judged writing = judge(open_call("/clean/pending", true), file.hold());
  ASSERT_TRUE(writing.certificate);
  EXPECT_FALSE(poison().certificate);
  EXPECT_EQ(records().back().reason, "HELD_WRITABLE");
  session_->release(writing.hold);  // the open failed
  EXPECT_TRUE(poison().certificate);
}

TEST_F(SessionTest, AFileOpenForWritingCarriesTheRaiseBeforeItReturns) {
  const OpenFile file = open_file("any"), closed = open_file("closed");
  for (const OpenFile* each : {&file, &closed}) {
    const Judged writing = judge(open_call("/any/f", true), each->hold());
    ASSERT_TRUE(writing.certificate);
    ASSERT_TRUE(session_->settle_file(writing.hold, each->fd.get(), each->identity,
                                      writing.certificate->object_label(), true));
  }
  const_cast<UniqueFd&>(closed.fd).reset();
  ASSERT_TRUE(poison().certificate);
  EXPECT_EQ(stored_label(file.identity), "operator,web:evil.test");
  EXPECT_EQ(stored_label(closed.identity), "operator");
}

TEST_F(SessionTest, AFileThatARaiseOvertookGetsTheLabelThatHoldsWhenItIsOpened) {
  const OpenFile file = open_file("overtaken");
  const Judged writing = judge(open_call("/any/overtaken", true), file.hold());
  ASSERT_TRUE(writing.certificate);
  EXPECT_EQ(writing.certificate->object_label().text(), "operator");
  ASSERT_TRUE(poison().certificate);
  ASSERT_TRUE(session_->settle_file(writing.hold, file.fd.get(), file.identity,
                                    writing.certificate->object_label(), true));
  EXPECT_EQ(stored_label(file.identity), "operator,web:evil.test");
}

TEST_F(SessionTest, AFileOfTheSandboxsOwnIsNeverStored) {
  const OpenFile file = open_file("private");
  Hold hold = file.hold();
  hold.labelled = false;
  const Judged writing = judge(open_call("/any/private", true), hold);
  ASSERT_TRUE(session_->settle_file(writing.hold, file.fd.get(), file.identity,
                                    writing.certificate->object_label(), false));
  ASSERT_TRUE(poison().certificate);
  EXPECT_EQ(stored_label(file.identity), "unknown");
}

TEST_F(SessionTest, WithoutARecordThereIsNoCertificateAndTheRunEnds) {
  ASSERT_TRUE(recorder_->append({}, kernel::Durability::kOrdered));
  Recorder broken("abcdefgh", "t", UniqueFd(::open("/dev/full", O_WRONLY | O_CLOEXEC)), 1);
  auto view = LabelView::open(*store_->table_for_reading(), *store_->names_for_reading());
  Session session(kernel::Decider(policy_, token_for_everything()), label("operator"), broken,
                  std::move(*view), *readers_, *channel_, *ledger_, Report::kText);
  std::string fatal;
  session.on_fatal([&](const std::string& what) { fatal = what; });
  const Judged judged = session.judge({1, "test", ""}, open_call("/in/a", false), kNothing);
  EXPECT_FALSE(judged.certificate);
  EXPECT_EQ(judged.error, EIO);
  EXPECT_FALSE(fatal.empty());
  EXPECT_EQ(session.label().text(), "operator");
  // The log stays failed: no later call finds it well again.
  EXPECT_FALSE(session.judge({1, "test", ""}, open_call("/in/a", false), kNothing).certificate);
}

TEST_F(SessionTest, ARaiseThatCannotBeStoredLetsNothingHappenAndTheRunEnds) {
  const OpenFile file = open_file("unstorable");
  const Judged writing = judge(open_call("/any/unstorable", true), file.hold());
  ASSERT_TRUE(session_->settle_file(writing.hold, file.fd.get(), file.identity,
                                    writing.certificate->object_label(), true));
  store_fails_ = true;
  const Judged raised = poison();
  EXPECT_FALSE(raised.certificate);
  EXPECT_EQ(raised.error, EIO);
  EXPECT_NE(fatal_.find("the disk is full"), std::string::npos);
  EXPECT_EQ(records().back().reason, "INTERNAL") << "the last thing that the log says of it";
  EXPECT_EQ(records().back().why, "the disk is full");
}

TEST_F(SessionTest, AFileWhoseLabelCannotBeStoredIsNotHandedOver) {
  const OpenFile file = open_file("unstorable");
  Hold made = file.hold();
  made.pin = -1;  // the file is new: its label comes when it is there
  const Judged writing = judge(open_call("/any/unstorable", true), made);
  store_fails_ = true;
  EXPECT_FALSE(session_->settle_file(writing.hold, file.fd.get(), file.identity,
                                     writing.certificate->object_label(), true));
}

TEST_F(SessionTest, ABudgetIsUsedOncePerCallAndThenRefuses) {
  EXPECT_TRUE(judge(open_call("/few/a", false)).certificate);
  EXPECT_TRUE(judge(open_call("/few/a", false)).certificate);
  EXPECT_FALSE(judge(open_call("/few/a", false)).certificate);
  EXPECT_EQ(records().back().reason, "BUDGET_EXHAUSTED");
}

TEST_F(SessionTest, HandlesAreLimitedAndTheOneTooManyIsRefusedAndRecorded) {
  for (size_t i = 0; i < kMaxHeld; ++i) {
    ASSERT_TRUE(judge(connect_call("any.test"), kConnection).certificate) << i;
  }
  const Judged refused = judge(connect_call("any.test"), kConnection);
  EXPECT_FALSE(refused.certificate);
  EXPECT_EQ(records().back().reason, "CONSTRAINT_VIOLATION");
  EXPECT_TRUE(judge(open_call("/in/a", false)).certificate) << "what holds nothing goes on";
}

TEST_F(SessionTest, AFormThatIsNeverPerformedIsOneRefusalWhateverItsVerb) {
  using enum kernel::Verb;
  for (const kernel::Verb verb : {kExec, kRead, kWrite, kConnect}) {
    const size_t before = records().size();
    EXPECT_EQ(session_->refuse_constraint({1, "test", ""}, "/in/x", verb, "never"), EACCES);
    const auto log = records();
    ASSERT_EQ(log.size(), before + 1);
    EXPECT_EQ(log.back().reason, "CONSTRAINT_VIOLATION");
    EXPECT_EQ(log.back().verb, static_cast<uint8_t>(verb) + 1);
    EXPECT_EQ(log.back().why, "never");
  }
  session_->refuse_name("evil.test");
  EXPECT_EQ(records().back().reason, "SCOPE_MISSING");
  EXPECT_EQ(records().back().object, "evil.test");
}

TEST_F(SessionTest, AnOutcomePointsBackAtItsCertificate) {
  const Judged judged = judge(open_call("/in/a", false));
  session_->outcome(judged.seq, "open", 7, ENOENT, "emulated");
  const kernel::Record record = records().back();
  EXPECT_EQ(record.kind, RecordKind::kOutcome);
  EXPECT_EQ(record.ref, judged.seq);
  EXPECT_EQ(record.error, static_cast<uint32_t>(ENOENT));
  EXPECT_EQ(record.grade, "emulated");
}

TEST_F(SessionTest, ARepeatedRefusalIsPrintedOnceAndRecordedEveryTime) {
  testing::internal::CaptureStderr();
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(judge(open_call("/out/a", false)).certificate);
  EXPECT_FALSE(judge(open_call("/out/\x1b[31m", false)).certificate);
  const std::string printed = testing::internal::GetCapturedStderr();
  EXPECT_EQ(session_->refusals(), 2u);
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'), 2);
  EXPECT_EQ(printed.find('\x1b'), std::string::npos);
  EXPECT_EQ(records().size(), 6u);
}

TEST_F(SessionTest, ALoopOfRefusalsDoesNotDrownTheOperator) {
  testing::internal::CaptureStderr();
  for (size_t i = 0; i < kMaxReportedLines + 100; ++i) {
    EXPECT_FALSE(judge(open_call("/out/" + std::to_string(i), false)).certificate);
  }
  const std::string printed = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(printed.begin(), printed.end(), '\n'),
            static_cast<ptrdiff_t>(kMaxReportedLines) + 1);
  EXPECT_EQ(records().size(), kMaxReportedLines + 100);
}

TEST_F(SessionTest, OfTheLabelsOfAFileTheStoredOneWinsOverItsZone) {
  const kernel::FileIdentity file{9, 9, 9};
  EXPECT_EQ(stored_label(file), "unknown");  // no zone, no label: I5
  ASSERT_TRUE(store_->join(file, label("web:a.test")));
  EXPECT_EQ(stored_label(file), "web:a.test");
}

TEST_F(SessionTest, WhatIsChangedInPlaceCarriesTheAgentsLabelAndThatOfItsZone) {
  const OpenFile directory = open_file("directory"), later = open_file("later");
  const auto change = [&](const kernel::FileIdentity& file) {
    const Mark mark{Mark::Kind::kObject, file, "/any"};
    return session_->judge({42, "test", ""}, open_call("/any", true), kNothing, mark);
  };
  ASSERT_TRUE(change(directory.identity).certificate);
  EXPECT_EQ(stored_label(directory.identity), "operator,unknown");
  ASSERT_TRUE(poison().certificate);
  ASSERT_TRUE(change(later.identity).certificate);
  EXPECT_EQ(stored_label(later.identity), "operator,web:evil.test,unknown");
  store_fails_ = true;
  ASSERT_TRUE(change(later.identity).certificate) << "nothing to add, nobody to ask";
  EXPECT_FALSE(change(directory.identity).certificate);
  EXPECT_EQ(fatal_, "the disk is full");
}

TEST_F(SessionTest, ARaiseOfAnotherAgentWaitsForNoCallAndIsDecidedByWhatIsHeld) {
  const Label web = label("web:evil.test");
  const ReaderTable::Request request{1, 1, {1, 2, 3}, "other"};
  const Judged connection = judge(connect_call("clean.test"), kConnection);
  bool shut = false;
  ASSERT_TRUE(session_->settle_connection(connection.hold, [&] { shut = true; }));
  const OpenFile file = open_file("held");
  const Hold hold{.kind = Hold::Kind::kWritableFile, .pin = file.fd.get(), .file = file.identity};
  const Judged writing = judge(open_call("/clean/a", true), hold);
  ASSERT_TRUE(session_->settle_file(writing.hold, file.fd.get(), file.identity, {}, true));
  EXPECT_FALSE(session_->prepare_raise(web).can) << "a clean-only file is open for writing";
  EXPECT_FALSE(shut);
  session_->release(writing.hold);
  ASSERT_TRUE(session_->prepare_raise(web).can);
  EXPECT_FALSE(shut) << "not before it is decided";
  session_->leave_raise();
  EXPECT_EQ(session_->label(), label("operator,tool"));
  ASSERT_TRUE(session_->prepare_raise(web).can);
  session_->take_raise(web, request);
  EXPECT_TRUE(shut);
  EXPECT_EQ(session_->label(), label("operator,tool,web:evil.test"));
  EXPECT_FALSE(judge(open_call("/clean/a", true)).certificate);
  const kernel::Record raise = records()[records().size() - 2];
  EXPECT_EQ(raise.kind, RecordKind::kRaise);
  EXPECT_EQ(raise.raised, "operator,tool,web:evil.test");
  EXPECT_EQ(raise.ino, 2u);
}

TEST_F(SessionTest, NothingIsJudgedWhileARaiseOfAnotherAgentIsPrepared) {
  const Label web = label("web:evil.test");
  ASSERT_TRUE(session_->prepare_raise(web).can);
  std::atomic<bool> judged = false;
  std::thread call([&] {
    EXPECT_FALSE(judge(open_call("/clean/a", true)).certificate) << "judged under the new label";
    judged = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_FALSE(judged);
  session_->take_raise(web, {1, 1, {1, 2, 3}, "other"});
  call.join();
}

TEST_F(SessionTest, AClosedLogEndsEverythingWithoutAnAlarm) {
  ASSERT_TRUE(recorder_->close({}));
  EXPECT_FALSE(judge(open_call("/in/a", false)).certificate);
  EXPECT_TRUE(fatal_.empty()) << "the run is over: " << fatal_;
}

// The test policy without the rule `id`, or with another accept set for it.
kernel::Policy changed_policy(const std::string& id, const std::vector<std::string>& accept = {}) {
  kernel::Policy out = test_policy();
  out.name = "changed";
  for (size_t i = 0; i < out.rules.size(); ++i) {
    if (out.rules[i].id != id) continue;
    if (accept.empty()) {
      out.rules.erase(out.rules.begin() + static_cast<std::ptrdiff_t>(i));
    } else {
      out.rules[i].accept = *kernel::AcceptSet::parse(accept);
    }
    return out;
  }
  return out;
}

TEST_F(SessionTest, AReloadDecidesTheNextCallAndIsRecordedWithBothDigests) {
  EXPECT_TRUE(judge(open_call("/any/f", true)).certificate);
  const Judged before = judge(open_call("/in/f", false));
  const auto waited = session_->reload(changed_policy("any-write"));
  ASSERT_TRUE(waited) << waited.error().what;
  RecordProperty("swap_ns", std::to_string(*waited));
  EXPECT_FALSE(judge(open_call("/any/f", true)).certificate);
  EXPECT_TRUE(judge(open_call("/clean/f", true)).certificate);
  // Who was certified before still finds the rule that it was certified by.
  EXPECT_EQ(before.rule(0)->id, "read-all");
  const auto all = records();
  const auto change = std::find_if(
      all.begin(), all.end(), [](const auto& r) { return r.kind == RecordKind::kPolicyChange; });
  ASSERT_NE(change, all.end());
  const kernel::Digest digest = changed_policy("any-write").digest();
  EXPECT_TRUE(
      std::equal(digest.begin(), digest.end(), change->digest.begin(), change->digest.end()));
  EXPECT_EQ(change->object.size(), 64u);
}

TEST_F(SessionTest, BudgetsGoOnByRuleIdWhereverTheRuleStandsNow) {
  EXPECT_TRUE(judge(open_call("/few/a", false)).certificate);
  ASSERT_TRUE(session_->reload(changed_policy("any-host")));  // every index after it moves
  EXPECT_TRUE(judge(open_call("/few/a", false)).certificate);
  const Judged third = judge(open_call("/few/a", false));
  EXPECT_FALSE(third.certificate);
  EXPECT_EQ(records().back().reason, "BUDGET_EXHAUSTED");
  ASSERT_TRUE(session_->reload(test_policy()));
  EXPECT_FALSE(judge(open_call("/few/a", false)).certificate) << "and back";
}

TEST_F(SessionTest, AReloadShutsWhatTheNewPolicyWouldNotConnect) {
  bool clean_shut = false, any_shut = false;
  const Judged clean = judge(connect_call("clean.test"), kConnection);
  const Judged any = judge(connect_call("any.test"), kConnection);
  ASSERT_TRUE(session_->settle_connection(clean.hold, [&] { clean_shut = true; }));
  ASSERT_TRUE(session_->settle_connection(any.hold, [&] { any_shut = true; }));
  ASSERT_TRUE(session_->reload(changed_policy("clean-host")));
  EXPECT_TRUE(clean_shut);
  EXPECT_FALSE(any_shut);
  // A narrower accept set of the same rule is no less.
  ASSERT_TRUE(session_->reload(changed_policy("any-host", {"user"})));
  EXPECT_TRUE(any_shut);
  // One that was still being made finds itself gone.
  const Judged pending = judge(connect_call("clean.test"), kConnection);
  ASSERT_TRUE(session_->reload(changed_policy("clean-host")));
  EXPECT_FALSE(session_->settle_connection(pending.hold, [] {}));
}

TEST_F(SessionTest, AReloadThatAnOpenFileForbidsLeavesTheOldPolicyAndSaysWhy) {
  OpenFile file = open_file("held");
  const Judged held = judge(open_call("/clean/f", true), file.hold());
  ASSERT_TRUE(held.certificate);
  ASSERT_TRUE(
      session_->settle_file(held.hold, file.fd.get(), file.identity, label("operator"), true));
  const auto refused = session_->reload(changed_policy("clean-write"));
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().what.find("/clean/f is open for writing"), std::string::npos)
      << refused.error().what;
  EXPECT_TRUE(judge(open_call("/clean/g", true)).certificate) << "the old one decides";
  file.fd.reset();
  EXPECT_TRUE(session_->reload(changed_policy("clean-write")));
  EXPECT_FALSE(judge(open_call("/clean/g", true)).certificate);
}

TEST_F(SessionTest, APolicyThatIsNotValidOrNeedsAnotherStartIsNotLoaded) {
  kernel::Policy twice = test_policy();
  twice.rules.push_back(twice.rules[0]);
  EXPECT_FALSE(session_->reload(twice));
  kernel::Policy udp = test_policy();
  udp.rules.push_back(connect_rule("udp", "n.test", {"operator"}));
  udp.rules.back().endpoints[0] = *kernel::EndpointPattern::parse("udp:n.test:123");
  const auto refused = session_->reload(udp);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().what.find("UDP"), std::string::npos);
  EXPECT_EQ(session_->decider().policy().digest(), test_policy().digest());
}

TEST_F(SessionTest, CallsOfOtherThreadsAreDecidedByOneOfThePolicies) {
  std::atomic<bool> stop = false;
  std::atomic<size_t> wrong = 0, calls = 0;
  std::thread caller([&] {
    while (!stop) {
      const Judged one = judge(connect_call("any.test"));
      ++calls;
      if (!one.certificate || one.rule(0)->id != "any-host") ++wrong;
    }
  });
  int64_t longest = 0;
  for (int i = 0; i < 32; ++i) {
    const auto waited = session_->reload(i % 2 == 0 ? changed_policy("read-all") : test_policy());
    ASSERT_TRUE(waited) << waited.error().what;
    longest = std::max(longest, *waited);
    while (calls < static_cast<size_t>(i)) std::this_thread::yield();
  }
  stop = true;
  caller.join();
  EXPECT_EQ(wrong, 0u);
  RecordProperty("longest_swap_ns", std::to_string(longest));
}

TEST_F(SessionTest, ObservedCallsAreAllowedAndRecordedWithTheReasonTheyWouldBeRefusedFor) {
  kernel::Policy wide = test_policy(), strict = test_policy();
  for (const kernel::Verb verb : {kernel::Verb::kRead, kernel::Verb::kWrite}) {
    wide.rules.push_back(path_rule(std::string("observed-") + kernel::verb_text(verb), {verb},
                                   "/**", {"operator", "tool", "web:*"}));
    strict.rules.push_back(wide.rules.back());
    strict.rules.back().paths.clear();
    strict.rules.back().verbs.clear();
  }
  auto view = LabelView::open(*store_->table_for_reading(), *store_->names_for_reading());
  session_.emplace(kernel::Decider(wide, token_for_everything()), label("operator"), *recorder_,
                   std::move(*view), *readers_, *channel_, *ledger_, Report::kText,
                   kernel::Decider(strict, token_for_everything()));
  EXPECT_TRUE(judge(open_call("/any/f", true)).certificate);
  EXPECT_EQ(records().back().grade, "");
  EXPECT_TRUE(judge(open_call("/elsewhere", true)).certificate);
  EXPECT_EQ(records().back().kind, RecordKind::kCertificate);
  EXPECT_EQ(records().back().grade, kernel::kObservedGrade);
  EXPECT_EQ(records().back().reason, "SCOPE_MISSING");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(judge(open_call("/few/f", false)).certificate);
  EXPECT_EQ(records().back().reason, "BUDGET_EXHAUSTED");
  // What is open for writing where the new label may not write does not stop the raise.
  OpenFile file = open_file("held");
  const Judged held = judge(open_call("/clean/f", true), file.hold());
  ASSERT_TRUE(
      session_->settle_file(held.hold, file.fd.get(), file.identity, label("operator"), true));
  EXPECT_TRUE(poison().certificate);
  EXPECT_EQ(records().back().reason, "HELD_WRITABLE");
  EXPECT_EQ(records().back().culprit, "web:evil.test");
  EXPECT_EQ(stored_label(file.identity), "operator,web:evil.test") << "labels join as ever";
  EXPECT_TRUE(judge(open_call("/clean/g", true)).certificate);
  EXPECT_EQ(records().back().reason, "UNTRUSTED_ORIGIN");
  EXPECT_FALSE(session_->reload(test_policy())) << "it keeps its policy";
  session_.reset();
}

TEST(OpenForWriting, IsTrueWhileAnyoneCanStillWriteTheFile) {
  std::string name = (fs::temp_directory_path() / "certgate-open-XXXXXX").string();
  UniqueFd writer(::mkstemp(name.data()));
  const UniqueFd pin(::open(name.c_str(), O_PATH | O_CLOEXEC));
  EXPECT_TRUE(open_for_writing(pin.get()));
  UniqueFd copy(::dup(writer.get()));
  writer.reset();
  EXPECT_TRUE(open_for_writing(pin.get()));
  copy.reset();
  EXPECT_FALSE(open_for_writing(pin.get()));
  const UniqueFd reader(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(open_for_writing(pin.get()));
  fs::remove(name);
}

TEST(OpenForWriting, AFifoCountsWhileItHasAWriter) {
  const std::string name =
      (fs::temp_directory_path() / ("certgate-fifo-" + std::to_string(::getpid()))).string();
  ASSERT_EQ(::mkfifo(name.c_str(), 0600), 0);
  const UniqueFd pin(::open(name.c_str(), O_PATH | O_CLOEXEC));
  UniqueFd both(::open(name.c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_TRUE(open_for_writing(pin.get()));
  both.reset();
  EXPECT_FALSE(open_for_writing(pin.get()));
  fs::remove(name);
}

}  // namespace
}  // namespace certgate::supervisor
