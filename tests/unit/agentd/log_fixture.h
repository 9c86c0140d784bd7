// A state directory in a temporary place, and records to put into it. For the tests of the log.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "agentd/log_store.h"
#include "agentd/log_verify.h"
#include "supervisor/frame.h"

namespace certgate::agentd {

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    // In memory where there is such a place: these tests end processes, not the power, and on a
    // slow disk their thousands of fdatasyncs would take minutes.
    const std::filesystem::path memory = "/dev/shm";
    const bool usable = ::access(memory.c_str(), W_OK) == 0;
    std::string name =
        ((usable ? memory : std::filesystem::temp_directory_path()) / "certgate-log-XXXXXX")
            .string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    state_ = root_ + "/state";
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  static kernel::Record record(const std::string& run, uint64_t seq,
                               kernel::RecordKind kind = kernel::RecordKind::kCertificate) {
    kernel::Record r;
    r.kind = kind;
    r.run = run;
    r.seq = seq;
    r.wall_ns = 1795430400000000000 + static_cast<int64_t>(seq);
    r.call = "openat";
    if (kind == kernel::RecordKind::kStop) {
      r.call.clear();
      r.count = seq - 1;
    }
    return r;
  }

  // A run of `records` records, the last of them its stop, sealed and removed.
  static void whole_run(LogStore& store, const std::string& run, uint64_t records) {
    auto segment = store.create_segment(run);
    ASSERT_TRUE(segment) << segment.error().what;
    for (uint64_t seq = 1; seq <= records; ++seq) {
      const auto kind = seq == records ? kernel::RecordKind::kStop
                        : seq == 1     ? kernel::RecordKind::kStart
                                       : kernel::RecordKind::kCertificate;
      ASSERT_TRUE(append_record(segment->append.get(), record(run, seq, kind)));
    }
    const Status done = store.finish(segment->tail);
    ASSERT_TRUE(done) << done.error().what;
  }

  LogStore opened() {
    auto store = LogStore::open(state_);
    if (!store) ADD_FAILURE() << store.error().what;
    return std::move(*store);
  }

  // "yes", or "no: where: what", or "trouble: what".
  std::string verdict() const {
    const auto report = verify_log(state_);
    if (!report) return "trouble: " + report.error().what;
    return report->good ? "yes" : "no: " + report->where + ": " + report->what;
  }
  uint64_t records() const {
    const auto report = verify_log(state_);
    return report ? report->records : 0;
  }

  static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    return bytes.str();
  }
  static void write(const std::string& path, const std::string& bytes) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << bytes;
    ASSERT_TRUE(file.flush());
  }
  // Every regular file that the log consists of, with the two beside it.
  std::vector<std::string> log_files() const {
    std::vector<std::string> files = {state_ + "/key.pub", state_ + "/checkpoint.last"};
    for (const auto& entry : std::filesystem::recursive_directory_iterator(state_ + "/log")) {
      if (entry.is_regular_file()) files.push_back(entry.path().string());
    }
    return files;
  }

  std::string root_, state_;
};

}  // namespace certgate::agentd
