// certgate audit: reads the log. Changes nothing, but that somebody read it becomes a record.
#include <cstring>
#include <iostream>

#include "agentd/cli/audit_verbs.h"
#include "agentd/cli/completion.h"

namespace certgate::agentd::cli {
namespace {

constexpr size_t kMany = 256;

constexpr AuditVerb kVerbs[] = {
    {"list", audit_list, 0, 0, "@filters",
     "list [FILTER…]              what agents did, oldest first"},
    {"tail", audit_tail, 0, 0, "@filters follow",
     "tail [-n N] [-f] [FILTER…]  the last records; -f: and what comes"},
    {"runs", audit_runs, 0, 0, "",
     "runs                        every run: command, verdicts, how it ended"},
    {"timeline", audit_timeline, 0, 1, "@filters",
     "timeline [RUN] [FILTER…]    what happened, step by step"},
    {"tree", audit_tree, 1, 1, "",
     "tree RUN                    its processes and what they executed"},
    {"why", audit_why, 1, 1, "origin=",
     "why ID [--origin O]         why a call was allowed or refused, and by what way an origin "
     "came"},
    {"impact", audit_impact, 1, 1,
     "limit=", "impact ORIGIN|FILE|ID       what was done under its influence, in every run"},
    {"path", audit_path, 2, 2, "",
     "path A B                    the shortest causal path, A: ORIGIN|FILE|ID, B: FILE|ID"},
    {"diff", audit_diff, 2, 2, "", "diff RUN1 RUN2              what only one of them did"},
    {"complete", audit_complete, 0, 0, "",
     "complete                    is any run without an end, a gap, a lost record?"},
    {"reads", audit_reads, 0, 0,
     "since= until= limit= last=", "reads                       who has read this log"},
    {"sql", audit_sql, 1, 1,
     "limit=", "sql QUERY                   the index, read-only (tables: agentd/index/index.h)"},
    {"reindex", audit_reindex, 0, 0, "",
     "reindex                     makes the index anew from the log"},
    {"verify", audit_verify, 0, 0, "key= checkpoint= witness=",
     "verify [--key KEY] [--checkpoint FILE] [--witness KEY]…\n"
     "                              unaltered? complete? witnessed?"},
    {"recheck", audit_recheck, 0, 1, "key=",
     "recheck ID|--all [--key KEY]\n"
     "                              do certificates follow from the records alone?"},
    {"prove", audit_prove, 0, 1, "since=",
     "prove ID > x.tlog-proof     that the record is in the log (C2SP tlog-proof)\n"
     "       certgate audit prove --since CHECKPOINT > x.proof   that the log continues that one"},
    {"pack", audit_pack, 1, kMany,
     "output=", "pack ID… -o FILE            records, proofs, checkpoint and report in one file"},
    {"check", audit_check, 1, 1, "key= record= old=",
     "check FILE --key KEY [--record FILE] [--old CHECKPOINT]\n"
     "                              is this proof or pack good? Offline; needs no log"},
    {"export", audit_export, 0, 0, "@filters format= output=",
     "export --format jsonl|ocsf|prov-json|auditd|dot|perfetto|otlp [FILTER…]"},
};

// Commands that change what is kept, each with arguments of its own.
struct Keeper {
  const char* name;
  int (*run)(const Args& args);
  const char* usage;
};
constexpr Keeper kKeepers[] = {
    {"prune", audit_prune_main, "prune …                     removes old records (--help)"},
    {"erase", audit_erase_main, "erase ID …                  erases what was kept out of a record"},
    {"witness", audit_witness_main, "witness serve|add …         cosigns the logs of other hosts"}};

void print_usage(std::ostream& out) {
  out << "usage:";
  bool first = true;
  for (const AuditVerb& verb : kVerbs) {
    out << (first ? " certgate audit " : "       certgate audit ") << verb.usage << '\n';
    first = false;
  }
  for (const Keeper& keeper : kKeepers) out << "       certgate audit " << keeper.usage << '\n';
  out << "every verb: [--json] [--state DIR] [--no-pager] [--wide] [--all]\n"
         "FILTER: --agent RUN --call NAME --verb exec|read|write|connect --verdict "
         "allowed|observed|refused\n"
         "        --kind K --rule R --reason CODE --origin O --object PATH|GLOB --pid N --since "
         "TIME "
         "--until TIME\n"
         "        --limit N --last N --where EXPRESSION, as in\n"
         "        --where 'verdict=refused and object~\"/etc/*\" and (origin=web:* or errno>0)'\n"
         "        fields: "
      << where_fields()
      << "\n"
         "        TIME: 2026-11-28T17:00:00Z, or before now: -2h\n"
         "KEY is the line of key.pub as you kept it elsewhere; without it verify takes the one "
         "beside the log\n"
         "exit status: 0 yes, 1 no, 2 it could not be read or the command line is wrong\n";
}

}  // namespace

std::vector<std::string> audit_names() {
  std::vector<std::string> names;
  for (const AuditVerb& verb : kVerbs) names.push_back(verb.name);
  for (const Keeper& keeper : kKeepers) names.push_back(keeper.name);
  return names;
}

std::vector<std::string> audit_options(const std::string& name) {
  for (const AuditVerb& verb : kVerbs) {
    if (name == verb.name) return option_names(verb.options);
  }
  return {};
}

int audit_main(const Args& args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h" || args[0] == "help")) {
    print_usage(std::cout);
    return 0;
  }
  for (const Keeper& keeper : kKeepers) {
    if (!args.empty() && args[0] == keeper.name)
      return keeper.run(Args(args.begin() + 1, args.end()));
  }
  const Error error = fail(args.empty() ? "which one?" : "unknown: audit " + escape(args[0]));
  for (const AuditVerb& verb : kVerbs) {
    if (args.empty() || args[0] != verb.name) continue;
    for (size_t i = 1; i < args.size() && args[i] != "--"; ++i) {
      if (args[i] != "--help" && args[i] != "-h") continue;
      std::cout << "usage: certgate audit " << verb.usage
                << "\n(`certgate audit --help` lists filters and exit status)\n";
      return 0;
    }
    Result<Options> options = parse_audit(verb, Args(args.begin() + 1, args.end()));
    if (options) return verb.run(*options);
    std::cerr << "certgate audit: " << options.error().what << "\nusage: certgate audit "
              << verb.usage << '\n';
    return kExitTrouble;
  }
  std::cerr << "certgate audit: " << error.what << '\n';
  print_usage(std::cerr);
  return kExitTrouble;
}

}  // namespace certgate::agentd::cli
