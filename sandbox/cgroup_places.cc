#include "sandbox/cgroup_places.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

namespace certgate::sandbox {
namespace {

constexpr size_t kMaxLines = 65536;
constexpr size_t kMaxTrees = 32;

std::vector<std::string> split(const std::string& text, char mark) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, mark);) out.push_back(part);
  return out;
}

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string decode(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool octal = text[i] == '\\' && i + 3 < text.size() &&
                       std::all_of(text.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                   text.begin() + static_cast<std::ptrdiff_t>(i) + 4,
                                   [](char c) { return c >= '0' && c <= '7'; });
    if (!octal) {
      out += text[i];
      continue;
    }
    out +=
        static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
    i += 3;
  }
  return out;
}

// The cgroup of this process in each hierarchy: by controller, "" for version 2.
std::map<std::string, std::string> own_paths(const std::string& file) {
  std::map<std::string, std::string> out;
  std::ifstream in(file);
  std::string line;
  for (size_t i = 0; i < kMaxLines && std::getline(in, line); ++i) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) out.emplace("", path);
    for (const std::string& name : split(controllers, ',')) out.emplace(name, path);
  }
  return out;
}

// The directory of cgroup `path` under a mount that shows the hierarchy from `root` on; empty when
// it does not show it.
std::string directory_of(const std::string& path, const std::string& root, const std::string& top) {
  if (path.empty() || path.find("/..") != std::string::npos) return {};
  std::string rest = path == "/" ? "" : path;
  if (root != "/") {
    if (rest != root && !rest.starts_with(root + "/")) return {};
    rest.erase(0, root.size());
  }
  return top + rest;
}

// One line of mountinfo; false when it is no cgroup tree that shows us.
bool read_tree(const std::string& line, const std::map<std::string, std::string>& own,
               CgroupTree& tree) {
  const std::vector<std::string> fields = split(line, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (fields.size() < 6 || fields.end() - dash < 4) return false;
  const std::string& type = dash[1];
  if (type != "cgroup" && type != "cgroup2") return false;
  tree.version = type == "cgroup2" ? CgroupVersion::kTwo : CgroupVersion::kOne;
  tree.top = decode(fields[4]);
  auto mine = own.find("");
  if (tree.version == CgroupVersion::kOne) {
    mine = own.end();
    for (const std::string& option : split(dash[3], ',')) {
      const auto found = own.find(option);
      if (found == own.end() || option.empty()) continue;
      tree.controllers.push_back(option);
      mine = found;
    }
  }
  if (mine == own.end()) return false;
  tree.own = directory_of(mine->second, decode(fields[3]), tree.top);
  return !tree.own.empty();
}

}  // namespace

bool CgroupTree::has(const std::string& controller) const {
  return std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
}

std::vector<CgroupTree> find_cgroup_trees(const CgroupSources& sources) {
  const auto own = own_paths(sources.own);
  std::vector<CgroupTree> out;
  std::ifstream in(sources.mountinfo);
  std::string line;
  for (size_t i = 0; i < kMaxLines && out.size() < kMaxTrees && std::getline(in, line); ++i) {
    CgroupTree tree;
    if (read_tree(line, own, tree)) out.push_back(std::move(tree));
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const CgroupTree& a, const CgroupTree& b) { return a.version < b.version; });
  return out;
}

}  // namespace certgate::sandbox
