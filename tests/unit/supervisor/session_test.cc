#include "tests/unit/supervisor/session_fixture.h"

namespace certgate::supervisor {
namespace {

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
