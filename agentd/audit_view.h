// Audit view: records of the log in words and in JSON, for `certgate audit`.
//
//   CG_TRY(Index index, Index::open(state_dir));
//   CG_TRY(Explanation why, explain(index, "k3u7x2qa-17"));
//   print_explanation(why, Format::kText, std::cout);
//
// JSON: one object a line. Every string is first escaped as for a terminal (supervisor/report.h),
// so a path with odd bytes stays unambiguous, and then as JSON asks.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/record.h"
#include "kernel/result.h"

namespace certgate::agentd {

enum class Format : uint8_t { kText, kJson };

// A flat JSON object, keys in the order they were added.
class JsonObject {
 public:
  JsonObject& text(std::string_view key, const std::string& untrusted);
  JsonObject& number(std::string_view key, uint64_t value);
  JsonObject& list(std::string_view key, const std::vector<std::string>& untrusted);
  JsonObject& object(std::string_view key, const JsonObject& value);
  JsonObject& objects(std::string_view key, const std::vector<JsonObject>& values);
  JsonObject& boolean(std::string_view key, bool value);
  std::string str() const { return body_.empty() ? "{}" : '{' + body_ + '}'; }

 private:
  void key(std::string_view name);
  std::string body_;
};

std::string rfc3339(int64_t wall_ns);                  // "2026-11-23T10:31:50.000000001Z"
const char* verdict_of(const kernel::Record& record);  // "allow", "observe", "refuse", ""
// A call that the policy would have refused, and that an observing run let through.
bool is_observed(const kernel::Record& record);

// How a process ended, by its exit record.
struct ProcessEnd {
  bool known = false;   // the kernel told
  uint32_t status = 0;  // of exit
  uint32_t signal = 0;  // 0: it exited
};
ProcessEnd process_end(const kernel::Record& record);
std::string end_text(const ProcessEnd& end);  // "status 3", "signal 9", …

bool label_has(std::string_view label, std::string_view origin);  // "web:*" has "web:a.test"

// One record: as a JSON object, and as a line of text. `error`: errno of a certificate's outcome.
JsonObject record_json(const kernel::Record& record, uint32_t error);
std::string record_text(const kernel::Record& record, uint32_t error);
// In a chain: id, agent, time, call, object, labels.
JsonObject step_json(const kernel::Record& record);

struct Explanation;  // agentd/index/lineage.h
void print_explanation(const Explanation& why, Format format, std::ostream& out);

}  // namespace certgate::agentd
