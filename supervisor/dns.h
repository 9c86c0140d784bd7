// DNS messages, as far as a stub resolver's server side needs them (RFC 1035 §4).
//
//   query:  header(12) qname qtype(2) qclass(2) [additional]      one question only
//   answer: the same header and question, then at most one A record
// Pure functions over bytes; the only parser here that reads what the agent wrote.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/result.h"

namespace certgate::supervisor::dns {

inline constexpr size_t kMaxQuery = 4096;
inline constexpr uint16_t kTypeA = 1, kTypeAaaa = 28, kClassIn = 1;

enum class Code : uint8_t {
  kOk = 0,
  kFormat = 1,
  kServerFailure = 2,
  kNoSuchName = 3,
  kNotImplemented = 4,
  kRefused = 5
};

struct Query {
  uint16_t id = 0;
  bool recursion = false;
  std::string name;  // lower case, no trailing dot, printable ASCII without spaces
  uint16_t type = 0, cls = 0;
  std::vector<uint8_t> question;  // the question's bytes, for the answer
};

Result<Query> parse_query(const uint8_t* data, size_t size);
std::vector<uint8_t> answer(const Query& query, Code code, const std::optional<uint32_t>& ipv4,
                            uint32_t ttl_s);

}  // namespace certgate::supervisor::dns
