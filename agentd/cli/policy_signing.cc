// certgate policy pack|verify …

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "agentd/cli/policy_words.h"
#include "agentd/holder_key.h"
#include "agentd/log_store.h"
#include "agentd/policy_bundle.h"

namespace certgate::agentd::cli {
namespace {

std::string hex(const uint8_t* data, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out += fmt::format("{:02x}", data[i]);
  return out;
}

Result<std::string> sealed(const Words& words, const std::string& payload) {
  if (words.has("--key")) {
    CG_TRY(const HolderKey key, HolderKey::read(words.option("--key")));
    return seal_bundle(payload, key.holder(), key);
  }
  CG_TRY(LogStore log, LogStore::open(words.option("--state", default_state_dir())));
  return seal_bundle(payload, log.key().name(), log.key());
}

}  // namespace

int pack(const Args& args) {
  const auto words = parse_words(args, {"-o", "--key", "--state"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1 || !words->has("-o"))
    return usage_error("pack takes one policy and -o BUNDLE");
  if (words->has("--key") && words->has("--state"))
    return usage_error("pack signs with --key or with the key of --state, not both");
  const auto file = find_policy(words->plain[0]);
  if (!file) return policy_trouble(file.error());
  const auto payload = bundle_payload(*file);
  if (!payload) return policy_trouble(payload.error());
  const auto text = sealed(*words, *payload);
  if (!text) return policy_trouble(text.error());
  return write_out(*words, *text + "\n");
}

int verify_bundle(const Args& args) {
  const auto words = parse_words(args, {"--key", "--sources"});
  if (!words) return usage_error(words.error().what);
  if (words->plain.size() != 1 || !words->has("--key"))
    return usage_error("verify takes one bundle and --key PUB");
  const auto key = read_public_key(words->option("--key"));
  if (!key) return policy_trouble(key.error());
  const auto text = read_bundle_text(words->plain[0]);
  if (!text) return policy_trouble(text.error());
  const auto bundle = open_bundle(*text, {*key});
  if (!bundle) return policy_trouble(fail(words->plain[0] + ": " + bundle.error().what));
  const auto placed = place(*bundle, {"/workspace", "/home/agent"}, words->plain[0]);
  if (!placed) return policy_trouble(placed.error());
  const kernel::Digest digest = placed->policy.digest();
  fmt::print("{}: signed by ed25519:{}\n", escape(words->plain[0]),
             hex(bundle->signer.data(), bundle->signer.size()));
  fmt::print("policy   {}, {} rules, {} zones, sha256 {} (for workspace /workspace)\n",
             escape(placed->policy.name), placed->policy.rules.size(), placed->policy.zones.size(),
             hex(digest.data(), digest.size()));
  fmt::print("payload  sha256 {}\n",
             hex(bundle->payload_digest.data(), bundle->payload_digest.size()));
  for (const auto& [name, source] : placed->sources) {
    fmt::print("source   {}, {} bytes\n", escape(name), source.size());
    for (size_t at = 0; words->flag("--sources") && at < source.size();) {
      const size_t end = std::min(source.find('\n', at), source.size());
      fmt::print("  | {}\n", escape(source.substr(at, end - at)));
      at = end + 1;
    }
  }
  return 0;
}

}  // namespace certgate::agentd::cli
