// Label store: which origins may have influenced each file, for every run of one host user.
//
//   CG_TRY(LabelStore store, LabelStore::open("/home/u/.local/state/certgate-labels"));
//   CG_CHECK(store.join(file, label));     // stored label := stored ⊔ label, visible at once
//
// Two files, formats in supervisor/label_view.h and label_format.h:
//   labels.tab    fixed-size sparse hash table, mapped shared; readers take no lock
//   labels.names  one canonical label a line; line n is label id n
// One writer at a time, under flock of labels.tab, over all processes of the user. A line is
// written whole before its id can appear in the table; a partial last line (a writer was killed) is
// cut off by the next writer. Ids only ever change to labels that cover the old one: labels never
// decay.
//
// A file that gets a label may be one that another running agent reads, or has open: before join()
// returns, every such run has taken the label (supervisor/reader_table.h), and so, transitively,
// has what those agents hold open for writing, and who reads that. One that cannot take it, or does
// not answer, has the whole join taken back (EBUSY).
#pragma once

#include <string>
#include <vector>

#include "agentd/running.h"
#include "kernel/call.h"
#include "kernel/label.h"
#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {
struct LabelSlot;
}

namespace certgate::agentd {

class LabelStore {
 public:
  // Makes the directory (0700) and files when missing; refuses what is not the caller's own.
  static Result<LabelStore> open(const std::string& dir);
  LabelStore(LabelStore&& other) noexcept;
  LabelStore& operator=(LabelStore&&) = delete;
  ~LabelStore();

  // Code EBUSY: another running agent cannot take the label; nothing has changed.
  Status join(const kernel::FileIdentity& file, const kernel::Label& label);

  // Makes the table of what this run reads and keeps the run alive for others for as long as this
  // store, or a copy of the descriptor, is open. As the store's user.
  Result<sandbox::UniqueFd> begin_run(const std::string& id);
  void end_run();

  // Fresh read-only descriptors of the table and the names, for a supervisor.
  Result<sandbox::UniqueFd> table_for_reading() const;
  Result<sandbox::UniqueFd> names_for_reading() const;

 private:
  LabelStore() = default;
  Status open_files(const std::string& dir);
  Status load_names();
  Result<uint32_t> id_of(const kernel::Label& label);
  struct Change {
    supervisor::LabelSlot* slot;
    uint32_t before;
  };
  Status store(const kernel::FileIdentity& file, const kernel::Label& label,
               std::vector<Change>& changes);
  Status join_all(const kernel::FileIdentity& file, const kernel::Label& label,
                  std::vector<Change>& changes);

  sandbox::UniqueFd dir_, table_, names_;
  Running running_;
  void* map_ = nullptr;
  std::vector<kernel::Label> labels_;  // id - 1, as far as read
  size_t names_size_ = 0;              // bytes of whole lines read
};

}  // namespace certgate::agentd
