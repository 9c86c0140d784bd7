#include "agentd/policy_catalogue.h"

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

#include "agentd/policy_file.h"

namespace certgate::agentd {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFileBytes = 8 << 20;

std::vector<fs::path> catalogues() {
  std::vector<fs::path> out;
  if (const char* dir = std::getenv("CERTGATE_POLICY_PATH")) out.emplace_back(dir);
  std::error_code error;
  const fs::path exe = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    out.push_back(exe.parent_path() / "../../policies");  // build/bin in the source tree
    out.push_back(exe.parent_path() / "../share/certgate/policies");
  }
  return out;
}

}  // namespace

Result<std::string> read_policy_text(const std::string& name) {
  const fs::path path = name;
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return fail(path.string() + ": " + error.message() + "; name a readable policy file");
  if (size > kMaxFileBytes) return fail(path.string() + ": larger than 8 MiB");
  std::ifstream in(path, std::ios::binary);
  if (!in.is_open()) return fail(path.string() + ": cannot be opened; check its permissions");
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  text.resize(static_cast<size_t>(in.gcount()));
  if (!in.good() && !in.eof()) return fail(path.string() + ": cannot be read");
  return text;
}

fs::path find_extended(const fs::path& from, const std::string& name) {
  const fs::path relative = name.ends_with(".toml") ? name : name + ".toml";
  for (fs::path dir = from.parent_path(); !dir.empty(); dir = dir.parent_path()) {
    std::error_code error;
    if (fs::is_regular_file(dir / relative, error)) return dir / relative;
    if (dir == dir.parent_path()) break;
  }
  for (const fs::path& catalogue : catalogues()) {
    std::error_code error;
    if (fs::is_regular_file(catalogue / relative, error))
      return fs::weakly_canonical(catalogue / relative, error);
  }
  return {};
}

Result<std::string> find_policy(const std::string& file_or_name) {
  if (file_or_name.find('/') != std::string::npos || file_or_name.ends_with(".toml"))
    return file_or_name;
  for (const fs::path& catalogue : catalogues()) {
    std::error_code error;
    for (const char* part : {"", "agents", "examples"}) {
      const fs::path file = catalogue / part / (file_or_name + ".toml");
      if (fs::is_regular_file(file, error)) return fs::weakly_canonical(file, error).string();
    }
  }
  return fail("no policy named '" + file_or_name +
              "' in the catalogue; give a file: --policy ./my.toml");
}

}  // namespace certgate::agentd
