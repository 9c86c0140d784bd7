#include "agentd/audit_recheck.h"

#include <map>
#include <optional>

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;

// The one certificate that an id, or the start of one, names.
Result<Record> find_certificate(const LogSnapshot& log, const std::string& id) {
  std::optional<Record> exact, only;
  size_t found = 0;
  CG_CHECK(log.each([&](const LogEntry& entry) {
    if (entry.record.kind != RecordKind::kCertificate) return ok();
    const std::string its = entry.record.id();
    if (its == id) exact = entry.record;
    if (its.starts_with(id) && ++found == 1) only = entry.record;
    return ok();
  }));
  if (exact) return *std::move(exact);
  if (found == 1) return *std::move(only);
  return fail(found == 0 ? "no certificate has the id " + id + " (see: certgate audit list)"
                         : id + " is the start of the ids of several certificates");
}

}  // namespace

Result<RecheckReport> recheck(const LogSnapshot& log, const VerifierKey& key,
                              const std::string& id) {
  RecheckReport out;
  std::optional<Record> wanted;
  if (!id.empty()) {
    CG_TRY(wanted, find_certificate(log, id));
    out.id = wanted->id();
  }
  struct Run {
    std::optional<RunCheck> check;  // until the run has ended: its policy is large
    bool faulty = false;
  };
  std::map<std::string, Run> runs;
  CG_CHECK(log.each([&](const LogEntry& entry) {
    const Record& r = entry.record;
    if (wanted && (r.run != wanted->run || r.seq > wanted->seq)) return ok();
    const auto [it, is_new] = runs.try_emplace(r.run, Run{RunCheck(key.key), false});
    out.runs += is_new ? 1 : 0;
    Run& run = it->second;
    const std::optional<Fault> fault =
        run.check ? run.check->take(r) : Fault{"sequence", "it comes after the run's end"};
    const bool certificate = r.kind == RecordKind::kCertificate;
    out.certificates += certificate ? 1 : 0;
    if (fault && (certificate || !run.faulty)) ++out.failed;
    if (fault && !run.faulty && out.faults.size() < kMaxFaults)
      out.faults.push_back({r.id(), fault->step, fault->what});
    run.faulty = run.faulty || fault.has_value();
    if (wanted && r.seq == wanted->seq && run.check) out.rules = run.check->rules();
    if (r.kind == RecordKind::kStop || r.kind == RecordKind::kGap) run.check.reset();
    return ok();
  }));
  return out;
}

}  // namespace certgate::agentd
