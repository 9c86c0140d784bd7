// Self-test of a start: the whole chain trap → decode → decide → record → refuse, proved alive.
//
//   CG_CHECK(prove_refusals({box, listener, walk, …}));   // the agent has not been released
//
// The calls of sandbox/self_test.h are answered by the handlers that serve the agent, judged by the
// kernel's own decide() with a policy that has no rules. Each judged one must leave one refusal in
// the log, marked kSelfTestGrade; `audit list` leaves these out, `audit why` and the log do not.
// The phase's session, handlers and threads are gone when this returns, and with them the phase.
#pragma once

#include "sandbox/launch.h"
#include "sandbox/notify.h"
#include "supervisor/channel.h"
#include "supervisor/content.h"
#include "supervisor/label_view.h"
#include "supervisor/reader_table.h"
#include "supervisor/recorder.h"
#include "supervisor/token_ledger.h"
#include "supervisor/trap.h"

namespace certgate::supervisor {

// `digests`: what is read here need not be read again for the agent. On error everything inside has
// been killed, and the log closed with a stop record that says why.
Status prove_refusals(const sandbox::Sandbox& box, const Trap& trap, TokenLedger& ledger,
                      LabelView labels, ReaderTable& readers, Recorder& recorder, Channel& channel,
                      ContentDigests& digests);

}  // namespace certgate::supervisor
