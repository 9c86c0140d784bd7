// certgate audit erase: removes what was kept out of a record; the record and its proofs stay.
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <set>

#include "agentd/admin_record.h"
#include "agentd/audit_view.h"
#include "agentd/blob_store.h"
#include "agentd/cli/verbs.h"
#include "agentd/index/lineage.h"
#include "agentd/log_store.h"

namespace certgate::agentd::cli {
namespace {

constexpr int kExitTrouble = 2;
constexpr char kUsage[] =
    "usage: certgate audit erase ID [--blob NAME] [--state DIR]\n\n"
    "Erases, for good, the values that were kept out of the record ID: all of them, or the one "
    "that\n`certgate audit why` shows as NAME (argv[2], env, env:secret, object, asked). The log "
    "and every\nproof stay as they are. That it was done, and by whom, is recorded.\n";

struct Wish {
  std::string id, name, state;
};

Result<Wish> parse(const Args& args) {
  Wish wish;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--blob" || args[i] == "--state") {
      if (i + 1 == args.size()) return fail(args[i] + " needs a value");
      std::string& to = args[i] == "--blob" ? wish.name : wish.state;
      to = args[++i];
    } else if (args[i].starts_with("-")) {
      return fail("unknown option " + escape(args[i]));
    } else if (wish.id.empty()) {
      wish.id = args[i];
    } else {
      return fail("unexpected argument " + escape(args[i]));
    }
  }
  if (wish.id.empty()) return fail("which record?");
  if (wish.state.empty()) wish.state = default_state_dir();
  return wish;
}

Status erase(const Wish& wish) {
  CG_TRY(LogStore log, LogStore::open(wish.state));
  CG_CHECK(log.recover());
  CG_TRY(Index index, Index::open(wish.state));
  CG_TRY(const Explanation found, explain(index, wish.id));
  index.release();
  const kernel::Record& record = found.record;
  std::string names;
  for (const KeptOut& kept : found.kept_out) {
    if (kept.value && (wish.name.empty() || kept.name == wish.name))
      names += (names.empty() ? "" : ",") + kept.name;
  }
  if (names.empty()) return fail(record.id() + ": nothing that could be erased was kept out of it");
  // First the record: whoever finds the value gone finds who did it.
  CG_CHECK(record_admin(log, {.command = "certgate audit erase " + escape(wish.id),
                              .kind = kernel::RecordKind::kErased,
                              .object = record.id(),
                              .token = {},
                              .argument = names,
                              .why = "erased by uid " + std::to_string(::getuid())}));
  BlobStore blobs(log.dir_fd());
  CG_TRY(const size_t erased, blobs.erase(record, wish.name));
  fmt::print("{}: {} erased ({} blobs)\n", record.id(), names, erased);
  return ok();
}

}  // namespace

int audit_erase_main(const Args& args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const auto wish = parse(args);
  const Status done = wish ? erase(*wish) : Status(wish.error());
  if (done) return 0;
  std::fprintf(stderr, "certgate audit erase: %s\n%s", escape(done.error().what).c_str(),
               wish ? "" : kUsage);
  return kExitTrouble;
}

}  // namespace certgate::agentd::cli
