// The canonical form of policies: what is loaded is valid, has exactly these bytes, and decides.
#include "kernel/decide.h"
#include "supervisor/policy_load.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

FUZZ_TARGET(policy_form) {
  const std::string bytes = fuzz::Bytes(data, size).rest();
  const std::vector<uint8_t> form(bytes.begin(), bytes.end());
  const auto loaded = supervisor::load_canonical(form.data(), form.size());
  if (!loaded) {
    CG_LAW(!loaded.error().what.empty());
    return 0;
  }
  CG_LAW(loaded->canonical() == form);
  CG_LAW(kernel::validate(*loaded));
  kernel::Token token;
  token.expires_ns = INT64_MAX;
  token.scopes = kernel::every_scope();
  const kernel::Decider decider(*loaded, token);
  kernel::State state;
  state.used.resize(loaded->rules.size());
  kernel::OpenEffect open;
  open.path = "/ws/a";
  open.write = true;
  const kernel::Verdict verdict = decider.decide(state, {open, {}}, {});
  if (const auto* allowed = std::get_if<kernel::Certificate>(&verdict)) {
    // The first layer has said so too.
    CG_LAW(!allowed->rules().empty() && loaded->rules[allowed->rules()[0].rule].layer == 0);
  }
  return 0;
}
