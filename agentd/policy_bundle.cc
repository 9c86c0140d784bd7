#include "agentd/policy_bundle.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "agentd/holder_key.h"
#include "supervisor/policy_load.h"
#include "kernel/cbor.h"
#include "kernel/merkle.h"
#include "sandbox/fd.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;
using kernel::CborReader;
using kernel::CborWriter;

constexpr uint64_t kVersion = 1;
constexpr size_t kMaxText = 4096;
constexpr size_t kMaxSource = 8 << 20;
constexpr size_t kMaxList = 65536;
constexpr const char* kTrustFile = "trusted-policy-keys";
constexpr std::optional<uint64_t> Limits::*kLimits[] = {
    &Limits::memory, &Limits::processes,  &Limits::cpu_milli,
    &Limits::tmp,    &Limits::open_files, &Limits::records_per_second, &Limits::file_size};
constexpr size_t kFirstLimits = 6;  // as many as every bundle has

using Texts = std::vector<std::string>;

void put(CborWriter& w, const Texts& texts) {
  w.array(texts.size());
  for (const std::string& text : texts) w.text(text);
}

void put(CborWriter& w, const std::vector<std::pair<std::string, std::string>>& pairs) {
  w.array(pairs.size());
  for (const auto& [name, value] : pairs) put(w, Texts{name, value});
}

std::string write_payload(const CompiledPolicy& policy) {
  CborWriter w;
  w.map(5);
  w.unsigned_int(1), w.unsigned_int(kVersion);
  const std::vector<uint8_t> form = policy.policy.canonical();
  w.unsigned_int(2), w.bytes(form.data(), form.size());
  w.unsigned_int(3), w.array(5);
  put(w, policy.read_only);
  w.unsigned_int(static_cast<uint64_t>(policy.home));
  w.array(policy.home_files.size());
  for (const PolicyHomeFile& file : policy.home_files)
    put(w, Texts{file.source, file.target, file.asked});
  put(w, policy.env_pass);
  put(w, policy.env_set);
  w.unsigned_int(4), w.array(std::size(kLimits));
  for (const auto limit : kLimits) w.unsigned_int((policy.limits.*limit).value_or(0));
  w.unsigned_int(5);
  put(w, policy.sources);
  return {w.data().begin(), w.data().end()};
}

// Reads texts from a list of exactly or at most so many.
Result<Texts> texts(CborReader& in, size_t max, size_t longest = kMaxText) {
  Texts out;
  CG_TRY(const size_t count, in.array(max));
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(std::string text, in.text(longest));
    out.push_back(std::move(text));
  }
  return out;
}

Status read_pairs(CborReader& in, size_t longest,
                  std::vector<std::pair<std::string, std::string>>& out) {
  CG_TRY(const size_t count, in.array(kMaxList));
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(Texts pair, texts(in, 2, longest));
    if (pair.size() != 2) return fail("bundle: a pair without a second part");
    out.emplace_back(std::move(pair[0]), std::move(pair[1]));
  }
  return ok();
}

Status read_sandbox(CborReader& in, CompiledPolicy& out) {
  CG_TRY(const size_t parts, in.array(5));
  if (parts != 5) return fail("bundle: its sandbox has five parts");
  CG_TRY(out.read_only, texts(in, kMaxList));
  CG_TRY(const uint64_t home, in.unsigned_int());
  if (home > static_cast<uint64_t>(HomePolicy::kKept)) return fail("bundle: no such home");
  out.home = static_cast<HomePolicy>(home);
  CG_TRY(const size_t files, in.array(kMaxList));
  for (size_t i = 0; i < files; ++i) {
    CG_TRY(Texts file, texts(in, 3));
    if (file.size() != 3 || !file[1].starts_with(std::string(kBundleHome) + "/") ||
        !(file[0].starts_with('/') || file[0].starts_with("~/")))
      return fail("bundle: a home file is a source, a target in the home, and what was asked");
    out.home_files.push_back({file[0], file[1], file[2], "the bundle"});
  }
  CG_TRY(out.env_pass, texts(in, kMaxList));
  CG_CHECK(read_pairs(in, kMaxText, out.env_set));
  const auto no_name = [](const std::string& name) {
    return name.empty() || name.find('=') != std::string::npos;
  };
  if (std::any_of(out.env_pass.begin(), out.env_pass.end(), no_name) ||
      std::any_of(out.env_set.begin(), out.env_set.end(),
                  [&](const auto& v) { return no_name(v.first); }) ||
      std::any_of(out.read_only.begin(), out.read_only.end(),
                  [](const std::string& path) { return !path.starts_with('/'); }))
    return fail("bundle: its sandbox is none that a policy could ask for");
  return ok();
}

Status read_limits_list(CborReader& in, Limits& out) {
  CG_TRY(const size_t count, in.array(std::size(kLimits)));
  if (count < kFirstLimits) return fail("bundle: its limits are not complete");
  for (size_t i = 0; i < count; ++i) {
    CG_TRY(const uint64_t value, in.unsigned_int());
    if (value != 0) out.*kLimits[i] = value;
  }
  return ok();
}

Status key(CborReader& in, uint64_t wanted) {
  CG_TRY(const uint64_t found, in.unsigned_int());
  return found == wanted ? ok() : Status(fail("bundle: unknown key " + std::to_string(found)));
}

// The name of a source for people, without the machine's directories.
std::string short_name(const std::string& path, const std::string& top) {
  const fs::path relative = fs::path(path).lexically_relative(fs::path(top).parent_path());
  const bool below = !relative.empty() && *relative.begin() != "..";
  return below ? relative.string()
               : (fs::path(path).parent_path().filename() / fs::path(path).filename()).string();
}

// "/@workspace/x" for one workspace.
std::string placed(const std::string& text, const PolicyContext& context) {
  for (const auto& [mark, directory] :
       {std::pair<std::string, std::string>{kBundleWorkspace, context.workspace},
        {kBundleHome, context.home}}) {
    if (text == mark) return directory;
    if (text.starts_with(mark + "/")) return directory + text.substr(mark.size());
  }
  return text;
}

Result<std::string> text_of_file(const std::string& path, size_t max) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return fail(path + ": " + error.message() + "; name a readable file");
  if (size > max) return fail(path + ": larger than " + std::to_string(max >> 20) + " MiB");
  std::ifstream in(path, std::ios::binary);
  std::string out((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.good() && !in.eof()) return fail(path + ": cannot be read");
  return out;
}

// A file that others could change demands nothing.
Result<std::optional<std::string>> read_trust_file(const std::string& path) {
  const sandbox::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd && (errno == ENOENT || errno == ENOTDIR)) return std::optional<std::string>();
  if (!fd) return fail_errno("read " + path, errno);
  struct stat s {};
  if (::fstat(fd.get(), &s) != 0 || !S_ISREG(s.st_mode) || s.st_size > 65536 ||
      (s.st_uid != ::geteuid() && s.st_uid != 0) || (s.st_mode & 022) != 0)
    return fail(path + " must be a small regular file of its owner's alone (chmod go-w)");
  std::string text(static_cast<size_t>(s.st_size), '\0');
  const ssize_t n = ::read(fd.get(), text.data(), text.size());
  if (n != static_cast<ssize_t>(text.size())) return fail(path + " cannot be read whole");
  return std::optional<std::string>(std::move(text));
}

Result<PublicKey> parse_key(const std::string& text) {
  if (auto named = VerifierKey::parse(text)) return named->key;
  CG_TRY(const std::string holder, read_holder(text));
  const std::string hex = holder.substr(holder.find(':') + 1);
  PublicKey out{};
  if (hex.size() != 2 * out.size()) return fail("'" + text + "' is no Ed25519 key");
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  return out;
}

}  // namespace

bool is_bundle(std::string_view text) { return text.starts_with("{\"payload\":\""); }

Result<std::string> read_bundle_text(const std::string& path) {
  return text_of_file(path, 2 * kMaxPolicyBundle);
}

Result<std::string> bundle_payload(const std::string& policy_file) {
  CG_TRY(CompiledPolicy policy, load_policy(policy_file, {kBundleWorkspace, kBundleHome}));
  const std::string top = policy.sources.front().first;
  for (auto& [path, text] : policy.sources) {
    for (const char* mark : {kBundleWorkspace, kBundleHome}) {
      if (text.find(mark) != std::string::npos)
        return fail(path + ": '" + mark +
                    "' stands for a directory in bundles; write another path");
    }
    path = short_name(path, top);
  }
  return write_payload(policy);
}

Result<CompiledPolicy> read_bundle_payload(std::string_view payload) {
  const auto* data = reinterpret_cast<const uint8_t*>(payload.data());  // NOLINT: octets
  CborReader in(data, payload.size());
  CompiledPolicy out;
  CG_TRY(const size_t keys, in.map(5));
  CG_CHECK(key(in, 1));
  CG_TRY(const uint64_t version, in.unsigned_int());
  if (keys != 5 || version != kVersion) return fail("bundle: of another version than 1");
  CG_CHECK(key(in, 2));
  CG_TRY(const std::string form, in.bytes(kMaxPolicyBundle));
  CG_TRY(out.policy,
         supervisor::load_canonical(reinterpret_cast<const uint8_t*>(form.data()),  // NOLINT
                        form.size()));
  CG_CHECK(key(in, 3));
  CG_CHECK(read_sandbox(in, out));
  CG_CHECK(key(in, 4));
  CG_CHECK(read_limits_list(in, out.limits));
  CG_CHECK(key(in, 5));
  CG_CHECK(read_pairs(in, kMaxSource, out.sources));
  if (!in.done()) return fail("bundle: bytes after its end");
  if (std::any_of(out.policy.rules.begin(), out.policy.rules.end(),
                  [](const kernel::Rule& rule) { return rule.layer != 0; }))
    return fail("bundle: a policy of one layer is what is packed");
  // The form can say it for the log of an observing run, whose own rule it is; no file can.
  for (const kernel::Rule& rule : out.policy.rules) {
    if (std::any_of(rule.endpoints.begin(), rule.endpoints.end(),
                    [](const kernel::EndpointPattern& e) { return e.host.text == "*"; }))
      return fail("bundle: rule '" + rule.id + "' is about any host, which no policy file can say");
  }
  return out;
}

Result<Bundle> open_bundle(std::string_view text, const std::vector<PublicKey>& keys) {
  if (text.size() > 2 * kMaxPolicyBundle) return fail("bundle: larger than 64 MiB");
  while (text.ends_with('\n')) text.remove_suffix(1);
  const std::string head = "{\"payload\":\"";
  const std::string middle =
      std::string("\",\"payloadType\":\"") + kBundleType + "\",\"signatures\":[{\"keyid\":\"";
  const std::string before = "\",\"sig\":\"";
  const size_t a = text.find(middle), b = text.find(before, a == std::string_view::npos ? 0 : a);
  if (!text.starts_with(head) || a == std::string_view::npos || b == std::string_view::npos)
    return fail("not a bundle of the type " + std::string(kBundleType));
  CG_TRY(const auto payload, base64_decode(text.substr(head.size(), a - head.size())));
  const std::string name(text.substr(a + middle.size(), b - a - middle.size()));
  const std::string_view rest = text.substr(b + before.size());
  CG_TRY(const auto raw, base64_decode(rest.substr(0, rest.find('"'))));
  Signature signature{};
  const std::string bytes(payload.begin(), payload.end());
  if (raw.size() != signature.size() ||
      kernel::dsse_envelope(kBundleType, bytes, name, raw) != text)
    return fail("bundle: its envelope is not written as it must be");
  std::copy(raw.begin(), raw.end(), signature.begin());
  const std::string signed_bytes = kernel::dsse_pae(kBundleType, bytes);
  const auto signer = std::find_if(keys.begin(), keys.end(), [&](const PublicKey& k) {
    return static_cast<bool>(verify_ed25519(k, signed_bytes, signature));
  });
  if (signer == keys.end()) return fail("bundle: not signed by a key that is trusted for it");
  Bundle out;
  out.signer = *signer;
  out.payload_digest = kernel::sha256(payload.data(), payload.size());
  CG_TRY(out.policy, read_bundle_payload(bytes));
  return out;
}

Result<CompiledPolicy> place(const Bundle& bundle, const PolicyContext& context,
                             const std::string& name) {
  CompiledPolicy out = bundle.policy;
  const auto put_path = [&](kernel::PathPattern& pattern) -> Status {
    CG_TRY(pattern, kernel::PathPattern::parse(placed(pattern.text(), context)));
    return ok();
  };
  for (kernel::Zone& zone : out.policy.zones) {
    CG_CHECK(put_path(zone.pattern));
    zone.source = name;
  }
  for (kernel::Rule& rule : out.policy.rules) {
    rule.source = name;
    for (kernel::PathPattern& pattern : rule.paths) CG_CHECK(put_path(pattern));
    for (kernel::EndpointPattern& place : rule.endpoints) {
      if (place.path) CG_CHECK(put_path(*place.path));
    }
  }
  for (kernel::Tool& tool : out.policy.tools) {
    tool.source = name;
    tool.program = placed(tool.program, context);
    for (std::string& interpreter : tool.run_by) interpreter = placed(interpreter, context);
    std::vector<kernel::PathPattern*> all;
    for (kernel::PathPattern& pattern : tool.cwd) all.push_back(&pattern);
    for (kernel::ToolVariable& variable : tool.env)
      for (kernel::PathPattern& pattern : variable.value.within) all.push_back(&pattern);
    for (kernel::ToolPart& part : tool.parts) {
      if (!part.value) continue;
      for (std::string& text : part.value->one_of) text = placed(text, context);
      for (kernel::PathPattern& pattern : part.value->within) all.push_back(&pattern);
    }
    for (kernel::PathPattern* pattern : all) CG_CHECK(put_path(*pattern));
  }
  for (std::string& path : out.read_only) path = placed(path, context);
  for (PolicyHomeFile& file : out.home_files) file.target = placed(file.target, context);
  for (auto& [variable, value] : out.env_set) value = placed(value, context);
  out.layer_files.push_back(name);
  CG_CHECK(kernel::validate(out.policy));
  return out;
}

Result<PublicKey> read_public_key(const std::string& text) {
  std::error_code error;
  if (!text.starts_with("ed25519:") && fs::is_regular_file(text, error)) {
    CG_TRY(std::string line, text_of_file(text, 65536));
    line.resize(std::min(line.find('\n'), line.size()));
    if (auto named = VerifierKey::parse(line)) return named->key;
  }
  return parse_key(text);
}

Result<PolicyTrust> policy_trust(const std::string& state_dir, const std::string& require_signed) {
  PolicyTrust out;
  if (!require_signed.empty()) {
    CG_TRY(const PublicKey demanded, read_public_key(require_signed));
    out.demanded.push_back({demanded});
  }
  const std::string path = state_dir + "/" + kTrustFile;
  CG_TRY(const std::optional<std::string> listed, read_trust_file(path));
  if (listed) {
    auto& keys = out.demanded.emplace_back();
    std::istringstream lines(*listed);
    for (std::string line; std::getline(lines, line);) {
      if (line.empty() || line.starts_with('#')) continue;
      auto one = line.starts_with("ed25519:") ? parse_key(line) : Result<PublicKey>(fail("none"));
      if (const auto named = VerifierKey::parse(line)) one = named->key;
      if (!one)
        return fail(path + ": '" + line + "' is no key; a line is ed25519:HEX or a key.pub");
      keys.push_back(*one);
    }
  }
  // A state directory without a key has signed nothing.
  if (const auto own = read_public_key(state_dir + "/key.pub")) out.own.push_back(*own);
  return out;
}

Result<CompiledPolicy> load_trusted(const std::string& path, const PolicyContext& context,
                                    const PolicyTrust& trust) {
  std::string start(16, '\0');
  std::ifstream(path, std::ios::binary)
      .read(start.data(), static_cast<std::streamsize>(start.size()));
  if (!is_bundle(start)) {
    if (trust.demanded.empty()) return load_policy(path, context);
    return fail(path + ": only signed policies are taken here (--require-signed, or " + kTrustFile +
                " in the state directory); pack and sign it: certgate policy pack");
  }
  CG_TRY(const std::string text, read_bundle_text(path));
  std::vector<std::vector<PublicKey>> sets = trust.demanded;
  if (sets.empty()) sets.push_back(trust.own);
  std::optional<Bundle> bundle;
  for (const auto& keys : sets) {
    auto opened = open_bundle(text, keys);
    if (!opened) {
      return fail(path + ": " + opened.error().what +
                  "; name its key with --require-signed, or check it: certgate policy verify");
    }
    bundle = *std::move(opened);
  }
  return place(*bundle, context, path);
}

}  // namespace certgate::agentd
