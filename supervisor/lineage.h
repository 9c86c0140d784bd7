// Lineage: which record of a run brought each origin and tag of its label in.
//
//   Lineage lineage(initial);
//   record.lineage = lineage.of(judged, kThisRecord);   // what the call itself brings: its own
//   record lineage.rise(raised_to, seq);                       // once that record is written
//
// Values only; whoever owns the label owns this.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel/label.h"

namespace certgate::supervisor {

class Lineage {
 public:
  explicit Lineage(kernel::Label initial = {});
  // The seq for each part of `judged`, in its order; 0 = the start of the run, `self` = not there
  // before. Empty when all are from the start.
  std::vector<uint64_t> of(const kernel::Label& judged, uint64_t self) const;
  void rise(const kernel::Label& to, uint64_t seq);

 private:
  std::vector<uint64_t> all_of(const kernel::Label& judged, uint64_t self) const;
  kernel::Label label_;
  std::vector<uint64_t> from_;  // parallel to its origins
};

}  // namespace certgate::supervisor
