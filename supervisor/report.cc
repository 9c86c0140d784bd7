#include "supervisor/report.h"

#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

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
  static constexpr const char* kWords[] = {"", "exec", "read", "write", "connect"};
  return record.verb < std::size(kWords) ? kWords[record.verb] : "";
}

// Length of the valid, printable UTF-8 sequence at `at`, or 0.
size_t printable(std::string_view s, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char c = byte(at);
  if (c >= 0x20 && c < 0x7f) return c == '\\' ? 0 : 1;
  const size_t size = c >= 0xc2 && c <= 0xdf   ? 2
                      : c >= 0xe0 && c <= 0xef ? 3
                      : c >= 0xf0 && c <= 0xf4 ? 4
                                               : 0;
  if (size == 0 || at + size > s.size()) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
  }
  if (c == 0xc2 && byte(at + 1) < 0xa0) return 0;   // C1 controls
  if (c == 0xe0 && byte(at + 1) < 0xa0) return 0;   // overlong
  if (c == 0xed && byte(at + 1) >= 0xa0) return 0;  // surrogates
  if (c == 0xf0 && byte(at + 1) < 0x90) return 0;
  if (c == 0xf4 && byte(at + 1) >= 0x90) return 0;
  // Marks that reorder or hide text on a terminal: U+200B..U+200F, U+2028..U+202E, U+2066..U+2069.
  if (c == 0xe2 && byte(at + 1) == 0x80) {
    const unsigned char last = byte(at + 2);
    if ((last >= 0x8b && last <= 0x8f) || (last >= 0xa8 && last <= 0xae)) return 0;
  }
  if (c == 0xe2 && byte(at + 1) == 0x81 && byte(at + 2) >= 0xa6 && byte(at + 2) <= 0xa9) return 0;
  return size;
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : escape(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace

std::string escape(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (size_t i = 0; i < bytes.size();) {
    if (const size_t n = printable(bytes, i)) {
      out.append(bytes, i, n);
      i += n;
      continue;
    }
    const auto c = static_cast<unsigned char>(bytes[i++]);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\\') {
      out += "\\\\";
    } else {
      out += fmt::format("\\x{:02x}", c);
    }
  }
  return out;
}

std::string object_text(const kernel::Effects& effect) { return std::visit(ObjectText{}, effect); }

kernel::Record describe(const CallInfo& info, const kernel::Call& call) {
  kernel::Record record;
  record.pid = static_cast<uint32_t>(info.pid);
  record.call = info.call;
  record.object = object_text(call.effect);
  if (info.asked != record.object) record.asked = info.asked;
  std::visit(Describe{record}, call.effect);
  return record;
}

std::string refusal_line(const kernel::Record& record) {
  std::string line = fmt::format("certgate: refused {} {}: {}", verb_word(record),
                                 escape(record.object), record.reason);
  if (!record.culprit.empty()) line += fmt::format(" {}", escape(record.culprit));
  if (!record.rule.empty()) {
    line += fmt::format(" (rule {}: {})", record.rule, escape(record.why));
  } else if (!record.why.empty()) {
    line += fmt::format(" ({})", escape(record.why));
  }
  // The commonest surprise: something was piped in, and nobody said whose words it carries.
  if (record.culprit == "unknown")
    line += "; if that is stdin, say what it carries with --stdin-origin";
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
      R"({{"id":{},"time":"{}","agent":{},"seq":{},"kind":"refusal","verdict":"refuse","call":{},"object":{},)"
      R"("rule":{},"reason":{},"origins":{},"errno":{}}})",
      json_string(record.id()), time, json_string(record.run), record.seq, json_string(record.call),
      json_string(record.object), json_string(record.rule), json_string(record.reason),
      json_string(record.origins), record.error);
}

void print_line(const std::string& line) {
  const std::string text = line + "\n";
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = ::write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // the operator closed stderr: the log has it
    at += static_cast<size_t>(n);
  }
}

}  // namespace certgate::supervisor
