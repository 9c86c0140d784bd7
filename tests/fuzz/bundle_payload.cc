// Payloads of policy bundles: whatever the bytes, an error, or a policy that can be placed.
#include "agentd/policy_bundle.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

FUZZ_TARGET(bundle_payload) {
  const std::string bytes = fuzz::Bytes(data, size).rest();
  if (const auto read = agentd::read_bundle_payload(bytes)) {
    CG_LAW(kernel::validate(read->policy));
    for (const auto& [name, value] : read->env_set)
      CG_LAW(!name.empty() && name.find('=') == std::string::npos);
    const auto placed = agentd::place({*read, {}, {}}, {"/ws/a", "/home/agent"}, "bundle");
    if (placed) CG_LAW(placed->policy.rules.size() == read->policy.rules.size());
  } else {
    CG_LAW(!read.error().what.empty());
  }
  CG_LAW(!agentd::open_bundle(bytes, {}));
  return 0;
}
