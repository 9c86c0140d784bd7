// Raise requests: another run is about to change what this agent may be reading
// (reader_table.h); its label rises first, or the other's call is refused.
//
//   serve_raise_requests(readers, labels, session);   // never returns; a thread of its own
//
// State: waiting → prepared (nothing is judged) → taken or left → waiting. Who asked and then says
// nothing for kDecidedWithin is dead or stopped: the label rises as by a call of our own, and where
// it cannot, the agent is ended.
#pragma once

#include "supervisor/label_view.h"
#include "supervisor/reader_table.h"
#include "supervisor/session.h"

namespace certgate::supervisor {

// What the agent has open from its start: stdin, when that is a file.
void note_stdin(ReaderTable& readers);

[[noreturn]] void serve_raise_requests(ReaderTable& readers, const LabelView& labels,
                                       Session& session);

}  // namespace certgate::supervisor
