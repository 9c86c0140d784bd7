#include "agentd/index/ingest.h"

#include <algorithm>
#include <array>
#include <vector>

#include "agentd/cli/verbs.h"
#include "kernel/policy.h"

namespace certgate::agentd {
namespace {

using cli::escape;
using kernel::Record;
using kernel::RecordKind;

constexpr size_t kMaxTextsKept = 1u << 20;

constexpr int64_t kWrite = static_cast<int64_t>(kernel::Verb::kWrite) + 1;
constexpr int64_t kConnect = static_cast<int64_t>(kernel::Verb::kConnect) + 1;

// Where each sandbox has a file system of its own: the same name in two runs is two files.
bool is_private(const std::string& path) {
  for (const char* place : {"/tmp/", "/var/tmp/", "/dev/", "/run/", "/proc/", "/home/agent/"}) {
    if (path.starts_with(place)) return true;
  }
  return false;
}

}  // namespace

const char* const kIndexTables = R"(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE text(id INTEGER PRIMARY KEY, value TEXT NOT NULL UNIQUE);
CREATE TABLE label(text INTEGER NOT NULL, origin TEXT NOT NULL, PRIMARY KEY(text, origin)) WITHOUT ROWID;
CREATE TABLE run(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, command INTEGER, first INTEGER NOT NULL,
  last INTEGER NOT NULL, stop INTEGER, reading INTEGER NOT NULL DEFAULT 0);
CREATE TABLE record(pos INTEGER PRIMARY KEY, kind INTEGER NOT NULL, run INTEGER NOT NULL, seq INTEGER NOT NULL,
  wall INTEGER NOT NULL, pid INTEGER, verb INTEGER, call INTEGER, object INTEGER, rule INTEGER, reason INTEGER,
  token INTEGER, label INTEGER, raised INTEGER, culprit INTEGER, grade INTEGER, ino INTEGER, error INTEGER,
  count INTEGER, of INTEGER, program INTEGER, state INTEGER, source INTEGER, source_run INTEGER);
CREATE TABLE kind(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE verb(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE VIEW event AS SELECT r.pos AS pos, run.name || '-' || r.seq AS id, r.wall AS wall_ns, run.name AS agent,
  kind.name AS kind, CASE WHEN r.kind = 3 THEN 'refuse' WHEN r.kind <> 2 THEN ''
  WHEN g.value = 'observed' THEN 'observe' ELSE 'allow' END AS verdict,
  r.pid AS pid, verb.name AS verb, c.value AS call, o.value AS object, u.value AS rule, e.value AS reason,
  l.value AS origins, a.value AS raised, q.value AS culprit, g.value AS grade, r.error AS errno,
  r.of AS of, r.program AS program, r.state AS state, r.source AS source
  FROM record r JOIN run ON run.id = r.run JOIN kind ON kind.id = r.kind
  LEFT JOIN verb ON verb.id = r.verb LEFT JOIN text c ON c.id = r.call LEFT JOIN text o ON o.id = r.object
  LEFT JOIN text u ON u.id = r.rule LEFT JOIN text e ON e.id = r.reason LEFT JOIN text l ON l.id = r.label
  LEFT JOIN text a ON a.id = r.raised LEFT JOIN text q ON q.id = r.culprit
  LEFT JOIN text g ON g.id = r.grade;
)";

const char* const kIndexIndices = R"(
CREATE INDEX IF NOT EXISTS record_id ON record(run, seq, kind, verb, object, grade);
CREATE INDEX IF NOT EXISTS record_object ON record(object, wall) WHERE object IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_wall ON record(wall);
CREATE INDEX IF NOT EXISTS record_kind ON record(kind, pos) WHERE kind NOT IN (2, 4);
CREATE INDEX IF NOT EXISTS record_of ON record(of) WHERE of IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_raised ON record(run, pos) WHERE raised IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_exec ON record(run, pid, pos) WHERE verb = 1;
CREATE INDEX IF NOT EXISTS record_source ON record(source) WHERE source IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_source_run ON record(source_run, source) WHERE source_run IS NOT NULL;
CREATE INDEX IF NOT EXISTS record_write_ino ON record(ino) WHERE verb = 3 AND kind = 2;
)";

Status Ingest::prepare() {
  CG_TRY(Statement count, db_.prepare("SELECT count(*) FROM (SELECT 1 FROM record LIMIT 1)"));
  CG_TRY(const bool row, count.step());
  fresh_ = row && count.number(0) == 0;
  CG_TRY(insert_,
         db_.prepare("INSERT INTO record VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,"
                     "?14,?15,?16,?17,?18,?19,?20,?21,?22,NULL,NULL)"));
  CG_TRY(find_text_, db_.prepare("SELECT id FROM text WHERE value = ?1"));
  CG_TRY(add_text_, db_.prepare("INSERT INTO text(value) VALUES(?1)"));
  CG_TRY(add_label_, db_.prepare("INSERT OR IGNORE INTO label VALUES(?1, ?2)"));
  CG_TRY(find_run_, db_.prepare("SELECT id FROM run WHERE name = ?1"));
  CG_TRY(add_run_,
         db_.prepare("INSERT INTO run(name, command, first, last) VALUES(?1, ?2, ?3, ?3)"));
  CG_TRY(end_run_,
         db_.prepare("UPDATE run SET last = ?2, stop = CASE WHEN ?3 THEN ?2 ELSE stop END "
                     "WHERE id = ?1"));
  if (!fresh_) return ok();
  for (uint64_t kind = 1; kind <= static_cast<uint64_t>(RecordKind::kAuditRead) + 16; ++kind) {
    const char* const name = kernel::record_kind_text(static_cast<RecordKind>(kind));
    CG_CHECK(db_.exec("INSERT OR REPLACE INTO kind VALUES(" + std::to_string(kind) + ", '" + name +
                      "')"));
  }
  for (size_t verb = 0; verb < kernel::kVerbs; ++verb) {
    CG_CHECK(db_.exec("INSERT OR REPLACE INTO verb VALUES(" + std::to_string(verb + 1) + ", '" +
                      kernel::verb_text(static_cast<kernel::Verb>(verb)) + "')"));
  }
  return ok();
}

Result<int64_t> Ingest::text(const std::string& value) {
  if (const auto known = texts_.find(value); known != texts_.end()) return known->second;
  const std::string shown = escape(value);
  int64_t id = 0;
  find_text_.reset();
  CG_CHECK(find_text_.bind(1, shown));
  CG_TRY(const bool there, find_text_.step());
  if (there) {
    id = find_text_.number(0);
  } else {
    CG_CHECK(add_text_.bind(1, shown));
    CG_CHECK(add_text_.run());
    id = ::sqlite3_last_insert_rowid(db_.handle());
  }
  find_text_.reset();
  if (texts_.size() >= kMaxTextsKept) texts_.clear();
  texts_.emplace(value, id);
  return id;
}

Status Ingest::label(int64_t id, const std::string& value) {
  if (!labels_.insert(id).second) return ok();
  for (size_t at = 0; at < value.size();) {
    const size_t end = std::min(value.find(',', at), value.size());
    CG_CHECK(add_label_.bind(1, id));
    CG_CHECK(add_label_.bind(2, escape(value.substr(at, end - at))));
    CG_CHECK(add_label_.run());
    at = end + 1;
  }
  return ok();
}

// What the tables know of a run that earlier portions began.
Status Ingest::load_run(Run& run) {
  CG_TRY(Statement state, db_.prepare("SELECT max(pos) FROM record WHERE run = ?1 AND "
                                      "(raised IS NOT NULL OR seq = 1)"));
  CG_CHECK(state.bind(1, run.id));
  CG_TRY(const bool has, state.step());
  if (has && !state.null(0)) run.state = state.number(0);
  CG_TRY(Statement open,
         db_.prepare("SELECT seq, pos FROM record c WHERE run = ?1 AND kind = 2 AND NOT "
                     "EXISTS (SELECT 1 FROM record o WHERE o.of = c.pos)"));
  CG_CHECK(open.bind(1, run.id));
  for (;;) {
    CG_TRY(const bool row, open.step());
    if (!row) break;
    run.open[static_cast<uint64_t>(open.number(0))] = static_cast<uint64_t>(open.number(1));
  }
  CG_TRY(Statement programs,
         db_.prepare("SELECT c.pid, c.pos FROM record c JOIN record o ON o.of = c.pos "
                     "WHERE c.run = ?1 AND c.verb = 1 AND c.kind = 2 AND "
                     "coalesce(o.error, 0) = 0 ORDER BY c.pos"));
  CG_CHECK(programs.bind(1, run.id));
  for (;;) {
    CG_TRY(const bool row, programs.step());
    if (!row) break;
    run.program[static_cast<uint32_t>(programs.number(0))] =
        static_cast<uint64_t>(programs.number(1));
  }
  return ok();
}

Result<Ingest::Run*> Ingest::run_of(const Record& record, uint64_t pos) {
  const auto [found, made] = runs_.try_emplace(record.run);
  Run& run = found->second;
  if (!made) return &run;
  find_run_.reset();
  CG_CHECK(find_run_.bind(1, escape(record.run)));
  CG_TRY(const bool there, find_run_.step());
  if (there) {
    run.id = find_run_.number(0);
    find_run_.reset();
    CG_CHECK(load_run(run));
    return &run;
  }
  find_run_.reset();
  CG_CHECK(add_run_.bind(1, escape(record.run)));
  CG_TRY(const int64_t command, text(record.object));
  CG_CHECK(record.kind == RecordKind::kStart ? add_run_.bind(2, command) : add_run_.bind_null(2));
  CG_CHECK(add_run_.bind(3, static_cast<int64_t>(pos)));
  CG_CHECK(add_run_.run());
  run.id = ::sqlite3_last_insert_rowid(db_.handle());
  return &run;
}

Status Ingest::bind_text(int at, const std::string& value, int64_t* id) {
  if (value.empty()) return insert_.bind_null(at);
  CG_TRY(const int64_t number, text(value));
  if (id != nullptr) *id = number;
  return insert_.bind(at, number);
}

Status Ingest::bind_row(uint64_t pos, const Record& r, Run& run, int64_t of) {
  auto number = [&](int at, uint64_t value) {
    return value == 0 ? insert_.bind_null(at) : insert_.bind(at, static_cast<int64_t>(value));
  };
  int64_t label_id = 0, raised_id = 0;
  // The wrapped lines of a start and the envelopes of tokens are for the log alone.
  const std::string& object = r.kind == RecordKind::kToken ? r.call : r.object;
  CG_CHECK(insert_.bind(1, static_cast<int64_t>(pos)));
  CG_CHECK(insert_.bind(2, static_cast<int64_t>(r.kind)));
  CG_CHECK(insert_.bind(3, run.id));
  CG_CHECK(insert_.bind(4, static_cast<int64_t>(r.seq)));
  CG_CHECK(insert_.bind(5, r.wall_ns));
  CG_CHECK(number(6, r.pid));
  CG_CHECK(number(7, r.verb));
  CG_CHECK(bind_text(8, r.call, nullptr));
  int64_t object_id = 0;
  CG_CHECK(bind_text(9, object, &object_id));
  CG_CHECK(bind_text(10, r.rule, nullptr));
  CG_CHECK(bind_text(11, r.reason, nullptr));
  CG_CHECK(bind_text(12, r.token, nullptr));
  CG_CHECK(bind_text(13, r.origins, &label_id));
  CG_CHECK(bind_text(14, r.raised, &raised_id));
  CG_CHECK(bind_text(15, r.culprit, nullptr));
  CG_CHECK(bind_text(16, r.grade, nullptr));
  CG_CHECK(number(17, r.ino));
  CG_CHECK(number(18, r.error));
  CG_CHECK(number(19, r.count));
  CG_CHECK(of < 0 ? insert_.bind_null(20) : insert_.bind(20, of));
  const auto program = run.program.find(r.pid);
  CG_CHECK(r.pid == 0 || program == run.program.end()
               ? insert_.bind_null(21)
               : insert_.bind(21, static_cast<int64_t>(program->second)));
  CG_CHECK(run.state < 0 ? insert_.bind_null(22) : insert_.bind(22, run.state));
  if (label_id != 0) CG_CHECK(label(label_id, r.origins));
  if (raised_id != 0) CG_CHECK(label(raised_id, r.raised));
  const bool file = r.verb != 0 && r.verb != kConnect && r.kind == RecordKind::kCertificate;
  if (object_id != 0 && file) {
    const auto [at, first] = touched_.try_emplace(object_id, r.wall_ns);
    if (!first) at->second = std::min(at->second, r.wall_ns);
  }
  return ok();
}

Status Ingest::add(uint64_t pos, const Record& record) {
  CG_TRY(Run* const run, run_of(record, pos));
  int64_t of = -1;
  if (record.kind == RecordKind::kOutcome) {
    if (const auto found = run->open.find(record.ref); found != run->open.end()) {
      of = static_cast<int64_t>(found->second);
      run->open.erase(found);
    }
  }
  CG_CHECK(bind_row(pos, record, *run, of));
  CG_CHECK(insert_.run());
  run->last = pos;
  if (record.kind == RecordKind::kAuditRead)
    CG_CHECK(db_.exec("UPDATE run SET reading = 1 WHERE id = " + std::to_string(run->id)));
  const bool stop = record.kind == RecordKind::kStop || record.kind == RecordKind::kGap;
  if (record.kind == RecordKind::kCertificate) run->open[record.seq] = pos;
  if (record.kind == RecordKind::kStart || !record.raised.empty())
    run->state = static_cast<int64_t>(pos);
  if (of >= 0 && record.error == 0 && record.call.starts_with("exec"))
    run->program[record.pid] = static_cast<uint64_t>(of);
  CG_CHECK(end_run_.bind(1, run->id));
  CG_CHECK(end_run_.bind(2, static_cast<int64_t>(pos)));
  CG_CHECK(end_run_.bind(3, int64_t{stop}));
  if (stop) {
    CG_CHECK(end_run_.run());
    run->program.clear();
    run->open.clear();
  }
  return ok();
}

// Who read what whom wrote: the last write of the same file before it, by the clock.
Status Ingest::link_files() {
  CG_TRY(Statement name, db_.prepare("SELECT value FROM text WHERE id = ?1"));
  CG_TRY(Statement written,
         db_.prepare("SELECT 1 FROM record WHERE object = ?1 AND verb = 3 AND kind = 2 "
                     "LIMIT 1"));
  CG_TRY(Statement uses,
         db_.prepare("SELECT pos, run, verb, raised IS NOT NULL, wall FROM record WHERE "
                     "object = ?1 AND kind = 2 AND verb IN (1, 2, 3) ORDER BY wall, pos"));
  CG_TRY(Statement link,
         db_.prepare("UPDATE record SET source = ?2, source_run = ?3 WHERE pos = ?1"));
  struct Write {
    int64_t pos, run;
  };
  for (const auto& [object, since] : touched_) {
    written.reset();
    CG_CHECK(written.bind(1, object));
    CG_TRY(const bool any, written.step());
    if (!any) continue;
    name.reset();
    CG_CHECK(name.bind(1, object));
    CG_TRY(const bool named, name.step());
    const bool own = named && is_private(name.text(0));
    uses.reset();
    CG_CHECK(uses.bind(1, object));
    std::map<int64_t, Write> by_run;
    Write last{-1, -1};
    for (;;) {
      CG_TRY(const bool row, uses.step());
      if (!row) break;
      const int64_t pos = uses.number(0), run = uses.number(1);
      const bool write = uses.number(2) == kWrite, raised = uses.number(3) != 0;
      Write from{-1, -1};
      if (const auto mine = by_run.find(run); own && !raised) {
        if (mine != by_run.end()) from = mine->second;
      } else {
        from = last;
      }
      if (uses.number(4) >= since && from.pos >= 0 && (!write || raised)) {
        CG_CHECK(link.bind(1, pos));
        CG_CHECK(link.bind(2, from.pos));
        CG_CHECK(from.run == run ? link.bind_null(3) : link.bind(3, from.run));
        CG_CHECK(link.run());
      }
      if (write) by_run[run] = last = Write{pos, run};
    }
  }
  uses.reset();
  touched_.clear();
  return ok();
}

// Whose write it was that another run had to rise for: certified after that, on the same file.
Status Ingest::link_raises() {
  CG_TRY(Statement raises,
         db_.prepare("SELECT pos, run, ino, wall FROM record WHERE kind = 8 AND source IS "
                     "NULL AND ino IS NOT NULL"));
  CG_TRY(Statement writer,
         db_.prepare("SELECT pos, run FROM record WHERE ino = ?1 AND verb = 3 AND kind = 2 "
                     "AND run != ?2 AND wall >= ?3 ORDER BY wall, pos LIMIT 1"));
  CG_TRY(Statement link,
         db_.prepare("UPDATE record SET source = ?2, source_run = ?3 WHERE pos = ?1"));
  std::vector<std::array<int64_t, 4>> open;
  for (;;) {
    CG_TRY(const bool row, raises.step());
    if (!row) break;
    open.push_back({raises.number(0), raises.number(1), raises.number(2), raises.number(3)});
  }
  for (const auto& [pos, run, ino, wall] : open) {
    writer.reset();
    CG_CHECK(writer.bind(1, ino));
    CG_CHECK(writer.bind(2, run));
    CG_CHECK(writer.bind(3, wall));
    CG_TRY(const bool found, writer.step());
    if (!found) continue;
    CG_CHECK(link.bind(1, pos));
    CG_CHECK(link.bind(2, writer.number(0)));
    CG_CHECK(link.bind(3, writer.number(1)));
    CG_CHECK(link.run());
  }
  return ok();
}

Status Ingest::finish() {
  for (auto& [name, run] : runs_) {
    CG_CHECK(end_run_.bind(1, run.id));
    CG_CHECK(end_run_.bind(2, static_cast<int64_t>(run.last)));
    CG_CHECK(end_run_.bind(3, int64_t{0}));
    CG_CHECK(end_run_.run());
  }
  CG_CHECK(link_files());
  return link_raises();
}

}  // namespace certgate::agentd
