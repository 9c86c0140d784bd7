// certgate audit witness: hosts cosign each other's logs (C2SP tlog-witness).
#include <fmt/format.h>

#include <cstdio>

#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "agentd/state_dir.h"
#include "agentd/witness_client.h"
#include "agentd/witness_server.h"

namespace certgate::agentd::cli {
namespace {

constexpr int kExitTrouble = 2;
constexpr char kUsage[] =
    "usage: certgate audit witness serve --listen ADDRESS:PORT --key FILE --log VKEY… [--name "
    "NAME]\n"
    "                                    [--state DIR]\n"
    "       certgate audit witness add URL --key VKEY [--state DIR]\n\n"
    "serve signs that logs only grow: POST /add-checkpoint, for each log whose key (the line of "
    "its\n"
    "key.pub) is named with --log. FILE is made by `certgate token key`. The first line of output "
    "is the\nwitness's own VKEY, for those who ask it.\n"
    "add asks the witness at URL to cosign this log's latest checkpoint, and keeps what it says "
    "in\n"
    "the file `cosigned` of the state directory.\n";

struct Wish {
  std::string verb, url, listen, key, name = "certgate.witness", state;
  std::vector<std::string> logs;
};

Result<Wish> parse(const Args& args) {
  Wish wish;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    if (arg.starts_with("--")) {
      if (i + 1 == args.size()) return fail(escape(arg) + " needs a value");
      const std::string& value = args[++i];
      if (arg == "--listen") {
        wish.listen = value;
      } else if (arg == "--key") {
        wish.key = value;
      } else if (arg == "--name") {
        wish.name = value;
      } else if (arg == "--state") {
        wish.state = value;
      } else if (arg == "--log") {
        wish.logs.push_back(value);
      } else {
        return fail("unknown option " + escape(arg));
      }
    } else if (wish.verb.empty()) {
      wish.verb = arg;
    } else if (wish.verb == "add" && wish.url.empty()) {
      wish.url = arg;
    } else {
      return fail("unexpected argument " + escape(arg));
    }
  }
  if (wish.verb != "serve" && wish.verb != "add") return fail("serve or add?");
  if (wish.key.empty()) return fail("--key is missing");
  if (wish.verb == "serve" && wish.listen.empty()) return fail("--listen is missing");
  if (wish.verb == "add" && wish.url.empty()) return fail("which witness? give its URL");
  if (wish.state.empty()) wish.state = default_state_dir();
  return wish;
}

// "ed25519:" and 64 hex digits, as bytes.
Result<PublicKey> public_key_of(const HolderKey& key) {
  const std::string& text = key.holder();
  PublicKey out{};
  const size_t colon = text.find(':');
  if (colon == std::string::npos || text.size() != colon + 1 + 2 * out.size())
    return fail("the key is not an Ed25519 key");
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<uint8_t>(std::stoul(text.substr(colon + 1 + 2 * i, 2), nullptr, 16));
  return out;
}

Status serve(const Wish& wish) {
  CG_TRY(HolderKey key, HolderKey::read(wish.key));
  CosignerKey own{wish.name, {}};
  CG_TRY(own.key, public_key_of(key));
  const auto good_name = CosignerKey::parse(own.text());
  if (!good_name || wish.name.find_first_of(" +\t\r\n") != std::string::npos)
    return fail("--name: no spaces and no plus");
  std::vector<VerifierKey> logs;
  for (const std::string& text : wish.logs) {
    CG_TRY(VerifierKey log, VerifierKey::parse(text));
    logs.push_back(std::move(log));
  }
  CG_TRY(const sandbox::UniqueFd dir, open_state_dir(wish.state));
  CG_TRY(const Witness witness, Witness::open(dir.get(), own, std::move(key), logs));
  CG_TRY(WitnessServer server, WitnessServer::listen(wish.listen, witness));
  fmt::print("{}\nlistening on {}\n", witness.key().text(), server.address());
  std::fflush(stdout);
  return server.run();
}

Status add(const Wish& wish) {
  CG_TRY(CosignerKey key, CosignerKey::parse(wish.key));
  CG_TRY(const Cosigned done, ask_witness(wish.state, {wish.url, key}));
  fmt::print("{} records cosigned by {} at {}\n", done.size, escape(key.name),
             rfc3339(static_cast<int64_t>(done.time) * 1'000'000'000));
  return ok();
}

}  // namespace

int audit_witness_main(const Args& args) {
  if (!args.empty() && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const auto wish = parse(args);
  const Status done = !wish                   ? Status(wish.error())
                      : wish->verb == "serve" ? serve(*wish)
                                              : add(*wish);
  if (done) return 0;
  std::fprintf(stderr, "certgate audit witness: %s\n%s", escape(done.error().what).c_str(),
               wish ? "" : kUsage);
  return kExitTrouble;
}

}  // namespace certgate::agentd::cli
