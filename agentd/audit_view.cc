#include "agentd/audit_view.h"

#include <time.h>

#include <cstdio>
#include <ostream>

#include "agentd/cli/verbs.h"
#include "kernel/risk.h"

namespace certgate::agentd {
namespace {

using cli::escape;
using kernel::Record;
using kernel::RecordKind;

std::string quoted(const std::string& untrusted) {
  std::string out = "\"";
  for (const char c : escape(untrusted)) {  // after escape() only these two are left to JSON
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

// Records about the keeping of the log, not about a call.
bool tells_of_the_log(RecordKind kind) {
  return kind == RecordKind::kHalt || kind == RecordKind::kThrottle ||
         kind == RecordKind::kErased || kind == RecordKind::kPruned;
}

}  // namespace

void JsonObject::key(std::string_view name) {
  if (!body_.empty()) body_ += ',';
  body_ += '"';
  body_ += name;
  body_ += "\":";
}

JsonObject& JsonObject::text(std::string_view name, const std::string& untrusted) {
  key(name);
  body_ += quoted(untrusted);
  return *this;
}

JsonObject& JsonObject::number(std::string_view name, uint64_t value) {
  key(name);
  body_ += std::to_string(value);
  return *this;
}

JsonObject& JsonObject::list(std::string_view name, const std::vector<std::string>& untrusted) {
  key(name);
  body_ += '[';
  for (size_t i = 0; i < untrusted.size(); ++i) {
    if (i > 0) body_ += ',';
    body_ += quoted(untrusted[i]);
  }
  body_ += ']';
  return *this;
}

JsonObject& JsonObject::object(std::string_view name, const JsonObject& value) {
  key(name);
  body_ += value.str();
  return *this;
}

JsonObject& JsonObject::objects(std::string_view name, const std::vector<JsonObject>& values) {
  key(name);
  body_ += '[';
  for (size_t i = 0; i < values.size(); ++i) body_ += (i > 0 ? "," : "") + values[i].str();
  body_ += ']';
  return *this;
}

JsonObject& JsonObject::boolean(std::string_view name, bool value) {
  key(name);
  body_ += value ? "true" : "false";
  return *this;
}

std::string rfc3339(int64_t wall_ns) {
  constexpr int64_t kSecond = 1000000000;
  int64_t fraction = wall_ns % kSecond;
  if (fraction < 0) fraction += kSecond;
  const auto seconds = static_cast<time_t>((wall_ns - fraction) / kSecond);
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[80];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%09dZ", utc.tm_year + 1900,
                utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                static_cast<int>(fraction));
  return text;
}

bool is_observed(const Record& r) {
  return r.kind == RecordKind::kCertificate && r.grade == kernel::kObservedGrade;
}

const char* verdict_of(const Record& r) {
  if (r.kind == RecordKind::kCertificate) return is_observed(r) ? "observe" : "allow";
  return r.kind == RecordKind::kRefusal ? "refuse" : "";
}

ProcessEnd process_end(const Record& r) {
  ProcessEnd end;
  if (r.kind != RecordKind::kExit || r.count == 0) return end;
  const auto status = static_cast<uint32_t>(r.count - 1);  // as wait(2) gives it
  end.known = true;
  end.signal = status & 0x7f;
  if (end.signal == 0) end.status = status >> 8 & 0xff;
  return end;
}

std::string end_text(const ProcessEnd& end) {
  if (!end.known) return "status unknown to this kernel";
  return end.signal != 0 ? "signal " + std::to_string(end.signal)
                         : "status " + std::to_string(end.status);
}

bool label_has(std::string_view label, std::string_view origin) {
  if (origin.empty()) return false;
  const std::string_view whole_class = origin.substr(0, origin.find(':') + 1);  // "web:", or ""
  while (!label.empty()) {
    const size_t comma = label.find(',');
    const std::string_view one = label.substr(0, comma);
    if (one == origin) return true;
    if (!whole_class.empty() && one.size() == whole_class.size() + 1 && one.back() == '*' &&
        one.starts_with(whole_class)) {
      return true;
    }
    label.remove_prefix(comma == std::string_view::npos ? label.size() : comma + 1);
  }
  return false;
}

JsonObject record_json(const Record& r, uint32_t error) {
  JsonObject line;
  line.text("id", r.id())
      .text("time", rfc3339(r.wall_ns))
      .text("agent", r.run)
      .number("seq", r.seq);
  line.text("kind", record_kind_text(r.kind)).text("verdict", verdict_of(r)).text("call", r.call);
  line.text("object", r.object)
      .text("rule", r.rule)
      .text("reason", r.reason)
      .text("token", r.token);
  line.text("origins", r.origins).text("raised", r.raised).number("errno", error);
  const std::string about = r.run + '-' + std::to_string(r.ref);
  if (r.kind == RecordKind::kOutcome) line.text("of", about);
  if (r.kind == RecordKind::kApproval && r.ref != 0) line.text("of", about).text("by", r.argument);
  if (verdict_of(r)[0] != '\0' && r.ref != 0) line.text("approval", about);
  if (r.risk != 0) line.text("risk", kernel::risk_text(static_cast<kernel::Risk>(r.risk)));
  if (!r.grade.empty()) line.text("grade", r.grade);
  if (!r.tool.empty()) line.text("tool", r.tool);
  if (!r.sources.empty()) line.text("sources", r.sources);
  if (!r.permit.empty()) line.text("permit", r.permit);
  if (!r.intent.empty()) line.text("intent", r.intent);
  if (r.pid != 0) line.number("pid", r.pid);
  if (r.started != 0) line.number("started", r.started);
  if (r.started != 0 && r.kind != RecordKind::kExit) line.number("parent", r.parent);
  if (r.exec != 0) line.text("exec", r.run + '-' + std::to_string(r.exec));
  if (const ProcessEnd end = process_end(r); end.known)
    line.number(end.signal != 0 ? "signal" : "exit_status",
                end.signal != 0 ? end.signal : end.status);
  if (tells_of_the_log(r.kind)) {
    if (r.ref != 0) line.text("of", about);
    line.text("why", r.why).number("count", r.count).text("argument", r.argument);
    if (r.since != 0) line.number("since_boot_ns", static_cast<uint64_t>(r.since));
  }
  return line;
}

std::string record_text(const Record& r, uint32_t error) {
  const std::string verdict = verdict_of(r);
  std::string line = rfc3339(r.wall_ns) + "  " + r.id() + "  " +
                     (verdict.empty() ? std::string(record_kind_text(r.kind)) : verdict);
  // Loud: nobody takes an observed run for a guarded one.
  if (r.grade == kernel::kObservedGrade)
    line += r.kind == RecordKind::kStart ? "  OBSERVING" : "  WOULD BE REFUSED";
  auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) line += std::string("  ") + name + escape(value);
  };
  add("", r.call);
  add("", r.object);
  add("rule=", r.rule);
  add("tool=", r.tool);
  add("reason=", r.reason);
  add("origins=", r.origins);
  if (r.kind == RecordKind::kRaise) add("raised=", r.raised);
  if (error != 0) line += "  errno=" + std::to_string(error);
  if (r.kind == RecordKind::kApproval) add("", r.grade);
  if (r.risk != 0) add("risk=", kernel::risk_text(static_cast<kernel::Risk>(r.risk)));
  const std::string about = r.run + '-' + std::to_string(r.ref);
  if (r.kind == RecordKind::kOutcome || (r.kind == RecordKind::kApproval && r.ref != 0))
    line += "  of=" + about;
  if (verdict[0] != '\0' && r.ref != 0) line += "  approval=" + about;
  if (tells_of_the_log(r.kind)) add("", r.why);
  if (r.kind == RecordKind::kExit)
    line += "  pid " + std::to_string(r.pid) + "  " + end_text(process_end(r)) + "  exec=" + r.run +
            '-' + std::to_string(r.exec);
  return line;
}

JsonObject step_json(const Record& r) {
  JsonObject step;
  step.text("id", r.id())
      .text("time", rfc3339(r.wall_ns))
      .text("agent", r.run)
      .text("call", r.call);
  step.text("object", r.object)
      .text("rule", r.rule)
      .text("origins", r.origins)
      .text("raised", r.raised)
      .text("why", r.why);
  return step;
}

}  // namespace certgate::agentd
