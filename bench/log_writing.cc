#include "bench/log_writing.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "agentd/log_store.h"
#include "supervisor/frame.h"
#include "supervisor/recorder.h"

namespace certgate::bench {
namespace {

using kernel::Durability;
using kernel::Record;
using supervisor::Recorder;
using Clock = std::chrono::steady_clock;

constexpr size_t kCallers = 64;
constexpr double kOrderedUs = 1.0;
constexpr double kStrictRatio = 8;

double us_since(Clock::time_point start) { return std::chrono::duration<double, std::micro>(Clock::now() - start).count(); }

KernelFigure figure(const std::string& name, const std::string& what, std::vector<double> us, double seconds) {
  std::sort(us.begin(), us.end());
  KernelFigure f;
  f.name = name;
  f.what = what;
  f.median_us = us[us.size() / 2];
  f.p99_us = us[us.size() * 99 / 100];
  f.per_second = static_cast<double>(us.size()) / seconds;
  return f;
}

Result<KernelFigure> timed(const std::string& name, const std::string& what, size_t count, const std::function<bool()>& work) {
  std::vector<double> us;
  us.reserve(count);
  const auto begun = Clock::now();
  for (size_t i = 0; i < count; ++i) {
    const auto start = Clock::now();
    if (!work()) return fail_errno(name, errno);
    us.push_back(us_since(start));
  }
  return figure(name, what, std::move(us), us_since(begun) / 1e6);
}

Result<KernelFigure> strict(Recorder& recorder, const Record& record, size_t each) {
  std::vector<std::vector<double>> us(kCallers);
  std::atomic<bool> failed{false};
  std::vector<std::thread> callers;
  const auto begun = Clock::now();
  for (std::vector<double>& own : us) {
    callers.emplace_back([&recorder, &record, &failed, &own, each] {
      for (size_t i = 0; i < each; ++i) {
        const auto start = Clock::now();
        if (!recorder.append(record, Durability::kStrict)) failed = true;
        own.push_back(us_since(start));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  const double seconds = us_since(begun) / 1e6;
  if (failed) return fail("the benchmark's own log cannot be written");
  std::vector<double> all;
  for (const std::vector<double>& own : us) all.insert(all.end(), own.begin(), own.end());
  return figure("strict", "64 callers, each waits until its record is on the disk; ratio: appends a second to floor-fdatasync's", std::move(all), seconds);
}

}  // namespace

Result<std::vector<KernelFigure>> writing_figures(const std::string& state, const Record& of, bool quick) {
  Record record = of;
  record.pid = static_cast<uint32_t>(::getpid());  // a process that is there, and known from its second call on
  CG_TRY(agentd::LogStore store, agentd::LogStore::open(state));
  CG_TRY(agentd::SegmentFile segment, store.create_segment("ordered"));
  CG_TRY(agentd::SegmentFile synced, store.create_segment("strict"));
  std::vector<uint8_t> encoded, frame;
  kernel::encode_record(record, encoded);
  if (!supervisor::append_frame(encoded.data(), encoded.size(), frame)) return fail("the benchmark's own record is too long");
  const std::string plain = state + "/plain";
  const sandbox::UniqueFd bare(::open(plain.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
  if (!bare) return fail_errno(plain, errno);
  const auto write = [&] { return ::write(bare.get(), frame.data(), frame.size()) == static_cast<ssize_t>(frame.size()); };

  std::vector<KernelFigure> out;
  const size_t appends = quick ? 5'000 : 100'000, syncs = quick ? 50 : 300;
  CG_TRY(KernelFigure floor, timed("floor-write", "as many bytes written to a file", appends, write));
  Recorder ordered("ordered", record.token, std::move(segment.append), 1);
  CG_TRY(KernelFigure append, timed("append", "ordered: one record appended by a supervisor; ratio to the write", appends,
                                    [&] { return static_cast<bool>(ordered.append(record, Durability::kOrdered)); }));
  append.ratio = append.median_us / floor.median_us;
  append.max_median_us = kOrderedUs;
  out.push_back(floor);
  out.push_back(append);
  CG_TRY(KernelFigure sync, timed("floor-fdatasync", "as many bytes written, then fdatasync, one after the other", syncs,
                                  [&] { return write() && ::fdatasync(bare.get()) == 0; }));
  Recorder durable("strict", record.token, std::move(synced.append), 1);
  CG_TRY(KernelFigure waits, strict(durable, record, quick ? 10 : 50));
  waits.ratio = waits.per_second / sync.per_second;
  waits.min_ratio = kStrictRatio;
  out.push_back(sync);
  out.push_back(waits);
  return out;
}

}  // namespace certgate::bench
