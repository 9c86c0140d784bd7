#include "agentd/admin_record.h"

#include <time.h>
#include <unistd.h>

#include "agentd/signing_key.h"

namespace certgate::agentd {
namespace {

int64_t now_ns(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

kernel::Record next(const kernel::Record& before, kernel::RecordKind kind) {
  kernel::Record out;
  out.run = before.run;
  out.seq = before.seq + 1;
  out.wall_ns = before.wall_ns;
  out.boot_ns = before.boot_ns;
  out.pid = before.pid;
  out.kind = kind;
  return out;
}

}  // namespace

Status record_admin(LogStore& log, const AdminAct& act) {
  kernel::Record start;
  CG_TRY(start.run, random_base32(8));
  start.wall_ns = now_ns(CLOCK_REALTIME);
  start.boot_ns = now_ns(CLOCK_BOOTTIME);
  start.pid = static_cast<uint32_t>(::getpid());
  start.kind = kernel::RecordKind::kStart;
  start.seq = 1;
  start.object = act.command;
  start.origins = "operator";
  kernel::Record done = next(start, act.kind);
  done.object = act.object;
  done.token = act.token;
  done.count = act.count;
  done.grade = act.grade;
  done.digest = act.digest;
  done.argument = act.argument;
  done.why = act.why;
  kernel::Record stop = next(done, kernel::RecordKind::kStop);
  stop.count = done.seq;
  CG_TRY(SegmentFile segment, log.create_segment(start.run));
  for (const kernel::Record* record : {&start, &done, &stop})
    CG_CHECK(append_record(segment.append.get(), *record));
  segment.append.reset();
  return log.finish(segment.tail);
}

}  // namespace certgate::agentd
