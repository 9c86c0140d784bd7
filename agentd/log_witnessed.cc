#include "agentd/log_witnessed.h"

#include <fmt/format.h>

#include <cerrno>
#include <optional>

#include "agentd/audit_view.h"
#include "agentd/log_reader.h"
#include "agentd/proof.h"
#include "agentd/state_dir.h"

namespace certgate::agentd {
namespace {

constexpr int64_t kSecond_ns = 1'000'000'000;

// What is wrong with a checkpoint as the start of this log; "" = nothing.
Result<std::string> not_the_start(LogReader& log, const Checkpoint& held,
                                  const std::string& which) {
  if (held.size > log.size())
    return which + " has " + std::to_string(held.size) + " records, the log only " +
           std::to_string(log.size()) + ": it was cut back";
  CG_TRY(const kernel::Digest root, log.root_at(held.size));
  if (root == held.root) return std::string();
  return "the first " + std::to_string(held.size) + " records are not those of " + which;
}

std::string times_of(const std::vector<Cosignature>& by) {
  std::string names;
  for (const Cosignature& one : by)
    names += (names.empty() ? "" : ", ") + one.witness + " at " +
             rfc3339(static_cast<int64_t>(one.time) * kSecond_ns);
  return names;
}

Result<Verdict> judge_held(LogReader& log, const OutsideView& outside) {
  constexpr char kWhich[] = "the checkpoint from outside";
  const Result<Checkpoint> held = open_cosigned(outside.checkpoint, log.key());
  if (!held) return Verdict{"no", held.error().what};
  CG_TRY(const std::string wrong, not_the_start(log, *held, kWhich));
  if (!wrong.empty()) return Verdict{"no", wrong};
  const Result<std::vector<Cosignature>> by = cosignatures(outside.checkpoint, outside.keys);
  if (!by) return Verdict{"no", by.error().what};
  const std::string first = "the first " + std::to_string(held->size) + " of " +
                            std::to_string(log.size()) + " records are those of " + kWhich;
  if (by->empty())
    return Verdict{outside.keys.empty() ? "held" : "none",
                   first + ", which none of the given witnesses cosigned"};
  return Verdict{"yes", first + ", cosigned by " + times_of(*by)};
}

// What is kept in the state directory; none when there is no such file.
Result<std::optional<std::string>> kept(const LogReader& log, const std::string& path) {
  Result<std::string> note = read_file(log.snapshot().dir(), path, kMaxNoteBytes);
  if (note) return std::optional(std::move(*note));
  if (note.error().code == ENOENT) return std::optional<std::string>();
  return fail("cosigned checkpoint " + path + ": " + note.error().what);
}

struct Seen {
  std::optional<uint64_t> size;  // cosigned up to
  uint64_t time = 0;
  std::string wrong;
};

// The largest checkpoint that is kept with a cosignature of this witness.
Result<Seen> seen_by(LogReader& log, const WitnessKey& witness) {
  Seen seen;
  for (const std::string& path : {std::string(kCosignedPath), cosignature_path(witness.id())}) {
    CG_TRY(const std::optional<std::string> note, kept(log, path));
    if (!note) continue;
    const Result<std::vector<Cosignature>> by = cosignatures(*note, {witness});
    if (by && by->empty()) continue;
    const Result<Checkpoint> held = open_cosigned(*note, log.key());
    if (!by || !held) {
      seen.wrong = path + ": " + (by ? held : Result<Checkpoint>(by.error())).error().what +
                   "; ask the witness again (audit witness add)";
      return seen;
    }
    CG_TRY(seen.wrong,
           not_the_start(log, *held, "the checkpoint that " + witness.name + " cosigned"));
    if (!seen.wrong.empty()) return seen;
    if (seen.size && *seen.size >= held->size) continue;
    seen.size = held->size;
    seen.time = by->front().time;
  }
  return seen;
}

Result<Verdict> judge_kept(LogReader& log, const std::vector<WitnessKey>& witnesses) {
  std::string by, not_by;
  for (const WitnessKey& witness : witnesses) {
    CG_TRY(const Seen seen, seen_by(log, witness));
    if (!seen.wrong.empty()) return Verdict{"no", seen.wrong};
    if (!seen.size) {
      not_by += (not_by.empty() ? "" : ", ") + witness.name;
      continue;
    }
    by +=
        fmt::format("{}by {} up to {} of {} records, at {}", by.empty() ? "" : "; ", witness.name,
                    *seen.size, log.size(), rfc3339(static_cast<int64_t>(seen.time) * kSecond_ns));
  }
  if (not_by.empty()) return Verdict{"yes", by};
  const std::string missing = "no cosignature by " + not_by +
                              " is kept beside this log (certgate audit witness add URL --key KEY)";
  return by.empty() ? Verdict{"none", missing} : Verdict{"so far", by + "; " + missing};
}

}  // namespace

std::string cosignature_path(uint32_t id) { return fmt::format("cosignatures/{:08x}", id); }

Result<Verdict> judge_witnessed(const std::string& state_dir, const OutsideView& outside) {
  if (outside.checkpoint.empty() && outside.keys.empty())
    return Verdict{"none",
                   "neither a checkpoint from outside nor a witness's key was given "
                   "(--checkpoint FILE, --witness KEY)"};
  CG_TRY(LogReader log, LogReader::open(state_dir));
  return outside.checkpoint.empty() ? judge_kept(log, outside.keys) : judge_held(log, outside);
}

}  // namespace certgate::agentd
