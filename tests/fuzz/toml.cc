// Policy files: whatever the bytes, an error that names the place, or a policy that is valid,
// canonical and the same every time, also when it is compiled in pieces.
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "agentd/policy_file.h"
#include "agentd/policy_text.h"
#include "tests/fuzz/cbor_tree.h"

using namespace certgate;

namespace {

// A directory of this process, gone with it.
class Workshop {
 public:
  Workshop() {
    char name[] = "/tmp/certgate-fuzz-XXXXXX";
    if (::mkdtemp(name) == nullptr) std::abort();
    dir_ = name;
  }
  ~Workshop() {
    std::error_code error;
    std::filesystem::remove_all(dir_, error);
  }
  std::string write(const std::string& text) const {
    const std::string path = dir_ + "/p.toml";
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
    return path;
  }

 private:
  std::string dir_;
};

void laws_of(const agentd::CompiledPolicy& compiled) {
  const kernel::Policy& policy = compiled.policy;
  CG_LAW(kernel::validate(policy));
  std::set<std::string> ids;
  for (const kernel::Rule& rule : policy.rules) {
    CG_LAW(!rule.id.empty() && !rule.why.empty() && ids.insert(rule.id).second);
    for (const kernel::PathPattern& path : rule.paths) {
      const auto again = kernel::PathPattern::parse(path.text());
      CG_LAW(again && again->text() == path.text());
    }
    for (const kernel::EndpointPattern& e : rule.endpoints) CG_LAW(e.port_first <= e.port_last);
  }
  for (const auto& [name, value] : compiled.env_set) {
    CG_LAW(!name.empty() && name.find('=') == std::string::npos);
  }
  // The canonical form is one item of our CBOR, and no second one.
  const std::vector<uint8_t> bytes = policy.canonical();
  fuzz::CborCopy copy(bytes.data(), bytes.size(), bytes.size());
  CG_LAW(copy.item() && copy.done() && copy.written() == bytes);
}

}  // namespace

FUZZ_TARGET(toml) {
  static const Workshop workshop;
  static const agentd::PolicyContext context{"/ws/project", "/home/agent"};
  const std::string text = fuzz::Bytes(data, size).rest();
  const std::string path = workshop.write(text);
  const auto whole = agentd::compile_policy(path, text, context, SIZE_MAX);
  const auto pieces = agentd::compile_policy(path, text, context, 0);
  CG_LAW(static_cast<bool>(whole) == static_cast<bool>(pieces));
  CG_LAW(whole ? whole->policy.digest() == pieces->policy.digest()
               : whole.error().what == pieces.error().what);
  const auto compiled = agentd::load_policy(path, context);
  if (!compiled) {
    CG_LAW(!compiled.error().what.empty());
    return 0;
  }
  laws_of(*compiled);
  const auto again = agentd::load_policy(path, context);
  CG_LAW(again && again->policy.digest() == compiled->policy.digest());
  const std::string written = agentd::effective_text(*compiled);
  const auto effective = agentd::load_policy(workshop.write(written), context);
  CG_LAW(effective && effective->policy.digest() == compiled->policy.digest());
  return 0;
}
