// Path reads: what a path says besides content. readlink, reading extended attributes, watching.
//
// A link's text and an attribute's value are bytes that somebody chose, and a watch tells of names
// as they come: across sandboxes each is a read of the object, and of the directory too where its
// name is what was chosen. Judged and performed on the pinned object like an open for reading; the
// answer is written into the caller's memory. What lives on the sandbox's own file systems was put
// there under its own label: performed without a decision.
#pragma once

#include <string>

#include "supervisor/trap.h"

namespace certgate::supervisor {

class PathReads {
 public:
  explicit PathReads(Trap& trap) : trap_(trap) {}
  static bool handles(int nr);
  void handle(const sandbox::TrappedCall& call);  // on the notify thread

 private:
  struct Pinned;
  int pin(const sandbox::TrappedCall& call, Pinned& out) const;
  Result<kernel::Label> label_of(const Pinned& pinned) const;

  Trap& trap_;
};

}  // namespace certgate::supervisor
