#include "supervisor/raise_requests.h"

#include <unistd.h>

#include <chrono>

#include "supervisor/path_walk.h"

namespace certgate::supervisor {
namespace {

// Longer than any transaction of who asks (agentd/running.cc).
constexpr std::chrono::milliseconds kDecidedWithin{5000};

}  // namespace

void note_stdin(ReaderTable& readers) {
  ObjectFacts facts;
  if (object_facts(STDIN_FILENO, facts) == 0 && facts.kind == kernel::FileKind::kRegular)
    readers.note(facts.identity);
}

void serve_raise_requests(ReaderTable& readers, const LabelView& labels, Session& session) {
  for (uint32_t last = 0;;) {
    const ReaderTable::Request request = readers.wait(last);
    last = request.number;
    const auto label = labels.named(request.label);
    const ReaderTable::Answer answer =
        label ? session.prepare_raise(*label) : ReaderTable::Answer{};
    readers.answer(request, answer);
    if (answer.can) {
      const auto decision = readers.decision(request, kDecidedWithin);
      if (!decision) {
        session.take_raise_alone(*label, request);
      } else if (*decision == ReaderTable::Decision::kTake) {
        session.take_raise(*label, request);
      } else {
        session.leave_raise();
      }
    }
    readers.finish(request);
  }
}

}  // namespace certgate::supervisor
