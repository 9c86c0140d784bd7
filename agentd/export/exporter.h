// Exporter: records in the forms that other people's tools read.
//
//   CG_TRY(auto exporter, make_exporter("ocsf", origin_of_the_log, std::cout));
//   exporter->add({pos, record, error, leaf});       // … each record, in order
//   CG_CHECK(exporter->end());
//
//   jsonl      one object a line: every field of the record, its position and leaf hash
//   ocsf       OCSF 1.1, one event a line: process 1007, file 1001, network 4001, application 6002
//   prov-json  W3C PROV-JSON, one document: agents, processes, files, and what was used and made
//   auditd     the text of auditd's log: SYSCALL with EXECVE, PATH or SOCKADDR, for ausearch
//   dot        a graph for Graphviz: agents, processes, files and hosts; refusals in red
//   perfetto   binary TrackEvent: a track an agent, a track a process; reads of what others wrote
//   are flows otlp       OTLP/JSON logs, one document, with process.*, file.* and server.*
//   attributes
//
// Text is escaped as on a terminal before it is quoted as the format asks.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>

#include "kernel/call.h"
#include "kernel/record.h"
#include "kernel/result.h"

namespace certgate::agentd {

struct ExportItem {
  uint64_t pos = 0;
  const kernel::Record& record;
  uint32_t error = 0;              // of its outcome, when it has one
  kernel::Digest leaf{};           // zero: not sealed yet
  std::optional<uint64_t> source;  // the write whose bytes it read
};

class Exporter {
 public:
  virtual ~Exporter() = default;
  virtual void add(const ExportItem& item) = 0;
  virtual Status end() { return ok(); }
};

std::string export_formats();  // "jsonl, ocsf, …"
Result<std::unique_ptr<Exporter>> make_exporter(const std::string& format, const std::string& log,
                                                std::ostream& out);

// The factories of the table in exporter.cc.
std::unique_ptr<Exporter> jsonl_exporter(const std::string& log, std::ostream& out);
std::unique_ptr<Exporter> ocsf_exporter(const std::string& log, std::ostream& out);
std::unique_ptr<Exporter> prov_exporter(const std::string& log, std::ostream& out);
std::unique_ptr<Exporter> auditd_exporter(const std::string& log, std::ostream& out);
std::unique_ptr<Exporter> dot_exporter(const std::string& log, std::ostream& out);
std::unique_ptr<Exporter> perfetto_exporter(const std::string& log, std::ostream& out);
std::unique_ptr<Exporter> otlp_exporter(const std::string& log, std::ostream& out);

// "host" and port of a connect's object, "[v6]:port" included; a unix socket has port 0.
struct Endpoint {
  std::string host;
  uint64_t port = 0;
};
Endpoint endpoint_of(const std::string& object);
bool is_verb(const kernel::Record& record, kernel::Verb verb);

}  // namespace certgate::agentd
