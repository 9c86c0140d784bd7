// The words of `certgate audit why`.
#include <algorithm>
#include <cstring>
#include <ostream>

#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "agentd/index/lineage.h"
#include "kernel/risk.h"

namespace certgate::agentd {
namespace {

using cli::escape;
using kernel::Record;
using kernel::RecordKind;

std::string errno_text(uint32_t error) {
  const char* name = ::strerrorname_np(static_cast<int>(error));
  return std::to_string(error) + (name == nullptr ? "" : std::string(" (") + name + ')');
}

// "web:page.test" in words.
std::string origin_text(const std::string& origin) {
  const size_t colon = origin.find(':');
  const std::string detail = colon == std::string::npos ? "" : origin.substr(colon + 1);
  if (origin.starts_with("web:")) return origin + " (bytes from the host " + detail + ')';
  if (origin.starts_with("file:")) return origin + " (files of the zone " + detail + ')';
  if (origin.starts_with("secret:"))
    return origin + " (a secrecy tag: bytes of a zone with secrecy " + detail + ')';
  if (origin.starts_with("agent:")) return origin + " (the agent " + detail + ')';
  return origin;
}

std::string argument_text(const std::string& argument) {
  if (argument == "agent") return "agent (the sandbox's own label: what it had taken in before)";
  if (argument.starts_with("argv[") || argument.starts_with("env["))
    return argument + " (the agent chose it under the label above)";
  if (argument == "file") return "file (the label of the object itself)";
  return argument;
}

std::string step_text(const Record& r) {
  std::string text = r.id() + " at " + rfc3339(r.wall_ns) + ": " +
                     (r.kind == RecordKind::kRaise ? r.why : r.call + ' ' + r.object);
  if (!r.rule.empty()) text += " (rule " + r.rule + ')';
  return text;
}

std::string hex_of(const std::vector<uint8_t>& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : bytes) (out += kDigits[byte >> 4]) += kDigits[byte & 15];
  return out;
}

class Lines {
 public:
  explicit Lines(std::ostream& out) : out_(out) {}
  void add(const char* name, const std::string& untrusted) {
    if (untrusted.empty()) return;
    out_ << "  " << name << std::string(std::strlen(name) < 12 ? 12 - std::strlen(name) : 1, ' ')
         << escape(untrusted) << '\n';
  }

 private:
  std::ostream& out_;
};

std::string verdict_text(const Record& r) {
  if (is_observed(r))
    return "allowed, and only because this run observes: the policy would have refused it";
  if (r.kind == RecordKind::kCertificate) return "allowed";
  if (r.kind == RecordKind::kRefusal) return "refused, the agent saw errno " + errno_text(r.error);
  return record_kind_text(r.kind);
}

// What a record of a chain did for the one before it.
std::string step_how(const Record& r) {
  if (r.kind == RecordKind::kStart) return "it began with it:";
  if (r.kind == RecordKind::kRaise)
    return "it rose, as another agent wrote what it may be reading:";
  if (r.raised.empty()) return "it wrote the file:";
  if (r.call == "connect") return "it connected there:";
  return r.call.starts_with("exec") ? "it executed what carries it:" : "it read what carries it:";
}

void print_chain(const Explanation& why, Lines& lines) {
  for (size_t i = why.chain.size(); i > 0; --i) {  // as it happened
    const Record& r = why.chain[i - 1].record;
    lines.add(i == why.chain.size() ? "chain" : "",
              "agent " + r.run + ": " + step_how(r) + ' ' + step_text(r));
  }
}

void print_origin(const Explanation& why, Lines& lines) {
  if (why.origin.empty()) return;
  lines.add("origin", origin_text(why.origin));
  lines.add("carried by", argument_text(why.record.argument));
  if (why.raised_by) {
    lines.add("came in by", step_text(*why.raised_by));
    lines.add("", "which raised the sandbox's label to " + why.raised_by->raised);
  } else if (why.from_start) {
    lines.add("came in by", "the start of the run: it began with this label");
  }
  if (why.wrote) {
    lines.add("written by",
              step_text(*why.wrote) + ", agent " + why.wrote->run + " under " + why.wrote->origins);
  }
}

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0, end = 0; at <= text.size(); at = end + 1) {
    end = std::min(text.find('\0', at), text.size());
    out.push_back(text.substr(at, end - at));
  }
  return out;
}

// What was kept out of the record, except what already stands in its place. A list is joined by
// NUL.
void print_kept_out(const Explanation& why, Lines& lines) {
  for (const KeptOut& kept : why.kept_out) {
    if (!kept.name.starts_with("env")) {
      lines.add("kept out", kept.name + (kept.value ? "" : ": erased"));
      continue;
    }
    for (const std::string& one : split_list(kept.value.value_or(kErasedText)))
      lines.add(kept.name.c_str(), one);
  }
}

void print_text(const Explanation& why, std::ostream& out) {
  const Record& r = why.record;
  out << escape(r.id()) << ": " << record_kind_text(r.kind) << '\n';
  Lines lines(out);
  lines.add("agent", r.run + (why.start ? ": " + why.start->object : ""));
  lines.add("time", rfc3339(r.wall_ns));
  if (r.started != 0) {
    lines.add("process", std::to_string(r.pid) + ", started at tick " + std::to_string(r.started) +
                             ", child of " + std::to_string(r.parent));
  }
  if (r.exec != 0 && !why.program)
    lines.add("image", "started by " + r.run + '-' + std::to_string(r.exec));
  if (why.program)
    lines.add("program",
              why.program->object + " (" + why.program->id() + "), pid " + std::to_string(r.pid));
  lines.add("attempt", r.call.empty() ? r.object : r.call + ' ' + r.object);
  lines.add(r.kind == RecordKind::kStart ? "workspace" : "asked as", r.asked);
  for (size_t i = 0; i < r.argv.size(); ++i)
    lines.add(("argv[" + std::to_string(i) + ']').c_str(), r.argv[i]);
  lines.add("tool", r.tool);
  lines.add("words of", r.sources);
  lines.add("permit", r.permit);
  if (!r.sha256.empty()) lines.add("sha256", hex_of(r.sha256));
  lines.add("intent", r.intent.empty() ? "" : r.intent + " (the agent's own words)");
  print_kept_out(why, lines);
  lines.add("verdict", verdict_text(r));
  lines.add("rule", r.rule + (r.why.empty() ? "" : (r.rule.empty() ? "" : ": ") + r.why));
  lines.add("reason", r.reason);
  lines.add("label", r.origins);
  if (r.risk != 0) lines.add("risk", kernel::risk_text(static_cast<kernel::Risk>(r.risk)));
  const bool asked = r.kind == RecordKind::kCertificate || r.kind == RecordKind::kRefusal;
  if (r.ref != 0 && (asked || r.kind == RecordKind::kApproval))
    lines.add("request", r.run + '-' + std::to_string(r.ref));
  if (r.kind == RecordKind::kApproval)
    lines.add("answer", r.grade + (r.argument.empty() ? "" : " by " + r.argument));
  print_origin(why, lines);
  print_chain(why, lines);
  lines.add("raised to", r.raised);
  if (why.outcome) {
    const Record& o = *why.outcome;
    lines.add("outcome", (o.error == 0 ? std::string("done") : "errno " + errno_text(o.error)) +
                             (o.grade.empty() ? "" : ", " + o.grade) + " (" + o.id() + ')');
  }
  lines.add("token", r.token);
  if (why.start) lines.add("policy", hex_of(why.start->digest));
  if (r.kind == RecordKind::kGap)
    lines.add("lost", std::to_string(r.count) + " bytes that could not be read");
  lines.add("log", why.index ? "record " + std::to_string(*why.index) + " of the sealed log"
                             : std::string("not sealed yet"));
}

void print_json(const Explanation& why, std::ostream& out) {
  const Record& r = why.record;
  uint32_t error = r.error;
  if (r.kind == RecordKind::kCertificate) error = why.outcome ? why.outcome->error : 0;
  JsonObject object;
  object.text("id", r.id())
      .text("time", rfc3339(r.wall_ns))
      .text("agent", r.run)
      .number("seq", r.seq);
  object.text("kind", record_kind_text(r.kind)).text("verdict", verdict_of(r)).text("call", r.call);
  object.text("object", r.object)
      .text("rule", r.rule)
      .text("reason", r.reason)
      .text("token", r.token);
  object.text("origins", r.origins)
      .number("errno", error)
      .text("command", why.start ? why.start->object : "");
  object.text("asked", r.asked).list("argv", r.argv).text("why", r.why).text("origin", why.origin);
  object.text("argument", r.argument).text("raised", r.raised);
  object.text("tool", r.tool).text("sources", r.sources).text("permit", r.permit);
  object.text("intent", r.intent).text("sha256", hex_of(r.sha256));
  if (why.raised_by) object.object("came_in_by", step_json(*why.raised_by));
  if (why.wrote) object.object("written_by", step_json(*why.wrote));
  if (why.program) object.object("program", step_json(*why.program));
  if (!why.chain.empty()) {
    std::vector<JsonObject> chain;
    for (size_t i = why.chain.size(); i > 0; --i)
      chain.push_back(step_json(why.chain[i - 1].record));
    object.objects("chain", chain);
  }
  if (why.start) object.text("policy", hex_of(why.start->digest));
  std::vector<std::string> kept_out, erased;
  for (const KeptOut& kept : why.kept_out) (kept.value ? kept_out : erased).push_back(kept.name);
  object.list("kept_out", kept_out).list("erased", erased);
  for (const KeptOut& kept : why.kept_out) {
    if (kept.name == "env" && kept.value) object.list("env", split_list(*kept.value));
  }
  if (why.index) object.number("index", *why.index);
  out << object.str() << '\n';
}

}  // namespace

void print_explanation(const Explanation& why, Format format, std::ostream& out) {
  if (format == Format::kJson) return print_json(why, out);
  print_text(why, out);
}

}  // namespace certgate::agentd
