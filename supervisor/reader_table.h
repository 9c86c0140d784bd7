// ReaderTable: which files one run may be reading, where every other run can look, and how it is
// asked to take a label that one of them is about to get.
//
//   run B (supervisor)                        run A (authority, under the label store's lock)
//     table.note(file);                         store(file, label);
//     label = labels.find(file);                if (table.may_read(file)) table.ask(…);
//   Both orders end well: B finds the new label, or A finds B's note and waits for its answer.
//
//     auto request = table.wait(last);          // a thread of its own
//     table.answer(request, …);                 // can it? then it judges nothing meanwhile
//                                               table.decide(Decision::kTake);  // when all can
//     table.decision(request, limit);           // take it, or go on as before
//     table.finish(request);                    table.finished(limit);  // now A may write
//
// One file of fixed size for each run, mapped shared by its supervisor and by other runs'
// authorities. A file once read counts until the run ends: its bytes may be in a pipe, a mapping or
// a descriptor in flight. When the table is full the run counts as reading everything.
// Whoever holds the file's flock lives; both of a run's processes share it.
//
// State of a request: none → asked → answered (can, cannot) → decided (take, leave) → finished
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/call.h"
#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {

inline constexpr size_t kMaxHeldFiles = 4096;  // that one answer can name

class ReaderTable {
 public:
  struct Request {
    uint32_t number = 0;
    uint32_t label = 0;         // id in the label names
    kernel::FileIdentity file;  // the one that is about to change
    std::string run;            // who asks
  };
  struct Answer {
    bool can = false;
    std::vector<kernel::FileIdentity> held;  // what this run may write, which joins too
  };
  enum class Decision : uint8_t { kTake = 1, kLeave = 2 };

  // Makes an empty file into a table.
  static Status prepare(int fd);
  // Takes a descriptor that may be read and written; refuses what prepare() has not made.
  static Result<ReaderTable> open(sandbox::UniqueFd fd);
  ReaderTable(ReaderTable&& other) noexcept;
  ReaderTable& operator=(ReaderTable&&) = delete;
  ~ReaderTable();

  // The run itself. Thread-safe, without locks.
  void note(const kernel::FileIdentity& file);
  // Waits for a request other than number `last`.
  Request wait(uint32_t last) const;
  void answer(const Request& request, const Answer& answer);
  // nullopt: who asked has decided nothing within `limit`; it may be dead.
  std::optional<Decision> decision(const Request& request, std::chrono::milliseconds limit) const;
  // What was decided has been done.
  void finish(const Request& request);
  // Nothing of the run can read any more: it is not asked again.
  void close();

  // Another run, one at a time.
  bool may_read(const kernel::FileIdentity& file) const;
  // nullopt: no answer within `limit`, or still none to an earlier request. Whoever has an answer
  // must decide.
  std::optional<Answer> ask(uint32_t label, const kernel::FileIdentity& file,
                            const std::string& run, std::chrono::milliseconds limit);
  void decide(Decision decision);
  // False: what was decided is not done yet.
  bool finished(std::chrono::milliseconds limit) const;
  int fd() const { return fd_.get(); }

 private:
  struct Layout;
  ReaderTable(sandbox::UniqueFd fd, Layout* map) : fd_(std::move(fd)), map_(map) {}

  sandbox::UniqueFd fd_;
  Layout* map_ = nullptr;
};

}  // namespace certgate::supervisor
