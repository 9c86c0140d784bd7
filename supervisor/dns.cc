#include "supervisor/dns.h"

namespace certgate::supervisor::dns {
namespace {

constexpr size_t kHeader = 12;
constexpr size_t kMaxName = 253;
constexpr size_t kMaxLabel = 63;

uint16_t read16(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }
void write16(std::vector<uint8_t>& out, uint16_t value) {
  out.push_back(static_cast<uint8_t>(value >> 8));
  out.push_back(static_cast<uint8_t>(value));
}

}  // namespace

Result<Query> parse_query(const uint8_t* data, size_t size) {
  if (size < kHeader + 5 || size > kMaxQuery) return fail("a DNS query of impossible size");
  const uint16_t flags = read16(data + 2);
  if (flags & 0x8000) return fail("a DNS answer where a query is due");
  if ((flags & 0x7800) != 0) return fail("a DNS opcode other than QUERY");
  if (read16(data + 4) != 1 || read16(data + 6) != 0 || read16(data + 8) != 0) {
    return fail("a DNS query without exactly one question");
  }
  Query out;
  out.id = read16(data);
  out.recursion = (flags & 0x0100) != 0;
  size_t at = kHeader;
  for (;;) {
    if (at >= size) return fail("a DNS name that does not end");
    const size_t length = data[at++];
    if (length == 0) break;
    if (length > kMaxLabel) return fail("a compressed or overlong DNS label in a question");
    if (at + length > size) return fail("a DNS label beyond the message");
    if (!out.name.empty()) out.name += '.';
    for (size_t i = 0; i < length; ++i) {
      const uint8_t c = data[at + i];
      if (c <= 0x20 || c >= 0x7f || c == '.')
        return fail("a DNS label with other than host name characters");
      out.name += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    at += length;
    if (out.name.size() > kMaxName) return fail("a DNS name longer than 253 characters");
  }
  if (at + 4 > size) return fail("a DNS question cut short");
  out.type = read16(data + at);
  out.cls = read16(data + at + 2);
  out.question.assign(data + kHeader, data + at + 4);
  return out;
}

std::vector<uint8_t> answer(const Query& query, Code code, const std::optional<uint32_t>& ipv4,
                            uint32_t ttl_s) {
  std::vector<uint8_t> out;
  write16(out, query.id);
  const uint16_t recursion = query.recursion ? 0x0180 : 0x0080;  // RD echoed, RA set
  write16(out, static_cast<uint16_t>(0x8000 | recursion | static_cast<uint8_t>(code)));
  write16(out, 1);
  write16(out, ipv4 ? 1 : 0);
  write16(out, 0);
  write16(out, 0);
  out.insert(out.end(), query.question.begin(), query.question.end());
  if (!ipv4) return out;
  write16(out, 0xc00c);  // the question's name
  write16(out, kTypeA);
  write16(out, kClassIn);
  write16(out, static_cast<uint16_t>(ttl_s >> 16));
  write16(out, static_cast<uint16_t>(ttl_s));
  write16(out, 4);
  write16(out, static_cast<uint16_t>(*ipv4 >> 16));
  write16(out, static_cast<uint16_t>(*ipv4));
  return out;
}

}  // namespace certgate::supervisor::dns
