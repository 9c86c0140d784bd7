#include "agentd/index/index.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "agentd/index/ingest.h"

namespace certgate::agentd {
namespace {

using kernel::Record;

constexpr char kFile[] = "/index.sqlite";
constexpr size_t kMaxCandidates = 8;
constexpr int kLater = -2;  // Error::code: look at the log again
constexpr int kMaxAttempts = 64;
constexpr uint64_t kPortion = 65536;  // records between two looks at memory

Result<std::string> meta(Database& db, const char* key) {
  CG_TRY(Statement find, db.prepare("SELECT value FROM meta WHERE key = ?1"));
  CG_CHECK(find.bind(1, key));
  CG_TRY(const bool there, find.step());
  return there ? find.text(0) : std::string();
}

Status set_meta(Database& db, const char* key, const std::string& value) {
  CG_TRY(Statement set, db.prepare("INSERT OR REPLACE INTO meta VALUES(?1, ?2)"));
  CG_CHECK(set.bind(1, key));
  CG_CHECK(set.bind(2, value));
  return set.run();
}

std::string digest_text(const kernel::Digest& digest) {
  return base64_encode(digest.data(), digest.size());
}

// Removes the index with what SQLite keeps beside it.
void remove_files(const std::string& path) {
  for (const char* more : {"", "-wal", "-shm", "-journal"}) ::unlink((path + more).c_str());
}

// "" when an index in the directory is ours to keep; else why not.
std::string why_not_ours(const std::string& state_dir) {
  struct stat st;
  if (::stat(state_dir.c_str(), &st) != 0) return "the directory cannot be looked at";
  if (st.st_uid != ::geteuid()) return "the state directory is another user's";
  if (::access(state_dir.c_str(), W_OK) != 0) return "the state directory cannot be written";
  return {};
}

}  // namespace

struct Index::Impl {
  Impl(LogReader reader, std::string dir) : log(std::move(reader)), state_dir(std::move(dir)) {}
  ~Impl() { release(); }
  void release() {
    if (pinned) ::sqlite3_exec(db->handle(), "ROLLBACK", nullptr, nullptr, nullptr);
    pinned = false;
  }
  Status open_database(bool anew);
  // Why what is there cannot be gone on with; "" when it can.
  Result<std::string> outdated();
  Status create();
  Status make_tables();
  // Empties the tables, unless somebody else has made them anew meanwhile.
  Status renew(const std::string& reason);
  Status update();
  // Holds on to this state of the index. kLater: others have added to it since the log was looked
  // at.
  Status pin();
  Status add_unsealed();

  LogReader log;
  std::string state_dir, note;
  std::string no_room;  // why it cannot be beside the log, when that was found out
  std::optional<Database> db;
  uint64_t have = 0;          // records in the index
  bool pinned = false;        // a transaction is open
  std::vector<Record> fresh;  // unsealed, by position
};

Status Index::Impl::create() {
  CG_CHECK(db->exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"));
  CG_CHECK(db->exec("BEGIN IMMEDIATE"));
  CG_TRY(Statement there, db->prepare("SELECT 1 FROM sqlite_master WHERE name = 'record'"));
  CG_TRY(const bool made, there.step());
  there = Statement();
  if (!made) CG_CHECK(make_tables());
  return db->exec("COMMIT");
}

Status Index::Impl::make_tables() {
  CG_CHECK(db->exec(kIndexTables));
  CG_CHECK(set_meta(*db, "schema", std::to_string(kIndexSchema)));
  CG_CHECK(set_meta(*db, "origin", log.checkpoint().origin));
  CG_CHECK(set_meta(*db, "size", "0"));
  return set_meta(*db, "root", digest_text(kernel::empty_root()));
}

Result<std::string> Index::Impl::outdated() {
  CG_TRY(const std::string schema, meta(*db, "schema"));
  if (schema != std::to_string(kIndexSchema)) return std::string("it was made by another version");
  CG_TRY(const std::string origin, meta(*db, "origin"));
  if (origin != log.checkpoint().origin) return std::string("it is of another log");
  CG_TRY(const std::string size, meta(*db, "size"));
  have = std::strtoull(size.c_str(), nullptr, 10);
  if (have > log.size()) {
    CG_TRY(const LogReader now, LogReader::open(state_dir));
    if (have <= now.size()) return fail("index: the log has grown meanwhile", kLater);
    return std::string("it has records that the log has not");
  }
  CG_TRY(const kernel::Digest root, log.root_at(have));
  CG_TRY(const std::string stored, meta(*db, "root"));
  if (stored != digest_text(root)) return std::string("it is of another history of this log");
  return std::string();
}

Status Index::Impl::open_database(bool anew) {
  const std::string path = state_dir + kFile;
  const std::string reason = no_room.empty() ? why_not_ours(state_dir) : no_room;
  if (!reason.empty()) {
    note = "the index is made in memory, as " + reason;
    CG_TRY(db, Database::open(path, Database::Mode::kMemory));
    CG_CHECK(create());
    return ok();
  }
  for (int attempt = 0;; ++attempt) {
    const mode_t old = ::umask(0077);
    Result<Database> opened = Database::open(path, Database::Mode::kReadWrite);
    ::umask(old);
    if (!opened) return opened.error();
    db.emplace(std::move(*opened));
    Status made = create();
    if (made) {
      Result<std::string> why = outdated();
      if (why && !why->empty()) note = "the index was made anew: " + *why;
      if (why && (anew || !why->empty())) {
        made = renew(anew ? "" : *why);
      } else if (!why) {
        made = why.error();
      }
    }
    if (made) return ok();
    const int code = made.error().code;
    const bool broken = code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_ERROR;
    if (!broken || attempt > 0) return made;
    note = "the index was made anew: " + made.error().what;
    db.reset();
    have = 0;
    remove_files(path);
  }
}

Status Index::Impl::renew(const std::string& reason) {
  CG_CHECK(db->exec("BEGIN IMMEDIATE"));
  CG_TRY(const std::string again, outdated());
  if (!reason.empty() && again.empty()) return db->exec("COMMIT");
  for (const char* table : {"record", "run", "label", "text", "kind", "verb"})
    CG_CHECK(db->exec(std::string("DROP TABLE IF EXISTS ") + table));
  CG_CHECK(db->exec("DROP TABLE meta; DROP VIEW IF EXISTS event;"));
  CG_CHECK(make_tables());
  have = 0;
  return db->exec("COMMIT");
}

Status Index::Impl::update() {
  if (have == log.size()) return ok();
  CG_CHECK(db->exec("BEGIN IMMEDIATE"));
  // Somebody else may have come first.
  CG_TRY(const std::string size, meta(*db, "size"));
  have = std::strtoull(size.c_str(), nullptr, 10);
  if (have >= log.size()) {
    return db->exec("COMMIT");
  }
  const bool bulk = have == 0 && log.size() > kPortion;
  if (!bulk) CG_CHECK(db->exec(kIndexIndices));
  {
    Ingest ingest(*db);
    CG_CHECK(ingest.prepare());
    const uint64_t kept = log.snapshot().first_bundle() * kTileWidth;  // before it all is pruned
    for (uint64_t pos = std::max(have, kept); pos < log.size(); ++pos) {
      Result<Record> record = log.record(pos);
      if (!record) return fail("record " + std::to_string(pos) + ": " + record.error().what);
      CG_CHECK(ingest.add(pos, *record));
    }
    if (bulk) CG_CHECK(db->exec(kIndexIndices));
    CG_CHECK(ingest.finish());
  }
  CG_CHECK(set_meta(*db, "size", std::to_string(log.size())));
  CG_CHECK(set_meta(*db, "root", digest_text(log.checkpoint().root)));
  have = log.size();
  return db->exec("COMMIT");
}

Status Index::Impl::pin() {
  CG_CHECK(db->exec("BEGIN"));
  pinned = true;
  CG_TRY(const std::string size, meta(*db, "size"));
  if (std::strtoull(size.c_str(), nullptr, 10) != log.size())
    return fail("index: others are adding to it", kLater);
  return add_unsealed();
}

Status Index::Impl::add_unsealed() {
  for (const LogSnapshot::Segment& segment : log.snapshot().segments()) {
    CG_TRY(Statement last,
           db->prepare("SELECT max(r.seq) FROM run JOIN record r ON r.run = run.id WHERE "
                       "run.name = ?1 AND r.pos < ?2"));
    CG_CHECK(last.bind(1, segment.run));
    CG_CHECK(last.bind(2, static_cast<int64_t>(log.size())));
    CG_TRY(const bool row, last.step());
    const uint64_t sealed = row ? static_cast<uint64_t>(last.number(0)) : 0;
    CG_CHECK(log.snapshot().each_unsealed(segment, sealed, [&](const LogEntry& entry) {
      fresh.push_back(entry.record);
      return ok();
    }));
  }
  if (fresh.empty()) return ok();
  Status begun = db->exec(kIndexIndices);  // becomes a writer, if nobody has written since
  if (begun) begun = db->exec("INSERT OR REPLACE INTO meta VALUES('unsealed', '1')");
  if (!begun && begun.error().code == SQLITE_BUSY) return fail(begun.error().what, kLater);
  if (!begun) return begun;
  Ingest ingest(*db);
  CG_CHECK(ingest.prepare());
  for (size_t i = 0; i < fresh.size(); ++i) CG_CHECK(ingest.add(log.size() + i, fresh[i]));
  return ingest.finish();
}

// A full disk, or one that cannot be written: the answers are the same without a file.
static bool cannot_write(int code) {
  const int primary = code & 0xff;
  return primary == SQLITE_FULL || primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN ||
         primary == SQLITE_READONLY;
}

Result<Index> Index::make(const std::string& state_dir, bool anew) {
  std::string note, no_room;
  for (int attempt = 0;; ++attempt) {
    CG_TRY(LogReader reader, LogReader::open(state_dir));
    auto impl = std::make_unique<Impl>(std::move(reader), state_dir);
    impl->no_room = no_room;
    Status done = impl->open_database(anew && attempt == 0);
    if (done) done = impl->update();
    if (done) done = impl->pin();
    if (!impl->note.empty()) note = impl->note;
    impl->note = note;
    if (done) return Index(std::move(impl));
    const int code = done.error().code;
    if (no_room.empty() && cannot_write(code)) {
      no_room = "it cannot be written beside the log: " + done.error().what;
      continue;
    }
    if (code != kLater || attempt == kMaxAttempts) return done.error();
  }
}

Result<Index> Index::open(const std::string& state_dir) { return make(state_dir, false); }
Result<Index> Index::rebuild(const std::string& state_dir) { return make(state_dir, true); }
void Index::release() { impl_->release(); }

Index::Index(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Index::Index(Index&&) noexcept = default;
Index& Index::operator=(Index&&) noexcept = default;
Index::~Index() = default;

Database& Index::db() { return *impl_->db; }
LogReader& Index::log() { return impl_->log; }
const std::string& Index::state_dir() const { return impl_->state_dir; }
const std::string& Index::note() const { return impl_->note; }
uint64_t Index::sealed() const { return impl_->log.size(); }
uint64_t Index::unsealed() const { return impl_->fresh.size(); }

Result<Record> Index::record(uint64_t pos) {
  if (pos < sealed()) return impl_->log.record(pos);
  if (pos - sealed() < impl_->fresh.size()) return impl_->fresh[pos - sealed()];
  return fail("no record has the position " + std::to_string(pos));
}

Result<std::string> Index::bytes(uint64_t pos) {
  if (pos < sealed()) return impl_->log.entry(pos);
  return fail("the record is not sealed yet: it has no proof; try again in a second");
}

namespace {

// "x" up to the first string that does not start with "x".
std::string after_prefix(std::string prefix) {
  prefix += "\x7f";  // ids are of [a-z0-9-]
  return prefix;
}

struct Candidate {
  std::string name;
  int64_t value = 0;
};

// The one of them that is meant.
Result<int64_t> the_one(Statement& find, const std::string& asked, const char* what) {
  std::vector<Candidate> found;
  for (;;) {
    CG_TRY(const bool row, find.step());
    if (!row) break;
    if (find.text(0) == asked) return find.number(1);
    if (found.size() <= kMaxCandidates) found.push_back({find.text(0), find.number(1)});
  }
  if (found.size() == 1) return found[0].value;
  if (found.empty())
    return fail(std::string("no ") + what + ' ' + asked + " (see: certgate audit list)");
  std::string several = asked + " is the start of several ids:";
  for (size_t i = 0; i < found.size() && i < kMaxCandidates; ++i) several += ' ' + found[i].name;
  return fail(several + (found.size() > kMaxCandidates ? " …" : ""));
}

}  // namespace

Result<int64_t> Index::find_run(const std::string& name) {
  if (name.empty()) return fail("no run was given");
  CG_TRY(Statement find, db().prepare("SELECT name, id FROM run WHERE name >= ?1 AND name < ?2 "
                                      "AND (NOT reading OR name = ?1) ORDER BY name LIMIT 16"));
  CG_CHECK(find.bind(1, name));
  CG_CHECK(find.bind(2, after_prefix(name)));
  return the_one(find, name, "run has the id");
}

Result<uint64_t> Index::find(const std::string& id) {
  if (id.empty()) return fail("no id was given");
  const size_t dash = id.find('-');
  CG_TRY(
      Statement find,
      db().prepare(
          "SELECT run.name || '-' || r.seq, r.pos FROM run JOIN record r ON r.run = run.id WHERE "
          "run.name >= ?1 AND run.name < ?2 AND NOT run.reading AND (?3 = '' OR (r.seq = ?3 + 0 OR "
          "(?3 || '') = substr(r.seq || '', 1, length(?3)))) ORDER BY run.name, r.seq LIMIT 16"));
  // With the dash the run's name is whole.
  const std::string run = id.substr(0, dash);
  const std::string seq = dash == std::string::npos ? "" : id.substr(dash + 1);
  if (dash != std::string::npos) {  // the usual case, by the index alone
    CG_TRY(Statement exact,
           db().prepare("SELECT r.pos FROM run JOIN record r ON r.run = run.id WHERE "
                        "run.name = ?1 AND r.seq = ?2"));
    CG_CHECK(exact.bind(1, run));
    CG_CHECK(exact.bind(2, static_cast<int64_t>(std::strtoll(seq.c_str(), nullptr, 10))));
    CG_TRY(const bool row, exact.step());
    if (row && run + '-' + std::to_string(std::strtoll(seq.c_str(), nullptr, 10)) == id)
      return static_cast<uint64_t>(exact.number(0));
  }
  CG_CHECK(find.bind(1, run));
  CG_CHECK(find.bind(2, dash == std::string::npos ? after_prefix(run) : run + " "));
  CG_CHECK(find.bind(3, seq));
  CG_TRY(const int64_t pos, the_one(find, id, "record has the id"));
  return static_cast<uint64_t>(pos);
}

Result<std::optional<uint64_t>> Index::outcome_of(uint64_t pos) {
  CG_TRY(Statement find, db().prepare("SELECT pos FROM record WHERE of = ?1 LIMIT 1"));
  CG_CHECK(find.bind(1, static_cast<int64_t>(pos)));
  CG_TRY(const bool row, find.step());
  if (!row) return std::optional<uint64_t>();
  return std::optional<uint64_t>(static_cast<uint64_t>(find.number(0)));
}

}  // namespace certgate::agentd
