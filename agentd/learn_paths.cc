#include "agentd/learn_paths.h"

#include <algorithm>
#include <map>
#include <memory>

#include "kernel/cbor.h"

namespace certgate::agentd {
namespace {

// A directory, or a name in one.
struct Node {
  std::map<std::string, std::unique_ptr<Node>> below;
  bool seen = false;  // it is a path itself
  bool went = false;
};

class Grouping {
 public:
  Grouping(const PolicyContext& context, size_t together)
      : context_(context), together_(std::max<size_t>(2, together)) {}

  void add(const std::string& path, bool went) {
    Node* at = &root_;
    for (size_t i = 1; i < path.size();) {
      const size_t end = std::min(path.find('/', i), path.size());
      auto& next = at->below[path.substr(i, end - i)];
      if (!next) next = std::make_unique<Node>();
      at = next.get();
      i = end + 1;
    }
    at->seen = true;
    at->went = at->went || went;
  }

  std::vector<PathGroup> groups() {
    visit(root_, "", "");
    return std::move(out_);
  }

 private:
  // Outside the workspace, and for the workspace itself, all that is below is never meant by what
  // was seen of it.
  bool may_stand_for_all(const std::string& directory) const {
    const std::string& workspace = context_.workspace;
    if (directory.starts_with(workspace + "/")) return true;
    const auto depth = std::count(directory.begin(), directory.end(), '/');
    return depth >= 3 && !workspace.starts_with(directory + "/") && directory != workspace;
  }

  static void collect(const Node& node, const std::string& path, std::vector<std::string>& out) {
    if (node.seen) out.push_back(path);
    for (const auto& [name, next] : node.below) collect(*next, path + "/" + name, out);
  }

  void visit(const Node& node, const std::string& path, const std::string& pattern) {
    size_t files = 0, directories = 0;
    bool went = false;
    for (const auto& [name, next] : node.below) {
      ++(next->below.empty() ? files : directories);
      went = went || (next->went && next->below.empty());
    }
    PathGroup group;
    group.name = path.empty() ? "/" : path;
    if (directories >= together_ && may_stand_for_all(path)) {
      collect(node, path, group.members);
      group.patterns = {pattern + "/**"};
      out_.push_back(std::move(group));
      return;
    }
    const bool all_files = (files >= together_ || went) && !path.empty();
    if (all_files) group.patterns.push_back(pattern + "/*");
    for (const auto& [name, next] : node.below) {
      if (!next->seen) continue;
      // A directory that was made is a name of its parent's, and so are files.
      group.members.push_back(path + "/" + name);
      if (!all_files) group.patterns.push_back(pattern + "/" + literal(name));
    }
    if (!group.members.empty()) out_.push_back(std::move(group));
    for (const auto& [name, next] : node.below) {
      if (next->below.empty()) continue;
      const size_t first = out_.size();
      visit(*next, path + "/" + name, pattern + "/" + literal(name));
      // What stands for all below a directory stands for the directory too; it is counted once.
      for (size_t i = first; i < out_.size() && next->seen; ++i)
        std::erase(out_[i].members, path + "/" + name);
    }
  }

  const PolicyContext& context_;
  const size_t together_;
  Node root_;
  std::vector<PathGroup> out_;
};

}  // namespace

std::string literal(std::string name) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(name.data());  // NOLINT: octets
  for (size_t i = 0; i < name.size();) {
    const size_t length = kernel::utf8_length(bytes + i, name.size() - i);
    if (length == 0 || name[i] == '*') name[i] = '?';
    i += std::max<size_t>(length, 1);
  }
  return name;
}

std::vector<PathGroup> group_paths(const std::vector<std::string>& paths,
                                   const std::set<std::string>& went, const PolicyContext& context,
                                   size_t together) {
  Grouping grouping(context, together);
  for (const std::string& path : paths) grouping.add(path, went.contains(path));
  return grouping.groups();
}

}  // namespace certgate::agentd
