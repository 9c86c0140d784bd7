#include "kernel/path_cover.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <utility>

namespace certgate::kernel {
namespace {

// One pattern as a row of tokens; state 2i = before token i, 2i+1 = within a component that the
// "/**" of token i stands for.
enum class TokenKind : uint8_t { kByte, kOne, kRun, kDeep };
struct PatternToken {
  TokenKind kind;
  char byte = '\0';
};
using Automaton = std::vector<PatternToken>;

// (pattern, state), sorted.
using States = std::vector<std::pair<uint32_t, uint32_t>>;

Automaton read(std::string_view text) {
  Automaton out;
  for (size_t i = 0; i < text.size();) {
    const bool deep =
        text.substr(i).starts_with("/**") && (i + 3 == text.size() || text[i + 3] == '/');
    if (deep) {
      out.push_back({TokenKind::kDeep});
      i += 3;
      continue;
    }
    const char c = text[i++];
    if (c == '*') {
      out.push_back({TokenKind::kRun});
    } else if (c == '?') {
      out.push_back({TokenKind::kOne});
    } else {
      out.push_back({TokenKind::kByte, c});
    }
  }
  return out;
}

class Patterns {
 public:
  explicit Patterns(const std::vector<std::string>& texts) {
    for (const std::string& text : texts) all_.push_back(read(text));
  }

  States start() const {
    States out;
    for (uint32_t p = 0; p < all_.size(); ++p) add(p, 0, out);
    return settled(std::move(out));
  }

  States after(const States& states, char c) const {
    States out;
    for (const auto& [p, s] : states) step(p, s, c, out);
    return settled(std::move(out));
  }

  bool accepts(const States& states) const {
    return std::any_of(states.begin(), states.end(),
                       [&](const auto& s) { return s.second == 2 * all_[s.first].size(); });
  }

  void letters(std::set<char>& out) const {
    for (const Automaton& one : all_) {
      for (const PatternToken& t : one) {
        if (t.kind == TokenKind::kByte) out.insert(t.byte);
      }
    }
  }

 private:
  // With what needs no byte: a run may be empty, a "/**" no component, or no further one.
  void add(uint32_t p, uint32_t state, States& out) const {
    out.emplace_back(p, state);
    const Automaton& one = all_[p];
    const uint32_t token = state / 2;
    if (token >= one.size()) return;
    if (one[token].kind == TokenKind::kRun || one[token].kind == TokenKind::kDeep)
      add(p, 2 * (token + 1), out);
  }

  void step(uint32_t p, uint32_t state, char c, States& out) const {
    const Automaton& one = all_[p];
    const uint32_t token = state / 2;
    if (token >= one.size()) return;
    switch (one[token].kind) {
      case TokenKind::kByte:
        if (c == one[token].byte) add(p, 2 * (token + 1), out);
        return;
      case TokenKind::kOne:
        if (c != '/') add(p, 2 * (token + 1), out);
        return;
      case TokenKind::kRun:
        if (c != '/') add(p, state, out);
        return;
      case TokenKind::kDeep:
        if (c == '/' || state % 2 == 1) add(p, 2 * token + 1, out);
        return;
    }
  }

  static States settled(States states) {
    std::sort(states.begin(), states.end());
    states.erase(std::unique(states.begin(), states.end()), states.end());
    return states;
  }

  std::vector<Automaton> all_;
};

// Of paths: what has been read so far, and whether it may end here.
enum class Shape : uint8_t { kNothing, kRoot, kSlash, kName };
std::optional<Shape> next_shape(Shape shape, char c) {
  if (c != '/') return shape == Shape::kNothing ? std::nullopt : std::optional(Shape::kName);
  if (shape == Shape::kNothing) return Shape::kRoot;
  return shape == Shape::kName ? std::optional(Shape::kSlash) : std::nullopt;
}
bool may_end(Shape shape) { return shape == Shape::kRoot || shape == Shape::kName; }

struct Point {
  States left, right;
  Shape shape = Shape::kNothing;
  auto operator<=>(const Point&) const = default;
};

// A shortest path that `left` accepts and, as `wanted` says, `right` does or does not.
enum class Wanted : uint8_t { kBoth, kOnlyLeft };
Result<std::optional<std::string>> search(const Patterns& left, const Patterns& right,
                                          Wanted wanted) {
  std::set<char> letters{'/'};
  left.letters(letters);
  right.letters(letters);
  // Stands for every byte that no pattern names.
  for (char other = 'x';; other = static_cast<char>(other + 1)) {
    if (letters.insert(other).second) break;
  }
  std::map<Point, std::pair<const Point*, char>> seen;
  std::deque<const Point*> todo;
  const auto reach = [&](Point point, const Point* from, char by) {
    const auto [it, is_new] = seen.try_emplace(std::move(point), from, by);
    if (is_new) todo.push_back(&it->first);
  };
  reach({left.start(), right.start(), Shape::kNothing}, nullptr, '\0');
  while (!todo.empty()) {
    const Point* point = todo.front();
    todo.pop_front();
    if (may_end(point->shape) && left.accepts(point->left) &&
        right.accepts(point->right) == (wanted == Wanted::kBoth)) {
      std::string path;
      for (const Point* at = point; seen.at(*at).first != nullptr; at = seen.at(*at).first)
        path += seen.at(*at).second;
      return std::optional<std::string>(std::string(path.rbegin(), path.rend()));
    }
    if (seen.size() > kMaxCoverSteps) return fail("these patterns are too complex to compare");
    for (const char c : letters) {
      const auto shape = next_shape(point->shape, c);
      if (!shape) continue;
      States on = left.after(point->left, c);
      if (on.empty()) continue;
      States off = right.after(point->right, c);
      if (off.empty() && wanted == Wanted::kBoth) continue;
      reach({std::move(on), std::move(off), *shape}, point, c);
    }
  }
  return std::optional<std::string>();
}

bool is_private(const PathPattern& pattern) { return pattern.text() == "@private"; }
// What a pattern says of paths alone.
std::string path_text(const PathPattern& pattern) {
  return is_private(pattern) ? "/**" : pattern.text();
}

Result<std::optional<PlacedPath>> placed(Result<std::optional<std::string>> found, bool inside) {
  if (!found) return found.error();
  if (!*found) return std::optional<PlacedPath>();
  return std::optional<PlacedPath>({**std::move(found), inside});
}

}  // namespace

Result<std::optional<PlacedPath>> path_outside(const PathPattern& narrow,
                                               const std::vector<PathPattern>& wide) {
  // Outside the sandbox's own file systems @private matches nothing, inside everything. A pattern
  // of paths matches alike in both: where it can leave `wide` at all, it can outside.
  const bool inside = is_private(narrow);
  std::vector<std::string> texts;
  for (const PathPattern& p : wide) {
    if (!is_private(p))
      texts.push_back(p.text());
    else if (inside)
      return std::optional<PlacedPath>();
  }
  return placed(search(Patterns({path_text(narrow)}), Patterns(texts), Wanted::kOnlyLeft), inside);
}

Result<std::optional<PlacedPath>> path_in_both(const PathPattern& a, const PathPattern& b) {
  const bool inside = is_private(a) || is_private(b);
  return placed(search(Patterns({path_text(a)}), Patterns({path_text(b)}), Wanted::kBoth), inside);
}

}  // namespace certgate::kernel
