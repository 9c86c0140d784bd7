// Lineage: where influence came from, and where it went. Over the index; each record that is shown
// is read from the log.
//
//   CG_TRY(Explanation why, explain(index, "k3u7x2qa-17"));      // backward, for one origin
//   CG_TRY(Impact impact, impact_of(index, "web:page.test", 20)); // forward, over all runs
//   CG_TRY(std::vector<Step> path, causal_path(index, "web:page.test", "k3u7x2qa-17"));
//
// Edges backward from a record: the start, certificate or raise that gave the run its label
// (`state`), the write whose bytes it read (`source`), the exec that made its process what it was
// (`program`). Forward: all that a run did after it was influenced, and every run that read what it
// wrote then. Influence is an upper bound: the sandbox carries the label, so what came after may
// have come from it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agentd/blob_store.h"
#include "agentd/index/index.h"

namespace certgate::agentd {

struct Step {
  uint64_t pos = 0;
  kernel::Record record;
  std::string how;  // what this one has to do with the one before it in the list
};

struct Explanation {
  kernel::Record record;
  std::optional<uint64_t> index;            // in the sealed log
  std::optional<kernel::Record> start;      // of its run
  std::optional<kernel::Record> outcome;    // of a certificate
  std::optional<kernel::Record> program;    // the exec that made its process what it was
  std::string origin;                       // the origin that is explained
  std::optional<kernel::Record> raised_by;  // what of this run first brought it in
  bool from_start = false;                  // the run began with it
  std::optional<kernel::Record> wrote;  // the write under it that brought it to this run or file
  std::vector<Step> chain;              // from the record back to where the origin entered
  std::vector<KeptOut> kept_out;        // of the record, whose values stand in their places in it
};

// `id`: an id, or a prefix that only one has. `origin`: "" takes the one that broke the call, or,
// of an allowed one, the last that came into its run.
Result<Explanation> explain(Index& index, const std::string& id, const std::string& origin = "");

// Fills raised_by, from_start and wrote from record, start, origin and chain.
void conclude(Explanation& why);

// What one run did under the influence.
struct Influenced {
  std::string run, command;
  uint64_t from = 0;            // the first record under it
  std::optional<uint64_t> via;  // the other run's write that brought it
  struct Group {
    uint64_t count = 0;
    std::vector<Step> shown;  // the first ones, one for each object
  };
  bool detailed = false;                // otherwise it is only named, and groups are empty
  std::map<std::string, Group> groups;  // "exec", "read", "write", "connect", "refused"
};
struct Impact {
  std::string what;  // "origin web:page.test", "file /ws/x", "record k3u7x2qa-17"
  std::vector<Influenced> runs;
};
// Every run is named, the first 2 × `shown` are told in detail, with as many deeds of each kind.
inline constexpr size_t kShownByDefault = 5;
Result<Impact> impact_of(Index& index, const std::string& subject, size_t shown);

// Shortest, from A (origin, file or id) to B (file or id); empty: there is none in the records.
Result<std::vector<Step>> causal_path(Index& index, const std::string& from, const std::string& to);

}  // namespace certgate::agentd
