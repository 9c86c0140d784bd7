#include "supervisor/report.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

#include "kernel/cbor.h"
#include "kernel/mutant.h"
#include "supervisor/session.h"

namespace certgate::supervisor {
namespace {

struct Describe {
  kernel::Record& record;

  void operator()(const kernel::OpenEffect& e) const {
    const auto verb = e.write ? kernel::Verb::kWrite : kernel::Verb::kRead;
    record.verb = static_cast<uint8_t>(static_cast<uint8_t>(verb) + 1);
    record.ino = e.file.ino;
  }
  void operator()(const kernel::ExecEffect& e) const {
    record.verb = static_cast<uint8_t>(kernel::Verb::kExec) + 1;
    record.argv = e.argv;
    const bool whole = e.argv.size() <= kernel::kMaxRecordArgs &&
                       std::all_of(e.argv.begin(), e.argv.end(), [](const std::string& one) {
                         return one.size() <= kernel::kMaxRecordArgBytes;
                       });
    if (!whole) {
      const kernel::Digest all = kernel::strings_digest(e.argv);
      record.args.assign(all.begin(), all.end());
    }
    if (e.images.empty()) return;
    record.ino = e.images[0].file.ino;
    record.sha256.assign(e.images[0].sha256.begin(), e.images[0].sha256.end());
  }
  void operator()(const kernel::ConnectEffect&) const {
    record.verb = static_cast<uint8_t>(kernel::Verb::kConnect) + 1;
  }
};

struct ObjectText {
  std::string operator()(const kernel::OpenEffect& e) const { return e.path; }
  std::string operator()(const kernel::ExecEffect& e) const {
    return e.images.empty() ? std::string() : e.images[0].path;
  }
  std::string operator()(const kernel::ConnectEffect& e) const {
    if (e.transport == kernel::Transport::kUnix) return "unix:" + e.path;
    const bool v6 = e.host.find(':') != std::string::npos;
    return fmt::format("{}{}{}{}:{}", e.transport == kernel::Transport::kUdp ? "udp:" : "",
                       v6 ? "[" : "", e.host, v6 ? "]" : "", e.port);
  }
};

const char* verb_word(const kernel::Record& record) {
  if (record.verb == 0 || record.verb > kernel::kVerbs) return "";
  return kernel::verb_text(static_cast<kernel::Verb>(record.verb - 1));
}

uint32_t code_point(const uint8_t* at, size_t length) {
  static constexpr uint8_t kFirst[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  uint32_t value = at[0] & kFirst[length];
  for (size_t i = 1; i < length; ++i) value = value << 6 | (at[i] & 0x3Fu);
  return value;
}

// What would move the cursor, hide text or turn its direction: C0, C1, separators, format marks.
bool deceives(uint32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x00AD || c == 0x061C || c == 0x180E ||
         (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
         (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFB) ||
         (c >= 0xE0000 && c <= 0xE0FFF) || (c & 0xFFFE) == 0xFFFE;
}

void append_hex(uint8_t byte, std::string& out) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  out += "\\x";
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

std::mutex sink_mutex;
LineSink line_sink;

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : escape(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace

std::string hex(const kernel::Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : digest) (out += kDigits[byte >> 4]) += kDigits[byte & 15];
  return out;
}

std::string escape(std::string_view bytes) {
  if (mutant(Mutant::kEscape)) return std::string(bytes);
  std::string out;
  out.reserve(bytes.size());
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());  // NOLINT: octets
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = kernel::utf8_length(data + i, bytes.size() - i);
    if (length != 0 && data[i] != '\\' && !deceives(code_point(data + i, length))) {
      out.append(bytes, i, length);
    } else if (data[i] == '\n' || data[i] == '\t') {
      out += data[i] == '\n' ? "\\n" : "\\t";
    } else {
      for (size_t k = 0; k < std::max<size_t>(length, 1); ++k) append_hex(data[i + k], out);
    }
    i += std::max<size_t>(length, 1);
  }
  return out;
}

std::string object_text(const kernel::Effects& effect) { return std::visit(ObjectText{}, effect); }

kernel::Record describe(const CallInfo& info, const kernel::Call& call) {
  kernel::Record record;
  record.pid = static_cast<uint32_t>(info.pid);
  record.call = info.call;
  record.permit = info.permit;
  record.object = object_text(call.effect);
  if (info.asked != record.object) record.asked = info.asked;
  std::visit(Describe{record}, call.effect);
  return record;
}

void describe(const kernel::Refusal& refusal, kernel::Record& record) {
  record.reason = kernel::reason_text(refusal.reason);
  if (refusal.reason == kernel::Reason::kUntrustedOrigin ||
      refusal.reason == kernel::Reason::kHeldWritable ||
      refusal.reason == kernel::Reason::kClearanceMissing) {
    record.culprit = refusal.origin.text();
  }
  record.argument = refusal.argument;
  record.tool = refusal.tool;
  record.why = refusal.why;
}

std::string refusal_line(const kernel::Record& record) {
  const bool observed = record.grade == kernel::kObservedGrade;
  std::string line =
      fmt::format("certgate: {} {} {}: {}{}", observed ? "OBSERVED" : "refused", verb_word(record),
                  escape(record.object), observed ? "would be refused, " : "", record.reason);
  if (!record.culprit.empty()) line += fmt::format(" {}", escape(record.culprit));
  if (!record.rule.empty()) {
    line += fmt::format(" (rule {}: {})", escape(record.rule), escape(record.why));
  } else if (!record.why.empty()) {
    line += fmt::format(" ({})", escape(record.why));
  }
  // The commonest surprise: something was piped in, and nobody said whose words it carries.
  if (record.culprit == "unknown")
    line += "; if that is stdin, say what it carries with --stdin-origin";
  if (record.reason == kernel::reason_text(kernel::Reason::kClearanceMissing))
    line += fmt::format("; if that may leave by this rule, give it clearance = [\"{}\"]",
                        escape(record.culprit));
  return line + fmt::format("; see: certgate audit why {}", record.id());
}

std::string refusal_json(const kernel::Record& record) {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  tm utc{};
  ::gmtime_r(&t.tv_sec, &utc);
  const std::string time =
      fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", utc.tm_year + 1900, utc.tm_mon + 1,
                  utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, t.tv_nsec);
  return fmt::format(
      R"({{"id":{},"time":"{}","agent":{},"seq":{},"kind":"{}","verdict":"{}","call":{},"object":{},)"
      R"("rule":{},"reason":{},"origins":{},"errno":{}}})",
      json_string(record.id()), time, json_string(record.run), record.seq,
      record.grade == kernel::kObservedGrade ? "certificate" : "refusal",
      record.grade == kernel::kObservedGrade ? "observe" : "refuse", json_string(record.call),
      json_string(record.object), json_string(record.rule), json_string(record.reason),
      json_string(record.origins), record.error);
}

void set_line_sink(LineSink sink) {
  const std::lock_guard lock(sink_mutex);
  line_sink = std::move(sink);
}

void print_line(const std::string& line) {
  {
    const std::lock_guard lock(sink_mutex);
    if (line_sink && line_sink(line)) return;
  }
  const std::string text = line + "\n";
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // the operator closed stderr: the log has it
    at += static_cast<size_t>(n);
  }
}

}  // namespace certgate::supervisor
