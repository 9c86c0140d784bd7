#include "agentd/recorded_call.h"

#include <algorithm>

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;
using kernel::Verb;

constexpr size_t kMaxCalls = 2'000'000;

bool opens(const Record& record) {
  return record.call == "open" || record.call == "openat" || record.call == "openat2" ||
         record.call == "creat";
}

}  // namespace

Result<RecordedRun> read_run(const LogSnapshot& log, const std::string& asked) {
  std::string id = asked;
  if (id.empty()) {
    CG_CHECK(log.each([&](const LogEntry& entry) {
      const Record& r = entry.record;
      if (r.kind == RecordKind::kStart && r.grade == kernel::kObservedGrade) id = r.run;
      return ok();
    }));
    if (id.empty())
      return fail("the log has no observed run; make one with certgate run --observe");
  }
  RecordedRun out;
  CG_CHECK(log.each([&](const LogEntry& entry) -> Status {
    const Record& r = entry.record;
    if (r.run != id) return ok();
    if (r.kind == RecordKind::kStart) out.start = r;
    const bool refusal = r.kind == RecordKind::kRefusal && r.grade != kernel::kSelfTestGrade;
    if (r.kind == RecordKind::kCertificate || refusal) out.calls.push_back(r);
    return out.calls.size() > kMaxCalls ? Status(fail("the run has more than 2,000,000 calls"))
                                        : ok();
  }));
  if (out.start.run.empty()) return fail("no run has the id " + id + " (see: certgate audit list)");
  if (out.start.asked.empty())
    return fail("the run " + id + " is of an earlier certgate, which did not record its workspace");
  out.context = {out.start.asked, out.start.argument};
  return out;
}

bool is_judged(const Record& record) {
  return record.kind == RecordKind::kRefusal || !record.rule.empty();
}

bool reads_too(const Record& record) {
  // Two rules, or one that allows both: nothing says which; reading is then assumed.
  return opens(record) && record.rule != "observed-write";
}

Result<kernel::Call> recorded_call(const Record& record, const PolicyContext& context) {
  if (record.verb == 0 || record.verb > kernel::kVerbs)
    return fail("record " + record.id() + " is no call");
  kernel::Call out;
  const auto verb = static_cast<Verb>(record.verb - 1);
  if (verb == Verb::kConnect) {
    CG_TRY(kernel::ConnectEffect connect, connect_effect(record.object));
    connect.inside = !is_judged(record);
    out.effect = std::move(connect);
    return out;
  }
  const bool inside = is_private(record.object, context);
  if (verb == Verb::kExec) {
    kernel::ExecEffect exec;
    exec.images.push_back({record.object, {}, {}, inside});
    // A file that is gone was a program without interpreter, as far as anybody can tell.
    const auto chain = inside ? Result<std::vector<std::string>>(std::vector<std::string>())
                              : interpreters_of(record.object, context.workspace);
    for (const std::string& path : chain ? *chain : std::vector<std::string>())
      exec.images.push_back({path, {}, {}, is_private(path, context)});
    exec.argv = record.argv;
    exec.cwd = context.workspace;
    out.effect = std::move(exec);
    return out;
  }
  kernel::OpenEffect open;
  open.path = record.object;
  open.write = verb == Verb::kWrite;
  open.read = !open.write || reads_too(record);
  open.inside = inside;
  out.effect = std::move(open);
  return out;
}

Result<Answer> decide_again(const kernel::Policy& policy, const PolicyContext& context,
                            const Record& record, std::vector<uint64_t> used) {
  CG_TRY(kernel::Call call, recorded_call(record, context));
  CG_TRY(const kernel::Label label, kernel::Label::parse(record.origins));
  return decide_call(policy, std::move(call), label, std::move(used));
}

}  // namespace certgate::agentd
