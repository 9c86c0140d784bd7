// DNS: what the resolver reads from the agent, and what it answers.
#include "supervisor/dns.h"

#include "tests/fuzz/fuzz.h"

using namespace certgate;
namespace dns = certgate::supervisor::dns;

namespace {

constexpr size_t kHeader = 12;
constexpr size_t kRecord = 16;        // one A record with a compressed name
constexpr size_t kPlainAnswer = 512;  // RFC 1035 §4.2.1: what every client can take by UDP

void answered(const dns::Query& query, dns::Code code, std::optional<uint32_t> ipv4,
              size_t query_size) {
  const std::vector<uint8_t> out = dns::answer(query, code, ipv4, 60);
  CG_LAW(out.size() <= query_size + kRecord && out.size() <= kPlainAnswer);
  CG_LAW(out.size() == kHeader + query.question.size() + (ipv4 ? kRecord : 0));
  CG_LAW(out[0] << 8 == (query.id & 0xff00) && out[1] == (query.id & 0xff));
  CG_LAW((out[2] & 0x80) != 0 && (out[3] & 0x0f) == static_cast<uint8_t>(code));
  CG_LAW(out[5] == 1 && out[7] == (ipv4 ? 1 : 0) && out[9] == 0 && out[11] == 0);
  CG_LAW(std::equal(query.question.begin(), query.question.end(), out.begin() + kHeader));
  CG_LAW(!dns::parse_query(out.data(), out.size()));  // an answer is no query: no loops
  if (!ipv4) return;
  const uint8_t* address = out.data() + out.size() - 4;
  CG_LAW((uint32_t{address[0]} << 24 | address[1] << 16 | address[2] << 8 | address[3]) == *ipv4);
}

}  // namespace

FUZZ_TARGET(dns) {
  const auto query = dns::parse_query(data, size);
  if (!query) return 0;
  CG_LAW(size <= dns::kMaxQuery && query->name.size() <= 253);
  for (const char c : query->name) CG_LAW(c > 0x20 && c < 0x7f && !(c >= 'A' && c <= 'Z'));
  CG_LAW(query->name.empty() || (query->name.front() != '.' && query->name.back() != '.'));
  CG_LAW(query->name.find("..") == std::string::npos);
  CG_LAW(query->question.size() == (query->name.empty() ? 5 : query->name.size() + 6));
  CG_LAW(kHeader + query->question.size() <= size);

  // The question alone, under the same header, asks the same.
  std::vector<uint8_t> bare(data, data + kHeader);
  bare[10] = bare[11] = 0;
  bare.insert(bare.end(), query->question.begin(), query->question.end());
  const auto again = dns::parse_query(bare.data(), bare.size());
  CG_LAW(again && again->name == query->name && again->type == query->type);
  CG_LAW(again->cls == query->cls && again->id == query->id);

  answered(*query, dns::Code::kOk, 0xc6120102u, size);
  answered(*query, dns::Code::kNoSuchName, std::nullopt, size);
  return 0;
}
