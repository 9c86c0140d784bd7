// certgate token key|new|narrow|show|revoke|rotate …

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <string>

#include "agentd/admin_record.h"
#include "agentd/cli/verbs.h"
#include "agentd/duration.h"
#include "agentd/holder_key.h"
#include "agentd/log_store.h"
#include "agentd/state_dir.h"
#include "agentd/token_make.h"
#include "agentd/token_store.h"

namespace certgate::agentd::cli {
namespace {

constexpr int kNo = 1, kUsageError = 2;
constexpr int64_t kDay_ns = 24ll * 3600 * 1'000'000'000;
constexpr const char* kUsage =
    "usage: certgate token key FILE\n"
    "       certgate token new --to HOLDER [LIMIT…] [-o FILE] [--state DIR]\n"
    "       certgate token narrow TOKEN --key FILE --to HOLDER [LIMIT…] [-o FILE]\n"
    "       certgate token show TOKEN\n"
    "       certgate token revoke ID [--state DIR]\n"
    "       certgate token rotate [--state DIR]\n\n"
    "key     makes a holder's key: FILE, FILE.pub\n"
    "new     a token of this state directory's authority\n"
    "narrow  a token for somebody else, made from one's own, offline; it cannot widen\n"
    "show    who may do what with it, each token of the chain, with its id\n"
    "revoke  ends one token, and all made from it, also in runs that use it now\n"
    "rotate  begins a new epoch: ends every token, and every run\n\n"
    "HOLDER: a public key file, or ed25519:… as show prints it\n"
    "LIMIT, of the token:\n"
    "  --budget N           calls, over all runs that use it\n"
    "  --rate N/T           N calls at once and N more in each T, like 100/1m\n"
    "  --expires T          from now: 90s, 15m, 2h, 7d (default: 24h)\n"
    "  --ttl T              from the start of each run\n"
    "and of what it reaches; each begins a scope of its own (none: all):\n"
    "  --exec P, --read P, --write P, --connect E\n"
    "                       a path pattern or an endpoint, as in a policy; '*': any\n"
    "  --scope-budget N, --scope-rate N/T\n"
    "                       of the scope just begun\n\n"
    "Exit status: 0 done, 1 not, 2 wrong usage.\n";

int trouble(const Error& error) {
  supervisor::print_line("certgate: " + escape(error.what));
  return kNo;
}
int usage_error(const std::string& what) {
  supervisor::print_line("certgate: " + what + "; see certgate token --help");
  return kUsageError;
}

int64_t now_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

Result<uint64_t> parse_count(const std::string& name, const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0)
    return fail(name + " must be a number from 1");
  return value;
}

Result<int64_t> parse_time(const std::string& name, const std::string& text) {
  const auto ns = parse_duration(text);
  if (!ns || *ns > uint64_t{INT64_MAX} / 4) return fail(name + " must be like 90s, 15m, 2h or 7d");
  return static_cast<int64_t>(*ns);
}

Result<kernel::Rate> parse_rate(const std::string& name, const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return fail(name + " must be like 100/1m");
  kernel::Rate out;
  CG_TRY(out.calls, parse_count(name, text.substr(0, slash)));
  CG_TRY(out.per_ns, parse_time(name, text.substr(slash + 1)));
  if (out.calls > static_cast<uint64_t>(out.per_ns)) return fail(name + " is no limit");
  return out;
}

// What was asked for on the command line.
struct Wish {
  kernel::Token token;
  std::string holder, key, out, state;
  int64_t lasts_ns = kDay_ns;
  std::vector<std::string> plain;
};

Status add_scope(kernel::Token& token, kernel::Verb verb, const std::string& pattern) {
  kernel::Scope scope;
  scope.verbs = {verb};
  if (pattern != "*" && verb == kernel::Verb::kConnect) {
    CG_TRY(kernel::EndpointPattern one, kernel::EndpointPattern::parse(pattern));
    scope.endpoints.push_back(std::move(one));
  } else if (pattern != "*") {
    CG_TRY(kernel::PathPattern one, kernel::PathPattern::parse(pattern));
    scope.paths.push_back(std::move(one));
  }
  if (token.scopes.size() == kernel::kMaxScopes) return fail("more than 31 scopes");
  token.scopes.push_back(std::move(scope));
  return ok();
}

using Setter = Status (*)(Wish& wish, const std::string& name, const std::string& value);
struct Option {
  const char* name;
  Setter set;
};

template <std::string Wish::*field>
Status text(Wish& wish, const std::string&, const std::string& value) {
  wish.*field = value;
  return ok();
}
template <kernel::Verb verb>
Status scope(Wish& wish, const std::string&, const std::string& value) {
  return add_scope(wish.token, verb, value);
}
Status set_budget(Wish& wish, const std::string& name, const std::string& value) {
  CG_TRY(wish.token.budget, parse_count(name, value));
  return ok();
}
Status set_rate(Wish& wish, const std::string& name, const std::string& value) {
  CG_TRY(wish.token.rate, parse_rate(name, value));
  return ok();
}
Status set_expires(Wish& wish, const std::string& name, const std::string& value) {
  CG_TRY(wish.lasts_ns, parse_time(name, value));
  return ok();
}
Status set_ttl(Wish& wish, const std::string& name, const std::string& value) {
  CG_TRY(wish.token.ttl_ns, parse_time(name, value));
  return ok();
}
Status set_scope_budget(Wish& wish, const std::string& name, const std::string& value) {
  if (wish.token.scopes.empty()) return fail(name + " comes after the scope it is for");
  CG_TRY(wish.token.scopes.back().budget, parse_count(name, value));
  return ok();
}
Status set_scope_rate(Wish& wish, const std::string& name, const std::string& value) {
  if (wish.token.scopes.empty()) return fail(name + " comes after the scope it is for");
  CG_TRY(wish.token.scopes.back().rate, parse_rate(name, value));
  return ok();
}

constexpr Option kOptions[] = {
    {"--to", text<&Wish::holder>},
    {"--key", text<&Wish::key>},
    {"-o", text<&Wish::out>},
    {"--state", text<&Wish::state>},
    {"--budget", set_budget},
    {"--rate", set_rate},
    {"--expires", set_expires},
    {"--ttl", set_ttl},
    {"--exec", scope<kernel::Verb::kExec>},
    {"--read", scope<kernel::Verb::kRead>},
    {"--write", scope<kernel::Verb::kWrite>},
    {"--connect", scope<kernel::Verb::kConnect>},
    {"--scope-budget", set_scope_budget},
    {"--scope-rate", set_scope_rate},
};

Result<Wish> parse(const Args& args) {
  Wish out;
  for (size_t i = 0; i < args.size(); ++i) {
    if (!args[i].starts_with("-")) {
      out.plain.push_back(args[i]);
      continue;
    }
    const size_t equals = args[i].starts_with("--") ? args[i].find('=') : std::string::npos;
    const std::string name = args[i].substr(0, equals);
    const Option* option = nullptr;
    for (const Option& o : kOptions) {
      if (name == o.name) option = &o;
    }
    if (option == nullptr) return fail("no such option: " + escape(name));
    if (equals == std::string::npos && i + 1 == args.size()) return fail(name + " needs a value");
    const std::string value = equals == std::string::npos ? args[++i] : args[i].substr(equals + 1);
    if (value.empty()) return fail(name + " needs a value");
    CG_CHECK(option->set(out, name, value));
  }
  return out;
}

Status write_out(const Wish& wish, const std::string& lines) {
  if (wish.out.empty()) {
    fmt::print("{}", lines);
    return ok();
  }
  const sandbox::UniqueFd fd(
      ::open(wish.out.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return fail_errno("write " + wish.out, errno);
  return write_all(fd.get(), lines.data(), lines.size(), wish.out);
}

std::string when(int64_t ns) {
  const time_t seconds = static_cast<time_t>(ns / 1'000'000'000);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  char out[32];
  return {out, ::strftime(out, sizeof out, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string limits(uint64_t budget, const kernel::Rate& rate) {
  std::string out;
  if (budget != 0) out += fmt::format(", {} calls", budget);
  if (rate.calls != 0)
    out += fmt::format(", {} calls each {} s", rate.calls, static_cast<double>(rate.per_ns) / 1e9);
  return out;
}

void print_token(const kernel::Token& token) {
  fmt::print("token   {}\n", token.id);
  fmt::print("holder  {}\n", escape(token.holder));
  fmt::print("issuer  {}\n", escape(token.issuer));
  fmt::print("valid   {} to {}, epoch {}{}\n", when(token.not_before_ns), when(token.expires_ns),
             token.epoch, limits(token.budget, token.rate));
  if (token.ttl_ns != 0)
    fmt::print("ttl     {} s of each run\n", static_cast<double>(token.ttl_ns) / 1e9);
  for (const kernel::Scope& one : token.scopes) {
    std::vector<std::string> verbs, objects;
    for (const kernel::Verb verb : one.verbs) verbs.emplace_back(kernel::verb_text(verb));
    for (const auto& path : one.paths) objects.push_back(escape(path.text()));
    for (const auto& endpoint : one.endpoints) objects.push_back(escape(endpoint.text()));
    fmt::print("scope   {} {}{}\n", fmt::join(verbs, "+"),
               objects.empty() ? "anything" : fmt::format("{}", fmt::join(objects, " ")),
               limits(one.budget, one.rate));
  }
}

Result<std::string> state_dir(const Wish& wish) {
  const std::string out = wish.state.empty() ? default_state_dir() : wish.state;
  if (out.empty()) return fail("no state directory: set HOME or XDG_STATE_HOME, or give --state");
  return out;
}

Status fill(Wish& wish) {
  CG_TRY(wish.token.nonce, random_hex(8));
  CG_TRY(wish.token.holder, read_holder(wish.holder));
  wish.token.not_before_ns = now_ns() - 1'000'000'000;
  wish.token.expires_ns = now_ns() + wish.lasts_ns;
  return ok();
}

int make_key(Wish& wish) {
  if (wish.plain.size() != 1) return usage_error("key takes one file");
  const auto key = HolderKey::make(wish.plain[0]);
  if (!key) return trouble(key.error());
  fmt::print("holder  {}\n", key->holder());
  return 0;
}

Status make_new(Wish& wish) {
  CG_CHECK(fill(wish));
  if (wish.token.scopes.empty()) wish.token.scopes = kernel::every_scope();
  CG_TRY(const std::string dir, state_dir(wish));
  CG_TRY(LogStore log, LogStore::open(dir));
  CG_CHECK(log.recover());
  CG_TRY(const TokenStore tokens, TokenStore::open(log.dir_fd()));
  wish.token.epoch = tokens.epoch();
  CG_TRY(const std::string line, seal_token(wish.token, log.key().name(), log.key()));
  CG_TRY(const kernel::Token made, kernel::verify_token(line, log.key().public_key()));
  CG_CHECK(record_admin(log, {.command = "certgate token new",
                              .kind = kernel::RecordKind::kToken,
                              .object = line,
                              .token = made.id}));
  return write_out(wish, line + "\n");
}

int new_token(Wish& wish) {
  if (!wish.plain.empty() || wish.holder.empty()) return usage_error("new needs --to");
  if (!wish.key.empty()) return usage_error("new is signed by the authority, not with --key");
  const Status made = make_new(wish);
  return made ? 0 : trouble(made.error());
}

Status narrow(Wish& wish) {
  CG_TRY(std::string lines, read_chain_file(wish.plain[0]));
  CG_TRY(const kernel::TokenChain chain, kernel::read_chain(lines));
  CG_TRY(const HolderKey key, HolderKey::read(wish.key));
  const kernel::Token& last = chain.back();
  if (key.holder() != last.holder)
    return fail("the key is " + key.holder() + ", the token is held by " + last.holder);
  CG_CHECK(fill(wish));
  narrow_to(last, wish.token);
  CG_TRY(const std::string line, seal_token(wish.token, last.holder, key));
  if (!lines.ends_with('\n')) lines += '\n';
  lines += line + '\n';
  CG_CHECK(kernel::read_chain(lines));  // what would be refused is not given out
  return write_out(wish, lines);
}

int narrow_token(Wish& wish) {
  if (wish.plain.size() != 1 || wish.holder.empty() || wish.key.empty())
    return usage_error("narrow takes one token, --key and --to");
  if (!wish.state.empty()) return usage_error("narrow needs no authority, so no --state");
  const Status made = narrow(wish);
  return made ? 0 : trouble(made.error());
}

int show(Wish& wish) {
  if (wish.plain.size() != 1) return usage_error("show takes one token");
  const auto lines = read_chain_file(wish.plain[0]);
  const auto chain = lines ? kernel::read_chain(*lines) : Result<kernel::TokenChain>(lines.error());
  if (!chain) return trouble(chain.error());
  for (size_t i = 0; i < chain->size(); ++i) {
    if (i > 0) fmt::print("\n");
    print_token((*chain)[i]);
  }
  fmt::print("\nThe first signature is checked where the token is used.\n");
  return 0;
}

// The state directory's log and store, the act, then its record.
Status revoke(const Wish& wish) {
  CG_TRY(const std::string dir, state_dir(wish));
  CG_TRY(LogStore log, LogStore::open(dir));
  CG_TRY(const TokenStore tokens, TokenStore::open(log.dir_fd()));
  CG_CHECK(tokens.revoke(wish.plain[0]));
  CG_CHECK(log.recover());
  return record_admin(log, {.command = "certgate token revoke " + wish.plain[0],
                            .kind = kernel::RecordKind::kRevoke,
                            .object = {},
                            .token = wish.plain[0]});
}

int revoke_token(Wish& wish) {
  if (wish.plain.size() != 1) return usage_error("revoke takes one id");
  const Status done = revoke(wish);
  return done ? 0 : trouble(done.error());
}

Result<uint64_t> rotate(const Wish& wish) {
  CG_TRY(const std::string dir, state_dir(wish));
  CG_TRY(LogStore log, LogStore::open(dir));
  CG_TRY(TokenStore tokens, TokenStore::open(log.dir_fd()));
  CG_TRY(const uint64_t epoch, tokens.rotate());
  CG_CHECK(log.recover());
  CG_CHECK(record_admin(log, {.command = "certgate token rotate",
                              .kind = kernel::RecordKind::kEpoch,
                              .object = {},
                              .token = {},
                              .count = epoch}));
  return epoch;
}

int rotate_epoch(Wish& wish) {
  if (!wish.plain.empty()) return usage_error("rotate takes no argument");
  const auto epoch = rotate(wish);
  if (!epoch) return trouble(epoch.error());
  fmt::print("epoch {}: every token made before is over\n", *epoch);
  return 0;
}

struct Command {
  const char* name;
  int (*run)(Wish& wish);
};
constexpr Command kCommands[] = {{"key", make_key},        {"new", new_token},
                                 {"narrow", narrow_token}, {"show", show},
                                 {"revoke", revoke_token}, {"rotate", rotate_epoch}};

}  // namespace

int token_main(const Args& args) {
  if (args.empty()) return usage_error("which command?");
  if (args[0] == "--help" || args[0] == "-h") {
    fmt::print("{}", kUsage);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (args[0] != command.name) continue;
    auto wish = parse(Args(args.begin() + 1, args.end()));
    return wish ? command.run(*wish) : usage_error(escape(wish.error().what));
  }
  return usage_error("no such command: " + escape(args[0]));
}

}  // namespace certgate::agentd::cli
