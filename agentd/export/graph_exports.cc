// PROV-JSON and DOT: agents, processes, files and hosts as a graph. Each edge once, however often.
#include <map>
#include <ostream>
#include <set>

#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "agentd/export/exporter.h"
#include "kernel/policy.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;
using kernel::Verb;

constexpr size_t kMaxNodes = 200'000;

std::string process_of(const Record& r) { return r.run + "/" + std::to_string(r.pid); }

class Prov : public Exporter {
 public:
  Prov(std::string, std::ostream& out) : out_(out) {}
  void add(const ExportItem& item) override {
    const Record& r = item.record;
    if (full_ || r.run.empty()) return;
    if (r.kind == RecordKind::kStart) {
      JsonObject agent;
      section("agent", "cg:agent/" + r.run, agent.text("prov:label", r.object));
      return;
    }
    const std::string activity = "cg:process/" + process_of(r);
    if (r.kind == RecordKind::kExit) {
      if (const auto known = sections_["activity"].find(activity);
          known != sections_["activity"].end() && ended_.insert(activity).second)
        known->second.text("prov:endTime", rfc3339(r.wall_ns));
      return;
    }
    if (r.kind != RecordKind::kCertificate || item.error != 0 || r.verb == 0) return;
    const std::string entity =
        (is_verb(r, Verb::kConnect) ? "cg:host/" : "cg:file/") + name(r.object);
    section("agent", "cg:agent/" + r.run, JsonObject());
    JsonObject what;
    what.text("prov:startTime", rfc3339(r.wall_ns));
    section("activity", activity, what);
    JsonObject label;
    section("entity", entity, label.text("prov:label", r.object));
    JsonObject by;
    by.text("prov:activity", activity).text("prov:agent", "cg:agent/" + r.run);
    section("wasAssociatedWith", "_:a/" + process_of(r), by);
    const bool made = is_verb(r, Verb::kWrite);
    JsonObject edge;
    edge.text("prov:activity", activity).text("prov:entity", entity);
    edge.text("prov:time", rfc3339(r.wall_ns))
        .text("cg:record", r.id())
        .text("cg:origins", r.origins);
    section(made ? "wasGeneratedBy" : "used", "_:" + r.id(), edge);
    full_ = sections_["entity"].size() > kMaxNodes || sections_["used"].size() > kMaxNodes * 5;
  }
  Status end() override {
    if (full_) return fail("prov-json: too many records for one document; use a filter");
    out_ << R"({"prefix":{"cg":"urn:certgate:","prov":"http://www.w3.org/ns/prov#"})";
    for (const auto& [name, members] : sections_) {
      out_ << ",\n\"" << name << "\":{";
      bool first = true;
      for (const auto& [id, value] : members) {
        JsonObject one;
        const std::string pair = one.object(id, value).str();
        out_ << (first ? "\n" : ",\n") << pair.substr(1, pair.size() - 2);
        first = false;
      }
      out_ << "}";
    }
    out_ << "}\n";
    return ok();
  }

 private:
  // A qualified name takes few characters: all others become %XX.
  static std::string name(const std::string& text) {
    static constexpr char kHex[] = "0123456789ABCDEF";
    std::string out;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '/' || c == '.' || c == '-' || c == '_';
      if (plain) {
        out += c;
      } else {
        out += {'%', kHex[byte >> 4], kHex[byte & 15]};
      }
    }
    return out;
  }
  void section(const char* section, const std::string& id, const JsonObject& value) {
    sections_[section].try_emplace(id, value);
  }
  std::ostream& out_;
  std::map<std::string, std::map<std::string, JsonObject>> sections_;
  std::set<std::string> ended_;
  bool full_ = false;
};

class Dot : public Exporter {
 public:
  Dot(std::string, std::ostream& out) : out_(out) {
    out_ << "digraph certgate {\n  rankdir=LR;\n  node [fontname=\"sans\"];\n";
  }
  void add(const ExportItem& item) override {
    const Record& r = item.record;
    if (seen_.size() > kMaxNodes) return;
    if (r.kind == RecordKind::kStart)
      node("agent " + r.run, "agent " + r.run + "\n" + r.object, "shape=box,style=bold");
    const bool refused = r.kind == RecordKind::kRefusal;
    if ((r.kind != RecordKind::kCertificate && !refused) || r.verb == 0 ||
        (item.error != 0 && !refused))
      return;
    const std::string process = "pid " + process_of(r), object = object_of(r);
    node(process, "pid " + std::to_string(r.pid), "shape=ellipse");
    node(object, r.object, is_verb(r, Verb::kConnect) ? "shape=diamond" : "shape=note");
    edge("agent " + r.run, process, "", "style=dotted");
    const std::string more = refused            ? "color=red,fontcolor=red"
                             : is_observed(r)   ? "color=orange,fontcolor=orange"
                             : r.raised.empty() ? ""
                                                : "color=orange,penwidth=2";
    const std::string label = refused          ? "refused: " + r.reason
                              : is_observed(r) ? verb(r) + ", would be refused: " + r.reason
                                               : verb(r);
    if (is_verb(r, Verb::kRead) && !refused)
      edge(object, process, label, more);
    else
      edge(process, object, label, more);
    if (is_verb(r, Verb::kConnect) && !refused) edge(object, process, "bytes", more);
  }
  Status end() override {
    out_ << "}\n";
    return seen_.size() > kMaxNodes
               ? Status(fail("dot: too many nodes to be looked at; use a filter"))
               : ok();
  }

 private:
  static std::string verb(const Record& r) {
    return kernel::verb_text(static_cast<Verb>(r.verb - 1));
  }
  static std::string object_of(const Record& r) {
    return (is_verb(r, Verb::kConnect) ? "host " : "file ") + r.object;
  }
  static std::string quoted(const std::string& text) {
    std::string out = "\"";
    for (size_t at = 0; at <= text.size();) {  // lines of ours; whatever else is escaped
      const size_t end = std::min(text.find('\n', at), text.size());
      for (const char c : cli::escape(text.substr(at, end - at))) {
        if (c == '"' || c == '\\') out += '\\';
        out += c;
      }
      if (end < text.size()) out += "\\n";
      at = end + 1;
    }
    return out + '"';
  }
  void node(const std::string& id, const std::string& label, const char* more) {
    if (!seen_.insert("n" + id).second) return;
    out_ << "  " << quoted(id) << " [label=" << quoted(label) << "," << more << "];\n";
  }
  void edge(const std::string& from, const std::string& to, const std::string& label,
            const std::string& more) {
    if (!seen_.insert("e" + from + '\n' + to + '\n' + label).second) return;
    out_ << "  " << quoted(from) << " -> " << quoted(to) << " [label=" << quoted(label)
         << (more.empty() ? "" : "," + more) << "];\n";
  }
  std::ostream& out_;
  std::set<std::string> seen_;
};

}  // namespace

std::unique_ptr<Exporter> prov_exporter(const std::string& log, std::ostream& out) {
  return std::make_unique<Prov>(log, out);
}
std::unique_ptr<Exporter> dot_exporter(const std::string& log, std::ostream& out) {
  return std::make_unique<Dot>(log, out);
}

}  // namespace certgate::agentd
