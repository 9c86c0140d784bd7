// Audit view: records of the log in words and in JSON, for `certgate audit`.
//
//   CG_TRY(LogSnapshot log, LogSnapshot::open(state_dir));
//   CG_CHECK(list_records(log, Format::kJson, std::cout));
//   CG_TRY(Explanation why, explain(log, "k3u7x2qa-17"));
//   print_explanation(why, Format::kText, std::cout);
//
// JSON: one object a line. Every string is first escaped as for a terminal (supervisor/report.h),
// so a path with odd bytes stays unambiguous, and then as JSON asks.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agentd/blob_store.h"
#include "agentd/log_snapshot.h"
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
  std::string str() const { return body_.empty() ? "{}" : '{' + body_ + '}'; }

 private:
  void key(std::string_view name);
  std::string body_;
};

std::string rfc3339(int64_t wall_ns);                  // "2026-11-23T10:31:50.000000001Z"
const char* verdict_of(const kernel::Record& record);  // "allow", "observe", "refuse", ""
bool label_has(std::string_view label, std::string_view origin);  // "web:*" has "web:a.test"

Status list_records(const LogSnapshot& log, Format format, std::ostream& out);

struct Explanation {
  kernel::Record record;  // with what was kept out of it in its place
  std::vector<KeptOut> kept_out;
  std::optional<uint64_t> index;            // in the sealed log
  std::string command;                      // command line of the run
  std::optional<kernel::Record> outcome;    // of a certificate
  std::string origin;                       // the origin that is explained: refusals only
  std::optional<kernel::Record> raised_by;  // the certificate of this run that first brought it in
  bool from_start = false;                  // the run began with it
  std::optional<kernel::Record>
      wrote;  // the last certificate before that wrote this object under it
};

// `id`: an id, or a prefix that only one has.
Result<Explanation> explain(const LogSnapshot& log, const std::string& id);
void print_explanation(const Explanation& why, Format format, std::ostream& out);

}  // namespace certgate::agentd
