#include "agentd/index/lineage.h"

#include <algorithm>
#include <deque>
#include <set>

#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "kernel/label.h"

namespace certgate::agentd {
namespace {

using cli::escape;
using kernel::Record;
using kernel::RecordKind;

constexpr size_t kMaxChain = 64;
constexpr size_t kMaxVisited = 200'000;
constexpr size_t kMaxRuns = 4096;
constexpr size_t kAgentsForEachShown = 2;
constexpr int kMaxWritesTried = 64;
constexpr uint8_t kExecVerb = static_cast<uint8_t>(kernel::Verb::kExec) + 1;
constexpr uint8_t kWriteVerb = static_cast<uint8_t>(kernel::Verb::kWrite) + 1;
constexpr uint8_t kConnectVerb = static_cast<uint8_t>(kernel::Verb::kConnect) + 1;

using Position = std::optional<uint64_t>;

// The links of one row.
struct Links {
  int64_t run = 0;
  Position program, state, source;
};

Position position(const Statement& s, int column) {
  if (s.null(column)) return std::nullopt;
  return static_cast<uint64_t>(s.number(column));
}

Result<Links> links_of(Index& index, uint64_t pos) {
  CG_TRY(Statement find,
         index.db().prepare("SELECT run, program, state, source FROM record WHERE pos = ?1"));
  CG_CHECK(find.bind(1, static_cast<int64_t>(pos)));
  CG_TRY(const bool row, find.step());
  if (!row)
    return fail("index: no record at " + std::to_string(pos) + " (cure: certgate audit reindex)");
  return Links{find.number(0), position(find, 1), position(find, 2), position(find, 3)};
}

Result<Position> start_of(Index& index, int64_t run) {
  CG_TRY(Statement find,
         index.db().prepare("SELECT pos FROM record WHERE run = ?1 AND kind = 1 ORDER BY seq "
                            "LIMIT 1"));
  CG_CHECK(find.bind(1, run));
  CG_TRY(const bool row, find.step());
  return row ? position(find, 0) : Position();
}

// The first of this run that brought the origin in, before a position.
Result<Position> first_raise(Index& index, int64_t run, uint64_t before,
                             const std::string& origin) {
  CG_TRY(
      Statement find,
      index.db().prepare("SELECT r.pos, t.value FROM record r JOIN text t ON t.id = r.raised WHERE "
                         "r.run = ?1 AND r.pos < ?2 AND r.raised IS NOT NULL ORDER BY r.pos"));
  CG_CHECK(find.bind(1, run));
  CG_CHECK(find.bind(2, static_cast<int64_t>(before)));
  for (;;) {
    CG_TRY(const bool row, find.step());
    if (!row) return Position();
    if (label_has(find.text(1), origin)) return position(find, 0);
  }
}

// The last write of an object under an origin, before a time.
Result<Position> last_write(Index& index, const Record& reader, const std::string& origin) {
  CG_TRY(Statement find,
         index.db().prepare(
             "SELECT r.pos, l.value FROM record r JOIN text o ON o.id = r.object LEFT JOIN "
             "text l ON l.id = r.label WHERE o.value = ?1 AND r.object IS NOT NULL AND r.verb = 3 "
             "AND r.kind = 2 AND r.wall <= ?2 ORDER BY r.wall DESC, r.pos DESC LIMIT ?3"));
  CG_CHECK(find.bind(1, escape(reader.object)));
  CG_CHECK(find.bind(2, reader.wall_ns));
  CG_CHECK(find.bind(3, int64_t{kMaxWritesTried}));
  for (;;) {
    CG_TRY(const bool row, find.step());
    if (!row) return Position();
    if (label_has(find.text(1), origin)) return position(find, 0);
  }
}

Result<Step> step(Index& index, uint64_t pos, std::string how) {
  CG_TRY(Record record, index.record(pos));
  return Step{pos, std::move(record), std::move(how)};
}

const char* how_it_came(const Record& r) {
  if (r.kind == RecordKind::kStart) return "its run began with it";
  if (r.kind == RecordKind::kRaise) return "its run rose, as another wrote what it may be reading";
  if (r.verb == kConnectVerb) return "its run had connected there";
  if (r.verb == kExecVerb) return "its run had executed a file that carries it";
  return "its run had read a file that carries it";
}

// From a record back to where an origin entered the host.
Result<std::vector<Step>> trace(Index& index, uint64_t pos, const Record& subject,
                                const std::string& origin) {
  std::vector<Step> chain;
  std::set<uint64_t> seen = {pos};
  auto add = [&](uint64_t at, const char* how) -> Status {
    CG_TRY(Step next, step(index, at, how));
    chain.push_back(std::move(next));
    return ok();
  };
  Position write;  // what is to be followed next: a write of some run
  if (subject.argument == "file") {
    CG_TRY(write, last_write(index, subject, origin));
    if (write && seen.insert(*write).second) CG_CHECK(add(*write, "the file was written under it"));
  }
  uint64_t at = write.value_or(pos);
  while (chain.size() < kMaxChain) {
    CG_TRY(const Links here, links_of(index, at));
    CG_TRY(const Position raise, first_raise(index, here.run, at, origin));
    if (!raise) {
      CG_TRY(const Position start, start_of(index, here.run));
      if (!start) break;
      CG_TRY(Step first, step(index, *start, "its run began with it"));
      if (label_has(first.record.origins, origin) && seen.insert(*start).second)
        chain.push_back(std::move(first));
      break;
    }
    if (!seen.insert(*raise).second) break;
    CG_TRY(Step by, step(index, *raise, ""));
    by.how = how_it_came(by.record);
    const bool connected = by.record.verb == kConnectVerb;
    chain.push_back(std::move(by));
    CG_TRY(const Links raised, links_of(index, *raise));
    if (connected || !raised.source) break;
    CG_TRY(Step wrote, step(index, *raised.source, "that file was written under it"));
    if (!label_has(wrote.record.origins, origin) || !seen.insert(*raised.source).second) break;
    at = *raised.source;
    chain.push_back(std::move(wrote));
  }
  return chain;
}

// What an allowed call is asked about: the origin that came into its run last.
Result<std::string> last_origin(Index& index, const Links& links, const Record& subject) {
  if (!links.state) return std::string();
  CG_TRY(const Record state, index.record(*links.state));
  CG_TRY(const Links before, links_of(index, *links.state));
  std::string old;
  if (before.state) {
    CG_TRY(const Record earlier, index.record(*before.state));
    old = earlier.raised.empty() ? earlier.origins : earlier.raised;
  }
  const std::string& now = subject.raised.empty() ? state.raised : subject.raised;
  std::string found;
  for (size_t at = 0; at < now.size();) {
    const size_t end = std::min(now.find(',', at), now.size());
    const std::string one = now.substr(at, end - at);
    if (!label_has(old, one)) found = one;
    at = end + 1;
  }
  return found;
}

}  // namespace

void conclude(Explanation& why) {
  for (const Step& one : why.chain) {
    const bool mine = one.record.run == why.record.run;
    if (mine && !why.raised_by && !one.record.raised.empty()) why.raised_by = one.record;
    if (!why.wrote && one.record.verb == kWriteVerb && one.record.raised.empty())
      why.wrote = one.record;
  }
  if (!why.raised_by && why.start) why.from_start = label_has(why.start->origins, why.origin);
}

Result<Explanation> explain(Index& index, const std::string& id, const std::string& origin) {
  CG_TRY(const uint64_t pos, index.find(id));
  Explanation why;
  CG_TRY(why.record, index.record(pos));
  if (index.is_sealed(pos)) why.index = pos;
  const Record& subject = why.record;
  CG_TRY(const Links links, links_of(index, pos));
  CG_TRY(const Position start, start_of(index, links.run));
  if (start) {
    CG_TRY(why.start, index.record(*start));
  }
  CG_TRY(const Position outcome, index.outcome_of(pos));
  if (outcome) {
    CG_TRY(why.outcome, index.record(*outcome));
  }
  if (links.program) {
    CG_TRY(why.program, index.record(*links.program));
  }
  why.origin = origin.empty() ? subject.culprit : origin;
  if (why.origin.empty() && subject.kind == RecordKind::kCertificate) {
    CG_TRY(why.origin, last_origin(index, links, subject));
  }
  if (!why.origin.empty()) {
    CG_TRY(why.chain, trace(index, pos, subject, why.origin));
    conclude(why);
  }
  BlobStore blobs(index.log().snapshot().dir());
  CG_TRY(why.kept_out, blobs.values(why.record));
  CG_TRY(why.record, blobs.shown(std::move(why.record)));
  if (why.start) {
    CG_TRY(why.start, blobs.shown(*why.start));
  }
  return why;
}

namespace {

struct Seeds {
  std::string what;
  std::map<int64_t, uint64_t> first;  // run → its first record under the influence
};

Status add_seeds(Statement& find, Seeds& seeds) {
  for (;;) {
    CG_TRY(const bool row, find.step());
    if (!row) return ok();
    const auto pos = static_cast<uint64_t>(find.number(1));
    const auto [at, made] = seeds.first.try_emplace(find.number(0), pos);
    if (!made) at->second = std::min(at->second, pos);
  }
}

bool is_origin(const std::string& text) {
  return !text.empty() && text.find('/') == std::string::npos &&
         static_cast<bool>(kernel::Label::parse(text));
}

Result<Seeds> seeds_of(Index& index, const std::string& subject) {
  Seeds seeds;
  if (is_origin(subject)) {
    seeds.what = "origin " + subject;
    const std::string whole = subject.substr(0, subject.find(':') + 1) + '*';
    for (const char* sql : {"SELECT run, min(pos) FROM record WHERE raised IS NOT NULL AND raised "
                            "IN (SELECT text FROM label WHERE "
                            "origin IN (?1, ?2)) GROUP BY run",
                            "SELECT run, min(pos) FROM record WHERE kind NOT IN (2, 4) AND kind = "
                            "1 AND label IN (SELECT text FROM "
                            "label WHERE origin IN (?1, ?2)) GROUP BY run"}) {
      CG_TRY(Statement find, index.db().prepare(sql));
      CG_CHECK(find.bind(1, subject));
      CG_CHECK(find.bind(2, whole));
      CG_CHECK(add_seeds(find, seeds));
    }
    return seeds;
  }
  if (subject.starts_with('/')) {
    seeds.what = "file " + subject;
    CG_TRY(Statement find,
           index.db().prepare("SELECT run, min(pos) FROM record WHERE object = (SELECT id FROM "
                              "text WHERE value = ?1) AND object IS NOT NULL AND kind = 2 AND "
                              "verb IN (1, 2) GROUP BY run"));
    CG_CHECK(find.bind(1, subject));
    CG_CHECK(add_seeds(find, seeds));
    return seeds;
  }
  CG_TRY(const uint64_t pos, index.find(subject));
  CG_TRY(const Record record, index.record(pos));
  seeds.what = "record " + record.id();
  CG_TRY(const Links links, links_of(index, pos));
  if (record.kind != RecordKind::kRefusal) seeds.first[links.run] = pos;
  return seeds;
}

Status name_run(Index& index, int64_t run, Influenced& out) {
  CG_TRY(Statement name,
         index.db().prepare("SELECT run.name, t.value FROM run LEFT JOIN text t ON t.id = "
                            "run.command WHERE run.id = ?1"));
  CG_CHECK(name.bind(1, run));
  CG_TRY(const bool known, name.step());
  if (known) out.run = name.text(0), out.command = name.text(1);
  return ok();
}

Status describe_run(Index& index, int64_t run, size_t shown, Influenced& out) {
  CG_TRY(
      Statement rows,
      index.db().prepare(
          "SELECT pos, kind, verb, object FROM record WHERE run = ?1 AND seq >= (SELECT seq FROM "
          "record WHERE pos = ?2) AND kind IN (2, 3) AND coalesce(grade, 0) != coalesce((SELECT "
          "id FROM text WHERE value = 'self-test'), -1) ORDER BY seq"));
  CG_CHECK(rows.bind(1, run));
  CG_CHECK(rows.bind(2, static_cast<int64_t>(out.from)));
  static constexpr const char* kNames[] = {"", "exec", "read", "write", "connect"};
  std::set<std::pair<std::string, int64_t>> objects;
  for (;;) {
    CG_TRY(const bool row, rows.step());
    if (!row) return ok();
    const int64_t verb = rows.number(2);
    const std::string group =
        rows.number(1) == 3 ? "refused" : kNames[verb >= 1 && verb <= 4 ? verb : 2];
    Influenced::Group& to = out.groups[group];
    ++to.count;
    if (to.shown.size() >= shown || !objects.insert({group, rows.number(3)}).second) continue;
    CG_TRY(Step one, step(index, static_cast<uint64_t>(rows.number(0)), ""));
    to.shown.push_back(std::move(one));
  }
}

}  // namespace

Result<Impact> impact_of(Index& index, const std::string& subject, size_t shown) {
  CG_TRY(const Seeds seeds, seeds_of(index, subject));
  std::map<int64_t, Influenced> runs;
  std::deque<int64_t> open;
  for (const auto& [run, pos] : seeds.first) {
    runs[run].from = pos;
    open.push_back(run);
  }
  CG_TRY(Statement readers,
         index.db().prepare(
             "SELECT run, min(pos), source FROM record WHERE source_run = ?1 AND source_run IS "
             "NOT NULL AND source >= ?2 GROUP BY run"));
  while (!open.empty()) {
    const int64_t run = open.front();
    open.pop_front();
    readers.reset();
    CG_CHECK(readers.bind(1, run));
    CG_CHECK(readers.bind(2, static_cast<int64_t>(runs[run].from)));
    for (;;) {
      CG_TRY(const bool row, readers.step());
      if (!row) break;
      const int64_t reader = readers.number(0);
      const auto pos = static_cast<uint64_t>(readers.number(1)),
                 via = static_cast<uint64_t>(readers.number(2));
      const auto [at, made] = runs.try_emplace(reader);
      if (made || pos < at->second.from) {
        at->second.from = pos;
        open.push_back(reader);
      }
      if (pos == at->second.from) at->second.via = via;
      if (runs.size() > kMaxRuns)
        return fail("more than 4096 runs are influenced: ask about something later");
    }
  }
  Impact impact;
  impact.what = seeds.what;
  std::vector<std::pair<int64_t, Influenced>> sorted(runs.begin(), runs.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.from < b.second.from; });
  for (auto& [run, one] : sorted) {
    CG_CHECK(name_run(index, run, one));
    one.detailed = impact.runs.size() < kAgentsForEachShown * shown;
    if (one.detailed) CG_CHECK(describe_run(index, run, shown, one));
    impact.runs.push_back(std::move(one));
  }
  return impact;
}

namespace {

// What one end of a path is.
struct End {
  std::string origin, file;
  Position record;
};

Result<End> end_of(Index& index, const std::string& text) {
  End end;
  if (is_origin(text)) {
    end.origin = text;
  } else if (text.starts_with('/')) {
    end.file = text;
  } else {
    CG_TRY(end.record, index.find(text));
  }
  return end;
}

// Whether a record is where the path may begin.
Result<bool> begins(Index& index, const End& from, uint64_t pos, const Links& links) {
  if (from.record) return pos == *from.record;
  CG_TRY(const Record record, index.record(pos));
  if (!from.file.empty())
    return escape(record.object) == from.file && record.kind == RecordKind::kCertificate;
  if (record.kind == RecordKind::kStart) return label_has(record.origins, from.origin);
  if (!label_has(record.raised, from.origin)) return false;
  if (links.state) {  // it brought it in, not an earlier one
    CG_TRY(const Record before, index.record(*links.state));
    if (label_has(before.raised.empty() ? before.origins : before.raised, from.origin))
      return false;
  }
  if (record.verb == kConnectVerb || !links.source) return true;
  CG_TRY(const Record wrote, index.record(*links.source));
  return !label_has(wrote.origins, from.origin);
}

// The records a path may end with: of a file, all that used it.
Result<std::vector<uint64_t>> ends(Index& index, const End& to) {
  if (to.record) return std::vector<uint64_t>{*to.record};
  if (!to.origin.empty()) return fail("a path ends at a file or a record, not at an origin");
  CG_TRY(Statement find,
         index.db().prepare("SELECT pos FROM record WHERE object = (SELECT id FROM text WHERE "
                            "value = ?1) AND object IS NOT NULL AND kind IN (2, 3) ORDER BY wall "
                            "LIMIT 1000"));
  CG_CHECK(find.bind(1, to.file));
  std::vector<uint64_t> all;
  for (;;) {
    CG_TRY(const bool row, find.step());
    if (!row) break;
    all.push_back(static_cast<uint64_t>(find.number(0)));
  }
  if (all.empty()) return fail("no record has the object " + to.file);
  return all;
}

struct Visit {
  uint64_t next = 0;  // towards the end of the path
  const char* how = "";
};

}  // namespace

Result<std::vector<Step>> causal_path(Index& index, const std::string& from,
                                      const std::string& to) {
  CG_TRY(const End first, end_of(index, from));
  CG_TRY(const End last, end_of(index, to));
  CG_TRY(const std::vector<uint64_t> goals, ends(index, last));
  std::map<uint64_t, Visit> seen;
  std::deque<uint64_t> open;
  for (const uint64_t pos : goals) {
    if (seen.try_emplace(pos, Visit{pos, ""}).second) open.push_back(pos);
  }
  while (!open.empty()) {
    const uint64_t pos = open.front();
    open.pop_front();
    CG_TRY(const Links links, links_of(index, pos));
    CG_TRY(const bool found, begins(index, first, pos, links));
    if (found) {
      std::vector<Step> path;
      for (uint64_t at = pos;; at = seen[at].next) {
        CG_TRY(Step one, step(index, at, path.empty() ? "" : seen[path.back().pos].how));
        path.push_back(std::move(one));
        if (seen[at].next == at) return path;
      }
    }
    if (seen.size() > kMaxVisited) return fail("the path is longer than can be searched");
    Position source = links.source;
    CG_TRY(const Record record, index.record(pos));
    if (record.kind == RecordKind::kRefusal && record.argument == "file") {
      CG_TRY(source, last_write(index, record, record.culprit));
    }
    struct Edge {
      Position to;
      const char* how;
    };
    for (const Edge& edge : {Edge{source, "and what it wrote was read by"},
                             Edge{links.state, "and under the label this gave, its run did"},
                             Edge{links.program, "and the program this started did"}}) {
      if (edge.to && seen.try_emplace(*edge.to, Visit{pos, edge.how}).second)
        open.push_back(*edge.to);
    }
  }
  return std::vector<Step>();
}

}  // namespace certgate::agentd
