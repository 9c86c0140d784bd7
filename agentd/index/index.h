// Index: the log in SQLite, so that questions need not read all of it. A cache: it can always be
// made again from the log (`certgate audit reindex`), and what is shown as evidence is read again
// from there.
//
//   CG_TRY(Index index, Index::open(state_dir));       // brought up to the log's last checkpoint
//   CG_TRY(Statement find, index.db().prepare("SELECT pos FROM record WHERE run = ?1"));
//   CG_TRY(kernel::Record record, index.record(pos));  // from the log, its leaf hash checked
//
// <state>/index.sqlite, 0600, made by the owner of the state directory; anybody else works on one
// in memory. Records that are only in segments are numbered behind the sealed ones and are in the
// index for as long as this object lives or until release(): its transaction is rolled back then.
//
// Tables (schema of `certgate audit sql`; text is escaped as on a terminal):
//   text(id, value)                 each string once
//   label(text, origin)             the origins of each label
//   run(id, name, command, first, last, stop, reading)  positions of its records; reading: it is
//                                   somebody who read this log
//   record(pos, kind, run, seq, wall, pid, verb, call, object, rule, reason, token, label, raised,
//          culprit, grade, ino, error, count, of, program, state, source, source_run)
//     of      outcome: the certificate it reports on
//     program the exec that made the process what it was
//     state   the start, certificate or raise that gave the run the label it had
//     source  the write whose bytes this one read; source_run when it was another run's
//   event    a view with the strings in place, for people
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agentd/index/sql.h"
#include "agentd/log_reader.h"

namespace certgate::agentd {

class Index {
 public:
  static Result<Index> open(const std::string& state_dir);
  // Throws the file away and makes it from the log.
  static Result<Index> rebuild(const std::string& state_dir);
  Index(Index&&) noexcept;
  Index& operator=(Index&&) noexcept;
  ~Index();

  // No more questions: others may add to the index while what was found is looked at.
  void release();

  Database& db();
  LogReader& log();
  const std::string& state_dir() const;
  uint64_t sealed() const;    // records in the log
  uint64_t unsealed() const;  // further ones, of segments
  // Not empty: it is in memory, or was made anew, and why. For stderr.
  const std::string& note() const;

  // The record itself: from the log, proven, or from its segment.
  Result<kernel::Record> record(uint64_t pos);
  // The bytes of a record, as the leaf is made of.
  Result<std::string> bytes(uint64_t pos);
  bool is_sealed(uint64_t pos) const { return pos < sealed(); }
  // The one record with this id, or with an id that starts so.
  Result<uint64_t> find(const std::string& id);
  // The one run whose name is or starts with this; its number in the index.
  Result<int64_t> find_run(const std::string& name);
  // The outcome of a certificate, if there is one.
  Result<std::optional<uint64_t>> outcome_of(uint64_t pos);

 private:
  struct Impl;
  explicit Index(std::unique_ptr<Impl> impl);
  static Result<Index> make(const std::string& state_dir, bool anew);
  std::unique_ptr<Impl> impl_;
};

}  // namespace certgate::agentd
