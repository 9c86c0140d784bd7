#include "agentd/cli/audit_io.h"

#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "agentd/admin_record.h"
#include "agentd/cli/completion.h"
#include "agentd/log_store.h"

namespace certgate::agentd::cli {
namespace {

constexpr const char* kCommon = "json state= no-pager wide all";
constexpr const char* kFilters =
    "agent= run= call= verb= verdict= kind= rule= reason= origin= object= pid= since= until= "
    "where= limit= last=";

std::string environment(const char* name) {
  const char* const value = ::getenv(name);
  return value == nullptr ? std::string() : value;
}

// Whether a list of options has this one; with '=' it takes a value.
enum class Kind : uint8_t { kUnknown, kFlag, kValue };
Kind kind_of(const std::string& name, const char* list) {
  std::istringstream words(list);
  for (std::string word; words >> word;) {
    if (word == name) return Kind::kFlag;
    if (word == name + '=') return Kind::kValue;
    if (word == "@filters") {
      if (const Kind found = kind_of(name, kFilters); found != Kind::kUnknown) return found;
    }
  }
  return Kind::kUnknown;
}

std::string who_reads() {
  std::string who = "uid " + std::to_string(::getuid());
  if (const passwd* user = ::getpwuid(::getuid()); user != nullptr)
    who += std::string(" (") + user->pw_name + ')';
  if (const char* terminal = ::ttyname(STDERR_FILENO); terminal != nullptr)
    who += std::string(" on ") + terminal;
  return who;
}

// Cut after so many characters; sequences that colour count nothing.
std::string cut(const std::string& text, size_t width) {
  size_t shown = 0, at = 0;
  bool coloured = false;
  while (at < text.size()) {
    if (text[at] == '\x1b') {
      at = text.find('m', at);
      at = at == std::string::npos ? text.size() : at + 1;
      coloured = true;
      continue;
    }
    if (shown + 1 == width && at + 1 < text.size())
      return text.substr(0, at) + "…" + (coloured ? "\x1b[0m" : "");
    for (++at; at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80;) ++at;
    ++shown;
  }
  return text;
}

}  // namespace

std::string Options::value(const std::string& name, const std::string& otherwise) const {
  const auto found = values.find(name);
  return found == values.end() ? otherwise : found->second.back();
}

Result<Options> parse_audit(const AuditVerb& verb, const Args& args) {
  Options options;
  options.command = std::string("certgate audit ") + verb.name;
  bool words = false;  // after "--" everything is an argument
  for (size_t i = 0; i < args.size(); ++i) {
    std::string arg = args[i];
    options.command += ' ' + arg;
    if (words || !arg.starts_with('-') || arg == "-") {
      options.args.push_back(arg);
      continue;
    }
    if (arg == "--") {
      words = true;
      continue;
    }
    if (arg == "-o") arg = "--output";
    if (arg == "-n") arg = "--last";
    if (arg == "-f") arg = "--follow";
    if (!arg.starts_with("--")) return fail("unknown option " + escape(arg));
    const size_t equal = arg.find('=');
    const std::string name = arg.substr(2, equal == std::string::npos ? equal : equal - 2);
    Kind kind = kind_of(name, kCommon);
    if (kind == Kind::kUnknown) kind = kind_of(name, verb.options);
    if (kind == Kind::kUnknown) return fail("unknown option " + escape(arg));
    if (kind == Kind::kFlag) {
      if (equal != std::string::npos) return fail("--" + name + " takes no value");
      options.flags.insert(name);
    } else if (equal != std::string::npos) {
      options.values[name].push_back(arg.substr(equal + 1));
    } else {
      if (++i == args.size()) return fail("--" + name + " needs a value");
      options.command += ' ' + args[i];
      options.values[name].push_back(args[i]);
    }
  }
  if (options.args.size() < verb.min_args)
    return fail(std::string("audit ") + verb.name + " needs more: " + verb.usage);
  if (options.args.size() > verb.max_args)
    return fail("unexpected argument " + escape(options.args[verb.max_args]));
  options.format = options.flags.contains("json") ? Format::kJson : Format::kText;
  options.state = options.value("state", default_state_dir());
  return options;
}

std::vector<std::string> option_names(const char* list) {
  std::vector<std::string> names;
  std::istringstream words(std::string(kCommon) + ' ' + list);
  for (std::string word; words >> word;) {
    if (word == "@filters") {
      std::istringstream filters_of(kFilters);
      for (std::string one; filters_of >> one;) names.push_back("--" + one);
    } else {
      names.push_back("--" + word);
    }
  }
  for (std::string& name : names) {
    if (name.ends_with('=')) name.pop_back();
  }
  return names;
}

int trouble(const Error& error) {
  std::cout.flush();
  std::cerr << "certgate audit: " << escape(error.what) << '\n';
  return kExitTrouble;
}

Result<uint64_t> count_option(const Options& options, const char* name, uint64_t otherwise,
                              uint64_t max) {
  if (!options.has(name)) return otherwise;
  const std::string text = options.value(name);
  uint64_t value = 0;
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || at != text.data() + text.size() || value == 0 ||
      value > max)
    return fail(std::string("--") + name + ": a number from 1 to " + std::to_string(max));
  return value;
}

int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

void record_reading(const Options& options) {
  auto done = [&]() -> Status {
    // Without its key it is a copy: nothing can be added, and no key may be made.
    if (::access((options.state + "/key").c_str(), R_OK) != 0)
      return fail("its signing key is not readable for you (a copy, or another user's log)");
    CG_TRY(LogStore store, LogStore::open(options.state));
    AdminAct act;
    act.command = escape(options.command);
    act.kind = kernel::RecordKind::kAuditRead;
    act.object = who_reads();
    return record_admin(store, act);
  };
  if (const Status recorded = done(); !recorded)
    std::cerr << "certgate audit: this reading is not recorded: " << escape(recorded.error().what)
              << '\n';
}

Result<Index> open_index(const Options& options, Reading reading) {
  CG_TRY(Index index, Index::open(options.state));
  if (!index.note().empty()) std::cerr << "certgate audit: " << escape(index.note()) << '\n';
  if (reading == Reading::kRecorded) record_reading(options);
  return index;
}

Result<Condition> filters(const Options& options, Index& index, Exits exits) {
  Condition all;
  const int64_t now = now_ns();
  for (const char* field :
       {"call", "verb", "verdict", "kind", "rule", "reason", "origin", "object", "pid"}) {
    const auto given = options.values.find(field);
    if (given == options.values.end()) continue;
    Condition any{"0", {}};
    for (const std::string& value : given->second) {  // of one option given twice, either
      const bool glob =
          std::strcmp(field, "object") == 0 && value.find_first_of("*?[") != std::string::npos;
      CG_TRY(const Condition one, where_one(field, glob ? "~" : "=", value, now));
      any.sql += " OR " + one.sql;
      any.values.insert(any.values.end(), one.values.begin(), one.values.end());
    }
    any.sql = "(" + any.sql + ")";
    all.add(any);
  }
  for (const char* name : {"agent", "run"}) {
    if (!options.has(name)) continue;
    CG_TRY(const int64_t run, index.find_run(options.value(name)));
    all.add({"r.run = ?", {run}});
  }
  for (const auto& [name, op] : {std::pair{"since", ">="}, {"until", "<="}}) {
    if (!options.has(name)) continue;
    Result<int64_t> time = parse_time(options.value(name), now);
    if (!time) return fail(std::string("--") + name + ": " + time.error().what);
    all.add({std::string("r.wall ") + op + " ?", {*time}});
  }
  if (options.has("where")) {
    for (const std::string& text : options.values.at("where")) {
      CG_TRY(const Condition one, compile_where(text, now));
      all.add(one);
    }
  }
  if (exits == Exits::kHidden && !options.has("all") && !options.has("kind") && !all.by_kind)
    all.add({"r.kind <> 19", {}});
  if (!options.has("all")) {
    all.add({"r.run NOT IN (SELECT id FROM run WHERE reading)", {}});
    // Its refusals only: the stop of a run that it did not let start says why.
    all.add({"(r.kind <> 3 OR r.grade IS NULL OR "
             "r.grade NOT IN (SELECT id FROM text WHERE value = 'self-test'))",
             {}});
  }
  return all;
}

Screen::Screen(const Options& options, Index* index) : out_(&std::cout), index_(index) {
  // Records that are not sealed stand in a transaction that others wait for: a slow reader of our
  // output must not hold it.
  if (index_ != nullptr && index_->unsealed() > 0) out_ = &held_;
  if (options.format == Format::kJson || ::isatty(STDOUT_FILENO) != 1) return;
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && !options.has("wide")) width_ = size.ws_col;
  const std::string terminal = environment("TERM");
  colours_ = environment("NO_COLOR").empty() && !terminal.empty() && terminal != "dumb";
  if (!options.has("no-pager") && !options.has("follow")) start_pager();
}

// As git: $CERTGATE_PAGER, else $PAGER, else less, with LESS=FRX unless it is set; "" and cat mean
// none.
bool Screen::start_pager() {
  const char* chosen = ::getenv("CERTGATE_PAGER");
  if (chosen == nullptr) chosen = ::getenv("PAGER");
  const std::string pager = chosen == nullptr ? "less" : chosen;
  if (pager.empty() || pager == "cat") return false;
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  std::cout.flush();
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[0], STDIN_FILENO);
    ::setenv("LESS", "FRX", 0);
    ::execl("/bin/sh", "sh", "-c", pager.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
  }
  ::close(ends[0]);
  if (child < 0) {
    ::close(ends[1]);
    return false;
  }
  saved_ = ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  ::dup2(ends[1], STDOUT_FILENO);
  ::close(ends[1]);
  ::signal(SIGPIPE, SIG_IGN);  // who leaves the pager has seen enough
  pager_ = child;
  return true;
}

void Screen::give() {
  if (index_ != nullptr) index_->release();
  index_ = nullptr;
  if (out_ == &std::cout) return;
  out_ = &std::cout;
  *out_ << held_.str();
}

Screen::~Screen() {
  give();
  if (pager_ < 0) return;
  std::cout.flush();
  ::dup2(saved_, STDOUT_FILENO);  // closes the pipe: the pager sees the end
  ::close(saved_);
  int status = 0;
  while (::waitpid(pager_, &status, 0) < 0 && errno == EINTR) {
  }
  std::cout.clear();
}

void Screen::line(const std::string& text) {
  *out_ << (width_ > 8 ? cut(text, width_) : text) << '\n';
}

std::string Screen::colour(int code, const std::string& text) const {
  return colours_ && !text.empty() ? "\x1b[" + std::to_string(code) + 'm' + text + "\x1b[0m" : text;
}

int Screen::done(int status) {
  give();
  if (out_->flush() || pager_ >= 0) return status;
  return trouble(fail("the output was closed"));
}

}  // namespace certgate::agentd::cli
