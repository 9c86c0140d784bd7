#include "agentd/export/exporter.h"

#include <charconv>

namespace certgate::agentd {
namespace {

struct Format {
  const char* name;
  std::unique_ptr<Exporter> (*make)(const std::string&, std::ostream&);
};
constexpr Format kFormats[] = {
    {"jsonl", jsonl_exporter},   {"ocsf", ocsf_exporter}, {"prov-json", prov_exporter},
    {"auditd", auditd_exporter}, {"dot", dot_exporter},   {"perfetto", perfetto_exporter},
    {"otlp", otlp_exporter},
};

}  // namespace

std::string export_formats() {
  std::string all;
  for (const Format& format : kFormats) all += std::string(all.empty() ? "" : ", ") + format.name;
  return all;
}

Result<std::unique_ptr<Exporter>> make_exporter(const std::string& format, const std::string& log,
                                                std::ostream& out) {
  for (const Format& one : kFormats) {
    if (format == one.name) return one.make(log, out);
  }
  return fail("no such format; there are: " + export_formats());
}

Endpoint endpoint_of(const std::string& object) {
  std::string text = object;
  if (text.starts_with("unix:")) return {text.substr(5), 0};
  if (text.starts_with("udp:")) text = text.substr(4);
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return {text, 0};
  Endpoint end{text.substr(0, colon), 0};
  std::from_chars(text.data() + colon + 1, text.data() + text.size(), end.port);
  if (end.host.starts_with('[') && end.host.ends_with(']'))
    end.host = end.host.substr(1, end.host.size() - 2);
  return end;
}

bool is_verb(const kernel::Record& record, kernel::Verb verb) {
  return record.verb == static_cast<uint8_t>(verb) + 1;
}

}  // namespace certgate::agentd
