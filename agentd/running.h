// Running: the runs that share one label store, as one of them sees them.
//
//   CG_TRY(UniqueFd mine, running.begin(store_dir, "abcd2345"));    // for the supervisor
//   CG_CHECK(running.look(store_dir, runs_that_ever_began));
//   RaiseOfOthers others(running, label_id);
//   CG_TRY(auto held, others.ask_readers(file));   // for each file that gets the label
//   CG_CHECK(others.take());                       // else they go on as before
//
// Each run has one file in the store's directory, run-ID, with its ReaderTable; whoever holds the
// file's lock lives. What a killed run left is removed by whoever finds it. All of it under the
// store's write lock.
#pragma once

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"
#include "sandbox/fd.h"
#include "supervisor/reader_table.h"

namespace certgate::agentd {

class Running {
 public:
  // Makes this run's file. The descriptor keeps it alive, as the copy here does.
  Result<sandbox::UniqueFd> begin(int dir, const std::string& id);
  // Removes this run's file.
  void end(int dir);
  // Finds the others when some have begun since.
  Status look(int dir, uint64_t ever_began);

 private:
  friend class RaiseOfOthers;
  struct Other {
    std::string id;
    std::unique_ptr<supervisor::ReaderTable> table;
  };

  std::string own_;
  sandbox::UniqueFd own_file_;
  std::vector<Other> others_;
  uint64_t looked_at_ = UINT64_MAX;
};

// One transaction: every run that reads one of some files takes a label, or none does.
class RaiseOfOthers {
 public:
  RaiseOfOthers(Running& running, uint32_t label);
  ~RaiseOfOthers();  // they go on as before, unless take() was called
  RaiseOfOthers(const RaiseOfOthers&) = delete;
  RaiseOfOthers& operator=(const RaiseOfOthers&) = delete;

  // Asks every other run that may be reading `file` and was not asked yet; each that can judges
  // nothing until the end. Returns the files that those hold open for writing; EBUSY when one
  // cannot, or does not answer in time.
  Result<std::vector<kernel::FileIdentity>> ask_readers(const kernel::FileIdentity& file);
  // Returns when all have taken it; EBUSY when one has not in time, but may yet.
  Status take();

 private:
  std::chrono::milliseconds left() const;
  void decide(supervisor::ReaderTable::Decision decision);

  Running& running_;
  const uint32_t label_;
  const std::chrono::steady_clock::time_point deadline_;
  std::set<std::string> asked_;
  std::vector<supervisor::ReaderTable*> waiting_;  // for the decision
};

}  // namespace certgate::agentd
