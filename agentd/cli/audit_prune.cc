// certgate audit prune: removes old records; the log goes on proving what is left.
#include <fmt/format.h>

#include <charconv>
#include <cstdio>

#include "agentd/cli/verbs.h"
#include "agentd/duration.h"
#include "agentd/log_prune.h"

namespace certgate::agentd::cli {
namespace {

constexpr int kExitTrouble = 2;
constexpr char kUsage[] =
    "usage: certgate audit prune --keep-last N | --older-than T | --before SIZE | --floor T "
    "[--state "
    "DIR]\n\n"
    "  --keep-last N    keep the last N records\n"
    "  --older-than T   remove what is older than 90d (s, m, h, d)\n"
    "  --before SIZE    remove records before this index, as in the size of a checkpoint\n"
    "  --floor T        from now on never remove what is younger than T; 0: no floor (without one: "
    "183d)\n\n"
    "Records go in bundles of 256, oldest first; what runs still need stays. Their hashes stay, "
    "so\n"
    "that `certgate audit verify` and every proof of what is left still hold. It is recorded.\n";

struct Wish {
  PruneWish prune;
  std::string floor, state, words;
};

std::optional<uint64_t> number(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<Wish> parse(const Args& args) {
  Wish wish;
  for (size_t i = 0; i < args.size(); i += 2) {
    const std::string& name = args[i];
    if (i + 1 == args.size()) return fail(escape(name) + " needs a value");
    const std::string& value = args[i + 1];
    wish.words += name == "--state" ? "" : ' ' + name + ' ' + value;
    if (name == "--state") {
      wish.state = value;
    } else if (name == "--floor") {
      wish.floor = value;
    } else if (name == "--keep-last") {
      wish.prune.keep_last = number(value);
      if (!wish.prune.keep_last) return fail("--keep-last must be a whole number");
    } else if (name == "--before") {
      wish.prune.before = number(value);
      if (!wish.prune.before) return fail("--before must be a whole number");
    } else if (name == "--older-than") {
      wish.prune.older_than_ns = parse_duration(value);
      if (!wish.prune.older_than_ns) return fail("--older-than must be like 90s, 15m, 2h or 7d");
    } else {
      return fail("unknown option " + escape(name));
    }
  }
  const PruneWish& p = wish.prune;
  const int asked = p.keep_last.has_value() + p.older_than_ns.has_value() + p.before.has_value();
  if (asked > 1) return fail("one of --keep-last, --older-than and --before");
  if (asked == 0 && wish.floor.empty()) return fail("what may go?");
  if (wish.state.empty()) wish.state = default_state_dir();
  return wish;
}

Status prune(const Wish& wish) {
  CG_TRY(LogStore log, LogStore::open(wish.state));
  if (!wish.floor.empty()) {
    CG_CHECK(set_floor(log.dir_fd(), wish.floor));
    fmt::print("floor: {}\n", escape(wish.floor));
  }
  const PruneWish& p = wish.prune;
  if (!p.keep_last && !p.older_than_ns && !p.before) return ok();
  CG_TRY(const Pruned done,
         prune_log(log, wish.state, p, "certgate audit prune" + escape(wish.words)));
  fmt::print("{} records removed; the first one that is kept has the index {}\n", done.removed,
             done.minimum);
  if (!done.held_by.empty()) fmt::print("note: {}\n", escape(done.held_by));
  return ok();
}

}  // namespace

int audit_prune_main(const Args& args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const auto wish = parse(args);
  const Status done = wish ? prune(*wish) : Status(wish.error());
  if (done) return 0;
  std::fprintf(stderr, "certgate audit prune: %s\n%s", escape(done.error().what).c_str(),
               wish ? "" : kUsage);
  return kExitTrouble;
}

}  // namespace certgate::agentd::cli
