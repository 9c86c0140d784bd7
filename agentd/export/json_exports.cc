// JSONL, OCSF and OTLP: one event a record.
#include <ostream>

#include "agentd/audit_view.h"
#include "agentd/export/exporter.h"
#include "agentd/note.h"
#include "kernel/policy.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;
using kernel::Verb;

constexpr int64_t kMillisecond = 1'000'000;

const char* verb_of(const Record& r) {
  return r.verb == 0 ? "" : kernel::verb_text(static_cast<Verb>(r.verb - 1));
}

std::string leaf_text(const kernel::Digest& leaf) {
  return leaf == kernel::Digest{} ? std::string() : base64_encode(leaf.data(), leaf.size());
}

std::string command_line(const Record& r) {
  std::string line = r.object;
  for (size_t i = 1; i < r.argv.size(); ++i) line += ' ' + r.argv[i];
  return line;
}

std::string last_component(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash + 1 == path.size() ? path : path.substr(slash + 1);
}

class Jsonl : public Exporter {
 public:
  Jsonl(std::string log, std::ostream& out) : log_(std::move(log)), out_(out) {}
  void add(const ExportItem& item) override {
    const Record& r = item.record;
    JsonObject line = record_json(r, item.error);
    line.text("log", log_).number("index", item.pos).text("leaf", leaf_text(item.leaf));
    line.number("pid", r.pid).text("verb", verb_of(r)).text("asked", r.asked).list("argv", r.argv);
    line.text("culprit", r.culprit).text("argument", r.argument).text("why", r.why);
    line.text("digest", base64_encode(r.digest.data(), r.digest.size())).number("ino", r.ino);
    line.text("sha256", base64_encode(r.sha256.data(), r.sha256.size())).number("count", r.count);
    out_ << line.str() << '\n';
  }

 private:
  std::string log_;
  std::ostream& out_;
};

// OCSF's disposition_id. An observed call was let through and noted.
constexpr uint64_t kAllowed = 1, kBlocked = 2, kLogged = 17;

struct OcsfClass {
  uint64_t category = 0, uid = 0, activity = 0;
};

// Activities as OCSF numbers them for each class; 99 is "other".
OcsfClass ocsf_class(const Record& r) {
  if (r.kind == RecordKind::kStart) return {6, 6002, 3};
  if (r.kind == RecordKind::kStop || r.kind == RecordKind::kGap) return {6, 6002, 4};
  if (is_verb(r, Verb::kExec)) return {1, 1007, 1};
  if (r.kind == RecordKind::kExit) return {1, 1007, 2};
  if (is_verb(r, Verb::kConnect)) return {4, 4001, 1};
  if (is_verb(r, Verb::kRead)) return {1, 1001, 2};
  if (is_verb(r, Verb::kWrite)) return {1, 1001, 3};
  return {6, 6002, 99};
}

class Ocsf : public Exporter {
 public:
  Ocsf(std::string log, std::ostream& out) : log_(std::move(log)), out_(out) {}
  void add(const ExportItem& item) override {
    const Record& r = item.record;
    if (r.kind == RecordKind::kOutcome) return;  // it stands in the status of what it is of
    const OcsfClass c = ocsf_class(r);
    const bool refused = r.kind == RecordKind::kRefusal, observed = is_observed(r);
    JsonObject event;
    event.number("category_uid", c.category)
        .number("class_uid", c.uid)
        .number("activity_id", c.activity);
    event.number("type_uid", c.uid * 100 + c.activity);
    event.number("time", static_cast<uint64_t>(r.wall_ns / kMillisecond))
        .number("severity_id", refused || observed ? 3 : 1);
    event.number("status_id", refused || item.error != 0 ? 2 : 1)
        .number("action_id", refused ? 2 : 1);
    event.number("disposition_id", refused    ? kBlocked
                                   : observed ? kLogged
                                              : kAllowed)
        .text("status_code", std::to_string(item.error));
    event.text("message", refused || observed ? r.why : "").object("metadata", metadata(item));
    JsonObject process, actor, app;
    process.number("pid", r.pid);
    app.text("name", "agent").text("uid", r.run);
    event.object("actor", actor.object("process", process).text("app_uid", r.run));
    if (c.uid == 6002) event.object("app", app);
    add_object(r, event);
    JsonObject unmapped;
    unmapped.text("origins", r.origins).text("raised", r.raised).text("culprit", r.culprit);
    unmapped.text("rule", r.rule)
        .text("reason", r.reason)
        .text("token", r.token)
        .text("leaf", leaf_text(item.leaf));
    out_ << event.object("unmapped", unmapped).str() << '\n';
  }

 private:
  JsonObject metadata(const ExportItem& item) const {
    JsonObject product, meta;
    product.text("name", "certgate")
        .text("vendor_name", "certgate")
        .text("version", CERTGATE_VERSION);
    meta.text("version", "1.1.0").object("product", product).list("profiles", {"security_control"});
    return meta.text("uid", item.record.id()).text("log_name", log_).number("sequence", item.pos);
  }
  static void add_object(const Record& r, JsonObject& event) {
    JsonObject object;
    if (is_verb(r, Verb::kExec)) {
      JsonObject file;
      file.text("path", r.object).text("name", last_component(r.object)).number("type_id", 1);
      event.object(
          "process",
          object.number("pid", r.pid).text("cmd_line", command_line(r)).object("file", file));
    } else if (r.kind == RecordKind::kExit) {
      event.object("process", object.number("pid", r.pid));
      if (const ProcessEnd end = process_end(r); end.known)
        event.number("exit_code", end.signal != 0 ? 128 + end.signal : end.status);
    } else if (is_verb(r, Verb::kConnect)) {
      const Endpoint end = endpoint_of(r.object);
      event.object("dst_endpoint", object.text("hostname", end.host).number("port", end.port));
    } else if (r.verb != 0) {
      event.object("file", object.text("path", r.object)
                               .text("name", last_component(r.object))
                               .number("type_id", 1));
    }
  }
  std::string log_;
  std::ostream& out_;
};

class Otlp : public Exporter {
 public:
  Otlp(const std::string& log, std::ostream& out) : out_(out) {
    std::vector<JsonObject> resource = {attribute("service.name", "certgate"),
                                        attribute("service.version", CERTGATE_VERSION),
                                        attribute("certgate.log", log)};
    JsonObject of;
    out_ << R"({"resourceLogs":[{"resource":)" << of.objects("attributes", resource).str()
         << R"(,"scopeLogs":[{"scope":{"name":"certgate"},"logRecords":[)";
  }
  void add(const ExportItem& item) override {
    const Record& r = item.record;
    const bool warns = r.kind == RecordKind::kRefusal || is_observed(r);
    std::vector<JsonObject> attributes;
    auto text = [&](const char* key, const std::string& value) {
      if (!value.empty()) attributes.push_back(attribute(key, value));
    };
    text("certgate.id", r.id());
    text("certgate.kind", record_kind_text(r.kind));
    text("certgate.verdict", verdict_of(r));
    text("certgate.rule", r.rule);
    text("certgate.reason", r.reason);
    text("certgate.origins", r.origins);
    text("certgate.raised", r.raised);
    text("certgate.culprit", r.culprit);
    text("gen_ai.agent.id", r.run);
    if (r.pid != 0) attributes.push_back(number("process.pid", r.pid));
    if (item.error != 0) attributes.push_back(number("certgate.errno", item.error));
    if (is_verb(r, Verb::kExec)) {
      text("process.executable.path", r.object);
      text("process.command_line", command_line(r));
    } else if (is_verb(r, Verb::kConnect)) {
      text("server.address", endpoint_of(r.object).host);
      attributes.push_back(number("server.port", endpoint_of(r.object).port));
    } else if (r.verb != 0) {
      text("file.path", r.object);
    } else if (const ProcessEnd end = process_end(r); end.known) {
      attributes.push_back(
          number("process.exit.code", end.signal != 0 ? 128 + end.signal : end.status));
    }
    JsonObject log, body;
    log.text("timeUnixNano", std::to_string(r.wall_ns)).number("severityNumber", warns ? 13 : 9);
    log.text("severityText", warns ? "WARN" : "INFO");
    log.object("body", body.text("stringValue", record_text(r, item.error)))
        .objects("attributes", attributes);
    out_ << (first_ ? "\n" : ",\n") << log.str();
    first_ = false;
  }
  Status end() override {
    out_ << "\n]}]}]}\n";
    return ok();
  }

 private:
  static JsonObject attribute(const std::string& key, const std::string& value) {
    JsonObject of, inner;
    return of.text("key", key).object("value", inner.text("stringValue", value));
  }
  static JsonObject number(const std::string& key, uint64_t value) {
    JsonObject of, inner;  // 64-bit numbers are strings in OTLP's JSON
    return of.text("key", key).object("value", inner.text("intValue", std::to_string(value)));
  }
  std::ostream& out_;
  bool first_ = true;
};

}  // namespace

std::unique_ptr<Exporter> jsonl_exporter(const std::string& log, std::ostream& out) {
  return std::make_unique<Jsonl>(log, out);
}
std::unique_ptr<Exporter> ocsf_exporter(const std::string& log, std::ostream& out) {
  return std::make_unique<Ocsf>(log, out);
}
std::unique_ptr<Exporter> otlp_exporter(const std::string& log, std::ostream& out) {
  return std::make_unique<Otlp>(log, out);
}

}  // namespace certgate::agentd
