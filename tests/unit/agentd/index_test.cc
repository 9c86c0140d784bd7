#include "agentd/index/index.h"

#include <sys/stat.h>

#include <random>

#include "agentd/index/lineage.h"
#include "agentd/index/where.h"
#include "log_fixture.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;

constexpr int64_t kNow = 1795430400'000'000'000;
constexpr uint8_t kRead = static_cast<uint8_t>(kernel::Verb::kRead) + 1;
constexpr uint8_t kWrite = static_cast<uint8_t>(kernel::Verb::kWrite) + 1;
constexpr uint8_t kExec = static_cast<uint8_t>(kernel::Verb::kExec) + 1;
constexpr uint8_t kConnect = static_cast<uint8_t>(kernel::Verb::kConnect) + 1;

class IndexTest : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    store_.emplace(opened());
  }

  // A run from its records; kinds, numbers and times are filled in.
  void add_run(const std::string& run, std::vector<Record> records, bool finish = true) {
    auto segment = store_->create_segment(run);
    ASSERT_TRUE(segment) << segment.error().what;
    Record start = record(run, 1, RecordKind::kStart);
    start.call.clear();
    start.object = "agent " + run;
    start.origins = "operator";
    records.insert(records.begin(), start);
    Record stop = record(run, records.size() + 1, RecordKind::kStop);
    records.push_back(stop);
    for (size_t i = 0; i < records.size(); ++i) {
      records[i].run = run;
      records[i].seq = i + 1;
      records[i].wall_ns = clock_ += 1'000'000;
      if (records[i].kind == RecordKind::kStop) records[i].count = i;
      if (!finish && records[i].kind == RecordKind::kStop) break;
      ASSERT_TRUE(append_record(segment->append.get(), records[i]));
    }
    if (finish) {
      ASSERT_TRUE(store_->finish(segment->tail));
    } else {
      ASSERT_TRUE(store_->seal(segment->tail));
      open_.push_back(std::move(*segment));
    }
  }

  static Record deed(RecordKind kind, uint8_t verb, const std::string& object,
                     const std::string& label, const std::string& raised = "") {
    Record r;
    r.kind = kind;
    r.verb = verb;
    r.call = verb == kExec ? "execve" : verb == kConnect ? "connect" : "openat";
    r.object = object;
    r.origins = label;
    r.raised = raised;
    r.pid = 100;
    return r;
  }
  static Record allow(uint8_t verb, const std::string& object, const std::string& label,
                      const std::string& raised = "") {
    return deed(RecordKind::kCertificate, verb, object, label, raised);
  }

  // One agent fetches a page and writes it to a file; a second reads the file and is refused.
  void incident() {
    add_run("aaaa", {allow(kConnect, "page.test:80", "operator", "operator,web:page.test"),
                     allow(kWrite, "/ws/page.sh", "operator,web:page.test"),
                     allow(kWrite, "/tmp/same", "operator,web:page.test")});
    Record refused = deed(RecordKind::kRefusal, kExec, "/usr/bin/dash", "operator,web:page.test");
    refused.culprit = "web:page.test";
    refused.argument = "agent";
    refused.reason = "UNTRUSTED_ORIGIN";
    add_run("bbbb", {allow(kRead, "/etc/passwd", "operator"), allow(kRead, "/tmp/same", "operator"),
                     allow(kRead, "/ws/page.sh", "operator", "operator,web:page.test"), refused});
    add_run("cccc", {allow(kRead, "/etc/passwd", "operator")});
  }

  Index index() {
    auto opened = Index::open(state_);
    if (!opened) ADD_FAILURE() << opened.error().what;
    return std::move(*opened);
  }
  // Every row, as text.
  std::string dump(Index& index) {
    std::string out;
    for (const char* sql :
         {"SELECT e.*, r.source_run FROM event e JOIN record r ON r.pos = e.pos ORDER BY e.pos",
          "SELECT name, first, last, stop, reading FROM run ORDER BY first",
          "SELECT t.value, l.origin FROM label l JOIN text t ON t.id = l.text ORDER BY 1, 2"}) {
      auto rows = index.db().prepare(sql);
      if (!rows) return rows.error().what;
      for (auto more = rows->step(); more && *more; more = rows->step()) {
        for (int i = 0; i < rows->columns(); ++i) out += rows->text(i) + "|";
        out += '\n';
      }
    }
    return out;
  }
  std::vector<std::string> ids(const std::string& where) {
    Index opened = index();
    auto condition = compile_where(where, kNow);
    if (!condition) return {condition.error().what};
    auto rows = opened.db().prepare(
        "SELECT run.name || '-' || r.seq FROM record r JOIN run ON run.id = r.run WHERE " +
        condition->sql + " ORDER BY r.pos");
    if (!rows) return {rows.error().what};
    EXPECT_TRUE(condition->bind(*rows, 1));
    std::vector<std::string> all;
    for (auto more = rows->step(); more && *more; more = rows->step()) all.push_back(rows->text(0));
    return all;
  }

  std::optional<LogStore> store_;
  std::vector<SegmentFile> open_;
  int64_t clock_ = kNow;
};

TEST_F(IndexTest, AnObservedCallIsNeitherAllowedNorRefused) {
  Record observed = allow(kWrite, "/etc/x", "operator");
  observed.grade = kernel::kObservedGrade;
  observed.reason = "SCOPE_MISSING";
  Record graded = allow(kRead, "/etc/y", "operator");
  graded.grade = "else";
  add_run("aaaa", {allow(kRead, "/etc/passwd", "operator"), observed, graded,
                   deed(RecordKind::kRefusal, kExec, "/bin/x", "operator")});
  using Ids = std::vector<std::string>;
  EXPECT_EQ(ids("verdict=allowed"), (Ids{"aaaa-2", "aaaa-4"}));
  EXPECT_EQ(ids("verdict=observed"), Ids{"aaaa-3"});
  EXPECT_EQ(ids("verdict=observe"), Ids{"aaaa-3"});
  EXPECT_EQ(ids("verdict=refused"), Ids{"aaaa-5"});
  EXPECT_EQ(ids("verdict!=observed and verb=write"), Ids{});
  EXPECT_EQ(ids("verdict!=allowed and pid=100"), (Ids{"aaaa-3", "aaaa-5"}));
  EXPECT_NE(ids("verdict=maybe").at(0).find("there are: allowed, observed, refused"),
            std::string::npos);
  Index opened = index();
  auto rows = opened.db().prepare("SELECT verdict FROM event WHERE id = 'aaaa-3'");
  ASSERT_TRUE(rows && rows->step());
  EXPECT_EQ(rows->text(0), "observe");
}

TEST_F(IndexTest, WhatCompletionOffersIsWhatTheParserTakes) {
  size_t taken = 0;
  for (const std::string before : {"", "pid>1 and ", "not (verb=exec or "}) {
    for (const std::string& field : complete_where(before)) {
      if (field == before + "not") continue;
      for (const std::string& unfinished : complete_where(field)) {
        std::vector<std::string> values = complete_where(unfinished);
        const bool known = !values.empty();
        if (!known) values = {unfinished + "1", unfinished + "-1h", unfinished + "aaaa-1"};
        size_t good = 0;
        for (std::string one : values) {
          if (before.find('(') != std::string::npos) one += ')';
          if (compile_where(one, kNow)) ++good;
        }
        EXPECT_GE(good, known ? values.size() : 1) << unfinished;
        ++taken;
      }
    }
  }
  EXPECT_GT(taken, 3 * 40u);
  using Names = std::vector<std::string>;
  EXPECT_EQ(complete_where("verdict=o"), Names{"verdict=observed"});
  EXPECT_EQ(complete_where("pid>1 an"), Names{"pid>1 and"});
  EXPECT_EQ(complete_where("object=\"a b\" and verdict"),
            (Names{"object=\"a b\" and verdict!=", "object=\"a b\" and verdict="}));
  EXPECT_EQ(complete_where("bad=1 and "), Names{});
  EXPECT_EQ(complete_where("object=\"open"), Names{});
  EXPECT_EQ(complete_where("((verb=exec) "),
            (Names{"((verb=exec) and", "((verb=exec) or", "((verb=exec) )"}));
  for (const std::string& kind : where_values("kind"))
    EXPECT_TRUE(compile_where("kind=" + kind, kNow)) << kind;
}

TEST_F(IndexTest, InPortionsAndAtOnceGiveTheSameRows) {
  incident();
  index();  // a portion
  add_run("dddd",
          {allow(kWrite, "/ws/page.sh", "operator"), allow(kRead, "/ws/page.sh", "operator")});
  Index grown = index();
  const std::string rows = dump(grown);
  auto anew = Index::rebuild(state_);
  ASSERT_TRUE(anew) << anew.error().what;
  EXPECT_EQ(dump(*anew), rows);
  EXPECT_NE(rows.find("dddd-3"), std::string::npos);
}

TEST_F(IndexTest, AWriteThatIsSealedBehindItsReaderIsFoundByTheClock) {
  auto late = store_->create_segment("late");
  Record start = record("late", 1, RecordKind::kStart);
  start.wall_ns = kNow;
  Record wrote = allow(kWrite, "/ws/x", "web:a.test");
  wrote.run = "late", wrote.seq = 2, wrote.wall_ns = kNow + 10;
  ASSERT_TRUE(append_record(late->append.get(), start));
  ASSERT_TRUE(append_record(late->append.get(), wrote));
  add_run("fast", {allow(kRead, "/ws/x", "operator", "operator,web:a.test")});
  index();
  ASSERT_TRUE(store_->finish(late->tail));
  Index both = index();
  EXPECT_NE(dump(both).find("|fast-2|"), std::string::npos);
  const auto why = explain(both, "fast-2", "web:a.test");
  ASSERT_TRUE(why);
  const auto path = causal_path(both, "late-2", "fast-2");
  ASSERT_TRUE(path) << path.error().what;
  EXPECT_EQ(path->size(), 2u);
  const std::string rows = dump(both);
  auto anew = Index::rebuild(state_);
  ASSERT_TRUE(anew);
  EXPECT_EQ(dump(*anew), rows);
}

TEST_F(IndexTest, AnIndexOfAnotherLogOrHistoryIsMadeAnew) {
  incident();
  { Index first = index(); }
  const std::string file = read(state_ + "/index.sqlite");
  struct stat st;
  ASSERT_EQ(::stat((state_ + "/index.sqlite").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
  write(state_ + "/index.sqlite", "not a database at all, but of some length to be sure of that");
  {
    Index again = index();
    EXPECT_FALSE(again.note().empty());
    EXPECT_EQ(again.sealed(), 14u);
  }
  std::filesystem::rename(state_, root_ + "/old");
  store_.emplace(opened());
  incident();
  for (const char* more : {"", "-wal", "-shm"})
    std::filesystem::remove(state_ + "/index.sqlite" + more);
  write(state_ + "/index.sqlite", file);
  Index other = index();
  EXPECT_NE(other.note().find("another log"), std::string::npos) << other.note();
}

TEST_F(IndexTest, WhatTheLogNoLongerHoldsIsNotShown) {
  incident();
  { Index first = index(); }
  const std::string path = state_ + "/log/tile/entries/000.p/14";
  std::string bytes = read(path);
  const size_t at = bytes.find("page.sh");
  ASSERT_NE(at, std::string::npos);
  bytes[at] = 'q';
  write(path, bytes);
  Index later = index();  // the index itself is still the right one
  EXPECT_FALSE(later.record(2));
  EXPECT_TRUE(later.record(1));
  EXPECT_FALSE(explain(later, "bbbb-5"));
}

TEST_F(IndexTest, RecordsThatAreNotSealedAreThereAndGoAgain) {
  incident();
  add_run("live", {allow(kRead, "/ws/page.sh", "operator", "operator,web:page.test")}, false);
  Record more = allow(kExec, "/usr/bin/true", "operator,web:page.test");
  more.run = "live", more.seq = 3, more.wall_ns = clock_ += 10;
  ASSERT_TRUE(append_record(open_[0].append.get(), more));
  for (int i = 0; i < 2; ++i) {
    Index now = index();
    EXPECT_EQ(now.unsealed(), 1u);
    const auto pos = now.find("live-3");
    ASSERT_TRUE(pos) << pos.error().what;
    EXPECT_EQ(now.record(*pos)->object, "/usr/bin/true");
    EXPECT_FALSE(now.is_sealed(*pos));
    EXPECT_FALSE(now.bytes(*pos));
  }
}

TEST_F(IndexTest, WhyGoesBackOverFilesAndAgentsToWhereItCameIn) {
  incident();
  Index now = index();
  const auto why = explain(now, "bbbb-5");
  ASSERT_TRUE(why) << why.error().what;
  std::vector<std::string> chain;
  for (const Step& step : why->chain) chain.push_back(step.record.id());
  EXPECT_EQ(chain, (std::vector<std::string>{"bbbb-4", "aaaa-3", "aaaa-2"}));
  EXPECT_EQ(why->origin, "web:page.test");
  ASSERT_TRUE(why->wrote);
  EXPECT_EQ(why->wrote->id(), "aaaa-3");
}

TEST_F(IndexTest, ImpactGoesForwardAndOnlyThere) {
  incident();
  Index now = index();
  for (const char* of : {"web:page.test", "aaaa-2", "aaaa-3"}) {
    const auto impact = impact_of(now, of, 10);
    ASSERT_TRUE(impact) << impact.error().what;
    ASSERT_EQ(impact->runs.size(), 2u) << of;
    EXPECT_EQ(impact->runs[0].run, "aaaa");
    EXPECT_EQ(impact->runs[1].run, "bbbb");
    EXPECT_EQ(impact->runs[1].groups.at("refused").count, 1u);
    EXPECT_FALSE(impact->runs[1].groups.contains("write"));
  }
  EXPECT_EQ(impact_of(now, "bbbb-2", 10)->runs.size(), 1u);
  EXPECT_EQ(impact_of(now, "/ws/page.sh", 10)->runs.size(),
            1u);  // who read it, and what came after
  EXPECT_TRUE(impact_of(now, "web:other.test", 10)->runs.empty());
}

TEST_F(IndexTest, TheSameNameInTwoSandboxesIsTwoFiles) {
  incident();
  Index now = index();
  const auto path = causal_path(now, "aaaa-4", "bbbb-3");  // /tmp/same
  ASSERT_TRUE(path);
  EXPECT_TRUE(path->empty());
}

TEST_F(IndexTest, PathsAreShortestAndEndWhereTheyShould) {
  incident();
  Index now = index();
  const auto path = causal_path(now, "web:page.test", "bbbb-5");
  ASSERT_TRUE(path);
  std::vector<std::string> ids;
  for (const Step& step : *path) ids.push_back(step.record.id());
  EXPECT_EQ(ids, (std::vector<std::string>{"aaaa-2", "aaaa-3", "bbbb-4", "bbbb-5"}));
  EXPECT_TRUE(causal_path(now, "web:page.test", "cccc-2")->empty());
  EXPECT_FALSE(causal_path(now, "web:page.test", "user"));
  EXPECT_EQ(causal_path(now, "/ws/page.sh", "bbbb-5")->size(), 2u);
}

TEST_F(IndexTest, WhereFindsWhatItSays) {
  incident();
  using Ids = std::vector<std::string>;
  EXPECT_EQ(ids("verdict=refused"), Ids{"bbbb-5"});
  EXPECT_EQ(ids("verdict = refused and object ~ \"/usr/*\""), Ids{"bbbb-5"});
  EXPECT_EQ(ids("object=/etc/passwd and agent!=cccc"), Ids{"bbbb-2"});
  EXPECT_EQ(ids("origin=web:* and verb=write"), (Ids{"aaaa-3", "aaaa-4"}));
  EXPECT_EQ(ids("raised=web:page.test"), (Ids{"aaaa-2", "bbbb-4"}));
  EXPECT_EQ(ids("not (kind=certificate or kind=refusal or kind=stop)"),
            (Ids{"aaaa-1", "bbbb-1", "cccc-1"}));
  EXPECT_EQ(ids("seq>=5 and kind!=stop"), Ids{"bbbb-5"});
  EXPECT_EQ(ids("id=aaaa-3"), Ids{"aaaa-3"});
  EXPECT_EQ(ids("time<\"1990-01-01\""), Ids{});
  EXPECT_EQ(ids("command~\"agent c*\" and verb=read"), Ids{"cccc-2"});
  EXPECT_EQ(ids("object=\"x' OR 1=1 --\""), Ids{});
  EXPECT_EQ(ids("reason=UNTRUSTED_ORIGIN or verb=connect"), (Ids{"aaaa-2", "bbbb-5"}));
}

TEST(Where, ErrorsNameTheCharacterAndWhatIsPossible) {
  const std::pair<const char*, const char*> kBad[] = {
      {"", "character 1: a field is expected"},
      {"vedict=refused", "character 1: \"vedict\" is not a field; there are: agent, run"},
      {"verdict refused", "character 9: an operator is expected"},
      {"verdict=refuzed", "character 9: no verdict is called so; there are: allowed"},
      {"verdict=refused and", "character 20: a field is expected"},
      {"verdict=refused object=x", "character 17: \"and\", \"or\" or the end"},
      {"(verdict=refused", "character 17: \")\" is missing"},
      {"object=\"x", "character 10: the closing \" is missing"},
      {"object=", "character 8: a value is expected"},
      {"object<x", "character 8: object has no order"},
      {"pid~1*", "character 5: pid is not a text"},
      {"pid=1x", "character 5: not a number"},
      {"time>yesterday", "character 6: not a time"},
      {"time>-5y", "character 6: not a time before now"},
      {"time>-99999999d", "character 6: not a time before now"},
      {"id=17", "character 4: an id is RUN-NUMBER"},
  };
  for (const auto& [text, what] : kBad) {
    const auto made = compile_where(text, kNow);
    ASSERT_FALSE(made) << text;
    EXPECT_NE(made.error().what.find(what), std::string::npos) << text << ": " << made.error().what;
  }
  EXPECT_FALSE(compile_where(std::string(5000, ' '), kNow));
  EXPECT_FALSE(compile_where(std::string(200, '(') + "pid=1" + std::string(200, ')'), kNow));
  std::string many = "pid=1";
  for (int i = 0; i < 70; ++i) many += " or pid=1";
  EXPECT_FALSE(compile_where(many, kNow));
}

TEST(Where, TimesAreRfc3339OrBeforeNow) {
  EXPECT_EQ(*parse_time("1970-01-02", 0), 86400'000'000'000);
  EXPECT_EQ(*parse_time("1970-01-01T00:01:02.5Z", 0), 62'500'000'000);
  EXPECT_EQ(*parse_time("1970-01-01T00:01", 0), 60'000'000'000);
  EXPECT_EQ(*parse_time("-2h", 7200'000'000'000), 0);
  for (const char* bad : {"", "now", "2026", "2026-13-40", "2026-11-28T", "2026-11-28T17:00:00+01",
                          "-", "-2", "-2y", "-99999999999999999999h", "9999-12-31"})
    EXPECT_FALSE(parse_time(bad, 0)) << bad;
}

}  // namespace
}  // namespace certgate::agentd
