#include "bench/log_figures.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <random>

#include "agentd/index/lineage.h"
#include "agentd/log_store.h"
#include "agentd/log_verify.h"
#include "bench/log_writing.h"

namespace certgate::bench {
namespace {

using agentd::Index;
using kernel::Record;
using kernel::RecordKind;
using Clock = std::chrono::steady_clock;

constexpr size_t kRunRecords = 4000;  // a whole session of an agent
constexpr int64_t kStart = 1795430400'000'000'000;
constexpr double kSealPerSecond = 200'000;
constexpr double kDiskRatio = 1.2;
constexpr double kVerifyPerSecond = 500'000;
constexpr double kReindexSeconds = 60;
constexpr double kQuestionTailUs = 100'000;
constexpr uint64_t kSeed = 7;
constexpr size_t kDetailBytes = 24;

std::string run_name(size_t run) { return "run" + std::to_string(10'000 + run); }

uint8_t verb(kernel::Verb v) { return static_cast<uint8_t>(static_cast<uint8_t>(v) + 1); }

// Runs as agents make them: mostly reads of the system's files, an exec now and then, writes into a shared workspace, half of
// the runs poisoned by a page or by what a poisoned one wrote.
class Runs {
 public:
  std::vector<Record> make(size_t run) {
    std::vector<Record> out;
    label_ = "operator,user";
    const bool poisoned = run % 4 == 0;
    add(out, RecordKind::kStart, 0, "", "python3 agent.py --task " + std::to_string(run));
    while (out.size() + 2 < kRunRecords) {
      const size_t at = out.size();
      if (at % 40 == 1) {
        add(out, RecordKind::kCertificate, verb(kernel::Verb::kExec), "execve", "/usr/bin/tool" + std::to_string(random_() % 40));
        out.back().argv = {"tool", "--flag", "a file of the workspace"};
        out.back().sha256.assign(32, 7);
        add(out, RecordKind::kOutcome, 0, "execve", "");
        out.back().ref = out.size() - 1;
        out.back().grade = "exec-proved";
      } else if (poisoned && at > 1000 && label_.find("web:") == std::string::npos) {
        const std::string host = "page" + std::to_string(run % 16) + ".test";
        add(out, RecordKind::kCertificate, verb(kernel::Verb::kConnect), "connect", host + ":80");
        raise(out.back(), "web:" + host);
      } else if (at % 16 == 3) {
        add(out, RecordKind::kCertificate, verb(kernel::Verb::kWrite), "openat", shared(run));
      } else if (at % 400 == 5 && run > 0) {
        add(out, RecordKind::kCertificate, verb(kernel::Verb::kRead), "openat", shared(run - 1));
        const std::string host = "page" + std::to_string((run - 1) % 16) + ".test";
        if ((run - 1) % 4 == 0 && label_.find(host) == std::string::npos) raise(out.back(), "web:" + host);
      } else if (at % 500 == 7 && label_.find("web:") != std::string::npos) {
        add(out, RecordKind::kRefusal, verb(kernel::Verb::kExec), "execve", "/usr/bin/dash");
        out.back().culprit = label_.substr(label_.find("web:"));
        out.back().argument = "agent";
        out.back().reason = "UNTRUSTED_ORIGIN";
      } else {
        add(out, RecordKind::kCertificate, verb(kernel::Verb::kRead), "openat", "/usr/lib/file" + std::to_string(random_() % 5000));
      }
    }
    add(out, RecordKind::kStop, 0, "", "");
    out.back().count = out.size() - 1;
    return out;
  }

 private:
  void add(std::vector<Record>& out, RecordKind kind, uint8_t v, const char* call, const std::string& object) {
    Record r;
    r.kind = kind;
    r.seq = out.size() + 1;
    r.wall_ns = r.boot_ns = kStart + (clock_ += 50'000);
    r.pid = static_cast<uint32_t>(1000 + out.size() / 200);
    r.parent = 1000;
    r.started = 123'456'789;
    r.exec = 1 + out.size() / 200;
    r.call = call;
    r.verb = v;
    r.object = object;
    r.origins = label_;
    if (kind == RecordKind::kCertificate) {
      r.rule = "read-visible";
      r.token = "0123456789abcdef";
      r.digest.assign(32, 9);
      r.ino = 100'000 + random_() % 5000;
      r.detail.assign(kDetailBytes, 'd');  // as long as that of an open
    }
    out.push_back(std::move(r));
  }
  void raise(Record& r, const std::string& origin) { r.raised = label_ += "," + origin; }
  static std::string shared(size_t run) { return "/srv/project/file" + std::to_string(run % 200); }

  std::mt19937_64 random_{kSeed};
  std::string label_;
  int64_t clock_ = 0;
};

double cpu_seconds_of(const std::function<void()>& work);

struct Filled {
  size_t bytes = 0;           // of the records
  double seal_seconds = 0;    // of processor time
  Record record;              // one of them
};

Result<Filled> fill(const std::string& state, size_t runs) {
  CG_TRY(agentd::LogStore store, agentd::LogStore::open(state));
  Runs maker;
  Filled out;
  for (size_t run = 0; run < runs; ++run) {
    const std::string name = run_name(run);
    CG_TRY(agentd::SegmentFile segment, store.create_segment(name));
    for (Record& record : maker.make(run)) {
      record.run = name;
      CG_CHECK(agentd::append_record(segment.append.get(), record));
      std::vector<uint8_t> encoded;
      kernel::encode_record(record, encoded);
      out.bytes += encoded.size();
      if (record.seq == kRunRecords / 2) out.record = record;
    }
    segment.append.reset();
    Status sealed = ok();
    out.seal_seconds += cpu_seconds_of([&] { sealed = store.finish(segment.tail); });
    CG_CHECK(sealed);
  }
  return out;
}

// What the log's files take on the disk, with their directories.
Result<size_t> disk_bytes(const std::string& directory) {
  size_t bytes = 0;
  std::error_code error;
  for (auto at = std::filesystem::recursive_directory_iterator(directory, error); !error && at != std::filesystem::recursive_directory_iterator();
       at.increment(error)) {
    struct stat s {};
    if (::lstat(at->path().c_str(), &s) == 0) bytes += static_cast<size_t>(s.st_blocks) * 512;
  }
  if (error) return fail("look at " + directory + ": " + error.message());
  return bytes;
}

// Processor time of this thread: what "per core" means, whatever else the machine does.
double cpu_seconds_of(const std::function<void()>& work) {
  timespec before{}, after{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
  work();
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
  return static_cast<double>(after.tv_sec - before.tv_sec) + 1e-9 * static_cast<double>(after.tv_nsec - before.tv_nsec);
}

double seconds_of(const std::function<void()>& work) {
  const auto start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

KernelFigure once(const std::string& name, const std::string& what, double seconds, size_t records) {
  KernelFigure f;
  f.name = name;
  f.what = what;
  f.median_us = f.p99_us = seconds * 1e6;
  f.per_second = static_cast<double>(records) / seconds;
  return f;
}

// Median and 95th percentile of one question over many subjects.
Result<KernelFigure> question(const std::string& name, const std::string& what, const std::vector<std::string>& subjects,
                              const std::function<Status(const std::string&)>& ask) {
  std::vector<double> us;
  Status failed = ok();
  for (const std::string& subject : subjects) {
    us.push_back(1e6 * seconds_of([&] { failed = ask(subject); }));
    if (!failed) return fail(name + " " + subject + ": " + failed.error().what);
  }
  std::sort(us.begin(), us.end());
  KernelFigure f;
  f.name = name;
  f.what = what + ", p95 in the column of p99";
  f.median_us = us[us.size() / 2];
  f.p99_us = us[us.size() * 95 / 100];
  f.per_second = 1e6 / f.median_us;
  f.max_p99_us = kQuestionTailUs;
  return f;
}

std::vector<std::string> some_ids(size_t runs, size_t count) {
  std::mt19937_64 random(kSeed);
  std::vector<std::string> ids;
  for (size_t i = 0; i < count; ++i) {
    const size_t run = random() % runs;
    ids.push_back(run_name(run) + '-' + std::to_string(1 + random() % kRunRecords));
  }
  return ids;
}

void add_kept(const Filled& filled, size_t on_disk, double hashing, size_t records, std::vector<KernelFigure>& out) {
  KernelFigure seal = once("seal", "sealed by the authority, processor time; ratio to the hashing", filled.seal_seconds, records);
  seal.ratio = filled.seal_seconds / hashing;
  seal.min_per_second = kSealPerSecond;
  out.push_back(seal);
  KernelFigure disk;
  disk.name = "disk";
  disk.what = "ratio: what the sealed log takes on the disk to the bytes of its records";
  disk.ratio = static_cast<double>(on_disk) / static_cast<double>(filled.bytes);
  disk.max_ratio = kDiskRatio;
  out.push_back(disk);
}

Result<std::vector<KernelFigure>> measure_log(const std::string& state, size_t runs, size_t questions) {
  std::vector<KernelFigure> out;
  const size_t records = runs * kRunRecords;
  Result<Filled> filled = fail("not filled");
  const double filling = seconds_of([&] { filled = fill(state, runs); });
  if (!filled) return filled.error();
  const size_t bytes = filled->bytes;
  CG_TRY(out, writing_figures(state + "-written", filled->record, runs < 100));
  out.push_back(once("fill", "records appended and sealed, " + std::to_string(bytes / records) + " bytes each on average", filling, records));
  const std::vector<uint8_t> mean(bytes / records);
  const double hashing = cpu_seconds_of([&] {
    for (size_t i = 0; i < records; ++i) (void)kernel::leaf_hash(mean.data(), mean.size());
  });
  out.push_back(once("floor-hash", "as many records of the mean size hashed, processor time", hashing, records));
  CG_TRY(const size_t on_disk, disk_bytes(state + "/log"));
  add_kept(*filled, on_disk, hashing, records, out);
  Result<agentd::VerifyReport> report = fail("not verified");
  KernelFigure verify = once("verify", "audit verify, processor time; ratio to the hashing", cpu_seconds_of([&] { report = agentd::verify_log(state); }), records);
  if (!report || !report->good) return fail("the benchmark's own log does not verify");
  verify.ratio = verify.median_us / (hashing * 1e6);
  verify.min_per_second = kVerifyPerSecond;
  out.push_back(verify);
  Result<Index> index = fail("no index");
  KernelFigure reindex = once("reindex", "audit reindex; ratio to the hashing", seconds_of([&] { index = Index::rebuild(state); }), records);
  if (!index) return index.error();
  reindex.ratio = reindex.median_us / (hashing * 1e6);
  reindex.max_median_us = kReindexSeconds * 1e6;
  out.push_back(reindex);
  const std::vector<std::string> ids = some_ids(runs, questions);
  CG_TRY(KernelFigure floor, question("floor-record", "the log opened, one record read and proven", ids, [&](const std::string&) -> Status {
           CG_TRY(agentd::LogReader log, agentd::LogReader::open(state));
           CG_TRY(const Record record, log.record(records / 2));
           return ok();
         }));
  floor.max_p99_us = 0;
  out.push_back(floor);
  auto with_index = [&](const std::function<Status(Index&, const std::string&)>& ask) {
    return [&state, ask](const std::string& subject) -> Status {
      CG_TRY(Index opened, Index::open(state));
      return ask(opened, subject);
    };
  };
  CG_TRY(KernelFigure why, question("why", "the log and index opened, and why answered", ids, with_index([](Index& i, const std::string& id) -> Status {
           CG_TRY(const agentd::Explanation answer, agentd::explain(i, id));
           return ok();
         })));
  why.ratio = why.median_us / floor.median_us;
  out.push_back(why);
  CG_TRY(KernelFigure impact, question("impact", "the same, and impact of a record", ids, with_index([](Index& i, const std::string& id) -> Status {
           CG_TRY(const agentd::Impact answer, agentd::impact_of(i, id, agentd::kShownByDefault));
           return ok();
         })));
  impact.ratio = impact.median_us / floor.median_us;
  out.push_back(impact);
  return out;
}

}  // namespace

Result<std::vector<KernelFigure>> log_figures(bool quick, const std::string& directory) {
  std::string root = directory + "/certgate-bench-log-XXXXXX";
  if (::mkdtemp(root.data()) == nullptr) return fail("cannot make " + root);
  Result<std::vector<KernelFigure>> figures = measure_log(root + "/state", quick ? 5 : 250, quick ? 20 : 200);
  std::error_code ignored;
  std::filesystem::remove_all(root, ignored);
  return figures;
}

}  // namespace certgate::bench
