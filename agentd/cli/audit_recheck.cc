// certgate audit recheck: whether certificates follow from the records alone.
#include "agentd/audit_recheck.h"

#include <iostream>

#include "agentd/cli/audit_verbs.h"

namespace certgate::agentd::cli {
namespace {

Result<RecheckReport> recheck_log(const Options& options) {
  if (options.args.empty() != options.has("all"))
    return fail("audit recheck needs an ID, or --all");
  CG_TRY(const LogSnapshot log, LogSnapshot::open(options.state));
  CG_TRY(const VerifierKey key, log.key());
  if (options.has("key") && key.text() != options.value("key"))
    return fail("key.pub is " + key.text() + ", not the key that was asked for");
  return recheck(log, key, options.args.empty() ? "" : options.args[0]);
}

void print_text(const RecheckReport& report) {
  for (const RecordFault& f : report.faults)
    std::cout << "no: " << escape(f.id) << ": " << f.step << ": " << escape(f.what) << '\n';
  if (report.failed != 0) {
    std::cout << "no: " << report.failed << " of " << report.certificates << " certificates\n";
  } else if (!report.id.empty()) {
    std::cout << "yes: " << escape(report.id) << ", allowed by " << escape(report.rules) << '\n';
  } else {
    std::cout << "yes: " << report.certificates << " certificates of " << report.runs << " runs\n";
  }
}

void print_json(const RecheckReport& report) {
  std::vector<std::string> faults;
  for (const RecordFault& f : report.faults) faults.push_back(f.id + ": " + f.step + ": " + f.what);
  JsonObject object;
  object.text("verdict", report.failed == 0 ? "yes" : "no")
      .number("certificates", report.certificates);
  object.number("failed", report.failed).text("id", report.id).text("rules", report.rules);
  std::cout << object.list("faults", faults).str() << '\n';
}

}  // namespace

int audit_recheck(const Options& options) {
  const Result<RecheckReport> report = recheck_log(options);
  if (!report) return trouble(report.error());
  record_reading(options);
  options.format == Format::kJson ? print_json(*report) : print_text(*report);
  if (!std::cout.flush()) return trouble(fail("the output was closed"));
  return report->failed == 0 ? 0 : kExitNo;
}

}  // namespace certgate::agentd::cli
