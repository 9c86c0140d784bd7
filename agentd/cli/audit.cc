// certgate audit: reads the log. Needs no key and changes nothing.
#include <iostream>

#include "agentd/audit_recheck.h"
#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "agentd/log_verify.h"
#include "agentd/note.h"

namespace certgate::agentd::cli {
namespace {

constexpr int kExitNo = 1;
constexpr int kExitTrouble = 2;
constexpr char kUsage[] =
    "usage: certgate audit list [--json] [--state DIR]       every record, oldest first\n"
    "       certgate audit why ID [--json] [--state DIR]     why one call was allowed or refused\n"
    "       certgate audit verify [--json] [--state DIR] [--key KEY]\n"
    "                                                        is the log whole and unaltered?\n"
    "       certgate audit recheck ID|--all [--json] [--state DIR] [--key KEY]\n"
    "                                                        does it follow from the records "
    "alone?\n"
    "       certgate audit prune …                           remove old records (--help says "
    "more)\n"
    "       certgate audit erase ID …                        erase what was kept out of a record\n"
    "       certgate audit witness serve|add …               cosign the logs of other hosts\n"
    "KEY is the line of key.pub as you kept it elsewhere; without it the one beside the log is "
    "used\n"
    "exit status: 0 yes, 1 no, 2 it could not be read or the command line is wrong\n";

// Commands that change what is kept, each in a file of its own.
struct Keeper {
  const char* name;
  int (*run)(const Args& args);
};
constexpr Keeper kKeepers[] = {
    {"prune", audit_prune_main}, {"erase", audit_erase_main}, {"witness", audit_witness_main}};

struct Options {
  std::string verb, id, state, key;
  bool all = false;  // recheck
  Format format = Format::kText;
};

Result<Options> parse(const Args& args) {
  Options options;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg == "--json") {
      options.format = Format::kJson;
    } else if (arg == "--state") {
      if (++i == args.size()) return fail("--state needs a directory");
      options.state = args[i];
    } else if (arg.starts_with("--state=")) {
      options.state = arg.substr(sizeof("--state=") - 1);
    } else if (arg == "--key") {
      if (++i == args.size()) return fail("--key needs the line of a key.pub");
      options.key = args[i];
    } else if (arg == "--all") {
      options.all = true;
    } else if (arg.starts_with("-")) {
      return fail("unknown option " + escape(arg));
    } else if (options.verb.empty()) {
      options.verb = arg;
    } else if ((options.verb == "why" || options.verb == "recheck") && options.id.empty()) {
      options.id = arg;
    } else {
      return fail("unexpected argument " + escape(arg));
    }
  }
  if (options.verb != "list" && options.verb != "why" && options.verb != "verify" &&
      options.verb != "recheck") {
    return fail(options.verb.empty() ? "list, why, verify or recheck?"
                                     : "unknown: audit " + escape(options.verb));
  }
  if (options.verb == "why" && options.id.empty()) return fail("audit why needs an ID");
  if (options.verb == "recheck" && options.id.empty() != options.all)
    return fail("audit recheck needs an ID, or --all");
  if (options.verb != "recheck" && options.all) return fail("--all is for audit recheck");
  if (options.verb != "verify" && options.verb != "recheck" && !options.key.empty())
    return fail("--key is for audit verify and recheck");
  if (options.state.empty()) options.state = default_state_dir();
  return options;
}

int trouble(const Error& error) {
  std::cout.flush();
  std::cerr << "certgate audit: " << escape(error.what) << '\n';
  return kExitTrouble;
}

int list(const Options& options) {
  Result<LogSnapshot> log = LogSnapshot::open(options.state);
  if (!log) return trouble(log.error());
  if (Status done = list_records(*log, options.format, std::cout); !done)
    return trouble(done.error());
  return std::cout.flush() ? 0 : trouble(fail("the output was closed"));
}

int why(const Options& options) {
  Result<LogSnapshot> log = LogSnapshot::open(options.state);
  if (!log) return trouble(log.error());
  Result<Explanation> explanation = explain(*log, options.id);
  if (!explanation) return trouble(explanation.error());
  print_explanation(*explanation, options.format, std::cout);
  return std::cout.flush() ? 0 : trouble(fail("the output was closed"));
}

Result<RecheckReport> recheck_log(const Options& options) {
  CG_TRY(const LogSnapshot log, LogSnapshot::open(options.state));
  CG_TRY(const VerifierKey key, log.key());
  if (!options.key.empty() && key.text() != options.key)
    return fail("key.pub is " + key.text() + ", not the key that was asked for");
  return recheck(log, key, options.id);
}

int recheck(const Options& options) {
  const Result<RecheckReport> report = recheck_log(options);
  if (!report) return trouble(report.error());
  const bool good = report->failed == 0;
  if (options.format == Format::kJson) {
    std::vector<std::string> faults;
    for (const RecordFault& f : report->faults)
      faults.push_back(f.id + ": " + f.step + ": " + f.what);
    JsonObject object;
    object.text("verdict", good ? "yes" : "no").number("certificates", report->certificates);
    object.number("failed", report->failed).text("id", report->id).text("rules", report->rules);
    std::cout << object.list("faults", faults).str() << '\n';
  } else {
    for (const RecordFault& f : report->faults)
      std::cout << "no: " << escape(f.id) << ": " << f.step << ": " << escape(f.what) << '\n';
    if (!good) {
      std::cout << "no: " << report->failed << " of " << report->certificates << " certificates\n";
    } else if (!report->id.empty()) {
      std::cout << "yes: " << escape(report->id) << ", allowed by " << escape(report->rules)
                << '\n';
    } else {
      std::cout << "yes: " << report->certificates << " certificates of " << report->runs
                << " runs\n";
    }
  }
  if (!std::cout.flush()) return trouble(fail("the output was closed"));
  return good ? 0 : kExitNo;
}

int verify(const Options& options) {
  const Result<VerifyReport> report = verify_log(options.state, options.key);
  if (!report) return trouble(report.error());
  const std::string root = base64_encode(report->root.data(), report->root.size());
  if (options.format == Format::kJson) {
    JsonObject object;
    object.text("verdict", report->good ? "yes" : "no").number("records", report->records);
    object.text("root", root).text("where", report->where).text("what", report->what);
    std::cout << object.list("notes", report->notes).str() << '\n';
  } else {
    for (const std::string& note : report->notes) std::cout << "note: " << escape(note) << '\n';
    if (report->good) {
      std::cout << "yes: " << report->records << " records, root " << root << '\n';
    } else {
      std::cout << "no: " << escape(report->where) << ": " << escape(report->what) << '\n';
    }
  }
  if (!std::cout.flush()) return trouble(fail("the output was closed"));
  return report->good ? 0 : kExitNo;
}

}  // namespace

int audit_main(const Args& args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h" || args[0] == "help")) {
    std::cout << kUsage;
    return 0;
  }
  for (const Keeper& keeper : kKeepers) {
    if (!args.empty() && args[0] == keeper.name)
      return keeper.run(Args(args.begin() + 1, args.end()));
  }
  const Result<Options> options = parse(args);
  if (!options) {
    std::cerr << "certgate audit: " << options.error().what << '\n' << kUsage;
    return kExitTrouble;
  }
  if (options->verb == "list") return list(*options);
  if (options->verb == "recheck") return recheck(*options);
  return options->verb == "why" ? why(*options) : verify(*options);
}

}  // namespace certgate::agentd::cli
