// What an auditor is given: records of a run in frames, a recorded policy, an effect's detail.
#include "agentd/recheck.h"

#include "supervisor/recorded_policy.h"
#include "supervisor/frame.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;
using kernel::Record;

namespace {

void policy_comes_back(const std::string& body) {
  const auto policy = supervisor::read_recorded_policy(body);
  if (!policy) return;
  const auto again = supervisor::read_recorded_policy(supervisor::recorded_body(*policy));
  CG_LAW(again && again->digest() == policy->digest());
  for (size_t i = 0; i < policy->rules.size(); ++i)
    CG_LAW(again->rules[i].source == policy->rules[i].source);
}

// What is understood has one form, but for the environment, of which there is only the digest.
void effect_has_one_form(const Record& record) {
  const auto effect = agentd::recorded_effect(record);
  if (!effect) return;
  const kernel::ActionForm form = kernel::action_form(*effect);
  CG_LAW(std::holds_alternative<kernel::ExecEffect>(*effect)
             ? form.detail.size() == record.detail.size()
             : form.detail == record.detail);
  CG_LAW(form.ino == (form.kind == kernel::ActionForm::Kind::kConnect ? 0 : record.ino));
}

}  // namespace

FUZZ_TARGET(recheck) {
  fuzz::Bytes in(data, size);
  policy_comes_back(in.rest());
  agentd::RunCheck run(kernel::RawPublicKey{});
  supervisor::FrameReader frames(data, size);
  bool faulty = false;
  for (supervisor::Frame frame = frames.next(); frame.state == supervisor::Frame::kOk;
       frame = frames.next()) {
    const auto record = kernel::decode_record(frame.data, frame.size);
    if (!record) continue;
    policy_comes_back(record->body);
    effect_has_one_form(*record);
    const bool fault = run.take(*record).has_value();
    CG_LAW(fault || !faulty);  // once broken, it stays so
    // Nobody signs with this key: nothing can have been certified.
    CG_LAW(fault || record->kind != kernel::RecordKind::kCertificate);
    faulty = fault;
  }
  return 0;
}
