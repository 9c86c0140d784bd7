// Ingest: puts records into the tables of the index, in the order of the log.
//
//   Ingest ingest(db);
//   CG_CHECK(ingest.prepare());
//   CG_CHECK(ingest.add(pos, record));       // … each record once, ascending
//   CG_CHECK(ingest.finish());               // links that look back and forth in time
//
// Within a run, order is that of the log. Between runs it is that of the clock: segments are sealed
// one after another, so a write can stand behind the read that saw it. Deterministic: the same log
// gives the same rows, in whatever portions it arrives.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "agentd/index/sql.h"
#include "kernel/record.h"

namespace certgate::agentd {

inline constexpr int kIndexSchema = 2;
extern const char* const kIndexTables;   // CREATE TABLE …
extern const char* const kIndexIndices;  // CREATE INDEX …: after a bulk load, before questions

class Ingest {
 public:
  explicit Ingest(Database& db) : db_(db) {}
  Status prepare();
  Status add(uint64_t pos, const kernel::Record& record);
  Status finish();

 private:
  struct Run {
    int64_t id = 0;
    int64_t state = -1;  // position of what gave it its label; -1: nothing yet
    uint64_t last = 0;   // position of its last record in this portion
    std::unordered_map<uint64_t, uint64_t> open;  // seq → position of certificates without outcome
    std::unordered_map<uint32_t, uint64_t> program;  // pid → position of its last exec
  };
  Result<int64_t> text(const std::string& value);  // its id
  Result<Run*> run_of(const kernel::Record& record, uint64_t pos);
  Status load_run(Run& run);
  Status label(int64_t id, const std::string& value);
  Status bind_row(uint64_t pos, const kernel::Record& record, Run& run, int64_t of);
  Status bind_text(int at, const std::string& value, int64_t* id);
  Status link_files();
  Status link_raises();

  Database& db_;
  Statement insert_, find_text_, add_text_, add_label_, find_run_, add_run_, end_run_;
  std::unordered_map<std::string, int64_t> texts_;
  std::set<int64_t> labels_;  // whose origins are there
  std::map<std::string, Run> runs_;
  std::map<int64_t, int64_t> touched_;  // object → first time that it was used in this portion
  bool fresh_ = false;                  // the tables were empty: nothing has to be looked up
};

}  // namespace certgate::agentd
