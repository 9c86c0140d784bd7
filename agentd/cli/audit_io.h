// What the subverbs of `certgate audit` share: options, the screen, and the record of the reading.
//
//   CG_TRY(Options options, parse(row, args));
//   CG_TRY(Index index, open_index(options));        // notes go to stderr; the reading is recorded
//   Screen screen(options);                          // a pager on a terminal, as git does
//   screen.line(text);                               // cut to the terminal's width
//
// Exit status: 0 yes, 1 no, 2 it could not be read or the command line is wrong.
#pragma once

#include <iosfwd>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "agentd/index/index.h"
#include "agentd/index/where.h"

namespace certgate::agentd::cli {

inline constexpr int kExitNo = 1;
inline constexpr int kExitTrouble = 2;

struct Options {
  std::vector<std::string> args;
  std::string state, command;  // the command line, for the record of the reading
  Format format = Format::kText;
  std::map<std::string, std::vector<std::string>> values;
  std::set<std::string> flags;

  bool has(const std::string& name) const { return flags.contains(name) || values.contains(name); }
  std::string value(const std::string& name, const std::string& otherwise = "") const;
};

// One subverb. `options`: those it takes, "name=" with a value, "name" without, separated by
// spaces;
// "@filters" stands for those of list.
struct AuditVerb {
  const char* name;
  int (*run)(const Options&);
  size_t min_args, max_args;
  const char* options;
  const char* usage;
};
Result<Options> parse_audit(const AuditVerb& verb, const Args& args);

int trouble(const Error& error);  // says it on stderr; kExitTrouble
// A whole number from 1 to `max`.
Result<uint64_t> count_option(const Options& options, const char* name, uint64_t otherwise,
                              uint64_t max);
int64_t now_ns();

enum class Reading : uint8_t { kRecorded, kNotEvidence };
Result<Index> open_index(const Options& options, Reading reading = Reading::kRecorded);
// Appends an audit-read record; what keeps it from being made is said on stderr.
void record_reading(const Options& options);

// --agent, --call, … --where as one condition over "record r"; hides the self-test's refusals and
// the runs that are readings, unless --all. kHidden: exits of processes too, unless a kind is
// asked.
enum class Exits : uint8_t { kShown, kHidden };
Result<Condition> filters(const Options& options, Index& index, Exits exits = Exits::kShown);

class Screen {
 public:
  // `index`: released before the pager is waited for, or before what is not sealed yet is shown.
  explicit Screen(const Options& options, Index* index = nullptr);
  ~Screen();  // waits for the pager
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  std::ostream& out() { return *out_; }
  // One line of trusted or escaped text, cut to the width of a terminal.
  void line(const std::string& text);
  // Text in a colour when the screen has colours: 31 red, 32 green, 33 yellow, 1 bold, 2 faint.
  std::string colour(int code, const std::string& text) const;
  // The exit status: trouble when the output was closed.
  int done(int status);

 private:
  bool start_pager();
  void give();  // what was held back
  std::ostream* out_;
  Index* index_;
  std::ostringstream held_;
  size_t width_ = 0;  // 0: not a terminal, lines stay whole
  bool colours_ = false;
  int pager_ = -1, saved_ = -1;
};

}  // namespace certgate::agentd::cli
