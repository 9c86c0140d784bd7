// Tiles and bundles of the log: what is split is what was joined.
#include "agentd/log_edge.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

FUZZ_TARGET(bundle) {
  fuzz::Bytes in(data, size);
  const size_t count = in.number(2) % 300;
  const std::string bytes = in.rest();
  if (const auto entries = agentd::split_bundle(bytes, count)) {
    CG_LAW(entries->size() == count);
    std::string joined;
    for (const std::string_view entry : *entries) {
      joined += static_cast<char>(entry.size() >> 8);
      joined += static_cast<char>(entry.size());
      joined += entry;
    }
    CG_LAW(joined == bytes);
  }
  const auto tile = agentd::parse_tile(bytes, count);
  CG_LAW(!tile || tile->size() == count);
  if (tile) CG_LAW(bytes.size() == count * agentd::kHashBytes);
  return 0;
}
