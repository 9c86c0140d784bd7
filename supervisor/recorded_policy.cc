#include "supervisor/recorded_policy.h"

#include <algorithm>

#include "kernel/cbor.h"
#include "supervisor/policy_load.h"

namespace certgate::supervisor {
namespace {

using kernel::CborReader;
using kernel::Policy;
using kernel::Rule;

constexpr size_t kMaxText = 65536;  // a place

const uint8_t* octets(const std::string& text) {
  return reinterpret_cast<const uint8_t*>(text.data());  // NOLINT: octets
}

Status array_of(CborReader& in, size_t wanted) {
  CG_TRY(const size_t is, in.array(wanted));
  return is == wanted ? ok() : Status(fail("a list has another length"));
}

template <typename T>
Status places(CborReader& in, std::string& file, std::vector<T>& of) {
  for (T& one : of) {
    CG_TRY(std::string place, in.text(kMaxText));
    const size_t colon = place.rfind(':');
    if (colon == 0) place = file + place;
    if (colon != std::string::npos && colon != 0) file = place.substr(0, colon);
    one.source = std::move(place);
  }
  return ok();
}

void put_place(kernel::CborWriter& out, std::string& file, const std::string& place) {
  const size_t colon = place.rfind(':');
  const bool same = colon != std::string::npos && colon > 0 && place.compare(0, colon, file) == 0;
  if (colon != std::string::npos && colon > 0) file = place.substr(0, colon);
  out.text(same ? place.substr(colon) : place);
}

}  // namespace

Status keep_pins(const Policy& before, Policy& to) {
  for (kernel::Tool& tool : to.tools) {
    if (tool.pin != kernel::Tool::Pin::kAtStart) continue;
    const auto pinned =
        std::find_if(before.tools.begin(), before.tools.end(), [&](const kernel::Tool& one) {
          return one.pin == tool.pin && one.name == tool.name && one.program == tool.program;
        });
    if (pinned == before.tools.end())
      return fail("the tool '" + tool.name +
                  "' is pinned at the start of a run; start the agent again");
    tool.sha256 = pinned->sha256;
  }
  return ok();
}

std::string recorded_body(const Policy& policy) {
  const std::vector<uint8_t> canonical = policy.canonical();
  kernel::CborWriter out;
  out.array(2);
  out.bytes(canonical.data(), canonical.size());
  out.array(policy.rules.size() + policy.zones.size() + policy.tools.size());
  std::string file;
  for (const Rule& rule : policy.rules) put_place(out, file, rule.source);
  for (const kernel::Zone& zone : policy.zones) put_place(out, file, zone.source);
  for (const kernel::Tool& tool : policy.tools) put_place(out, file, tool.source);
  return {out.data().begin(), out.data().end()};
}

std::vector<kernel::Record> policy_records(const std::string& body) {
  std::vector<kernel::Record> out;
  for (size_t at = 0; at < body.size(); at += kernel::kMaxRecordBodyBytes) {
    kernel::Record part;
    part.kind = kernel::RecordKind::kPolicy;
    part.body = body.substr(at, kernel::kMaxRecordBodyBytes);
    part.count = body.size();
    out.push_back(std::move(part));
  }
  return out;
}

Result<Policy> read_recorded_policy(const std::string& body) {
  CborReader in(octets(body), body.size());
  CG_CHECK(array_of(in, 2));
  CG_TRY(const std::string canonical, in.bytes(kMaxRecordedPolicy));
  CG_TRY(Policy policy, load_canonical(octets(canonical), canonical.size()));
  CG_CHECK(array_of(in, policy.rules.size() + policy.zones.size() + policy.tools.size()));
  std::string file;
  CG_CHECK(places(in, file, policy.rules));
  CG_CHECK(places(in, file, policy.zones));
  CG_CHECK(places(in, file, policy.tools));
  if (!in.done()) return fail("bytes after the end of the recorded policy");
  return policy;
}

}  // namespace certgate::supervisor
