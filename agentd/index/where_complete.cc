// What an unfinished --where expression could go on with.
#include <algorithm>
#include <cstring>

#include "agentd/index/where.h"
#include "agentd/index/where_table.h"
#include "kernel/policy.h"
#include "kernel/record.h"

namespace certgate::agentd {
namespace {

using namespace where;

// Follows an unfinished expression to its end and says what may stand there.
class Completer {
 public:
  explicit Completer(std::string_view text) : text_(text) {}

  std::vector<std::string> candidates() {
    const Field* field = nullptr;
    for (Wanted wanted = Wanted::kField;;) {
      at_ = std::min(text_.find_first_not_of(" \t\n", at_), text_.size());
      const size_t start = at_;
      if (wanted == Wanted::kField) {
        if (take('(')) {
          ++open_;
          continue;
        }
        const std::string_view word = take_word();
        if (at_ == text_.size()) return fields(start, word);
        if (word == "not") continue;
        field = find_field(word);
        if (field == nullptr) return {};
        wanted = Wanted::kOperator;
      } else if (wanted == Wanted::kOperator) {
        const Operator* const op = operator_at(text_.substr(at_));
        if (op == nullptr) return operators(start, *field);
        at_ += std::strlen(op->text);
        wanted = Wanted::kValue;
      } else if (wanted == Wanted::kValue) {
        if (!take_value()) return {};
        if (at_ == text_.size()) return with(start, where_values(field->name));
        wanted = Wanted::kJoint;
      } else {
        if (open_ > 0 && take(')')) {
          --open_;
          continue;
        }
        const std::string_view word = take_word();
        if (at_ == text_.size()) return with(start, joints());
        if (word != "and" && word != "or") return {};
        wanted = Wanted::kField;
      }
    }
  }

 private:
  enum class Wanted : uint8_t { kField, kOperator, kValue, kJoint };

  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    return ++at_, true;
  }
  std::string_view take_word() {
    const size_t start = at_;
    while (at_ < text_.size() && ((text_[at_] >= 'a' && text_[at_] <= 'z') || text_[at_] == '_'))
      ++at_;
    return text_.substr(start, at_ - start);
  }
  // False: in quotes that are still open, or nothing that could be a value.
  bool take_value() {
    if (take('"')) {
      while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
      at_ = std::min(at_, text_.size());
      return take('"');
    }
    at_ = std::min(text_.find_first_of(" \t\n()\"", at_), text_.size());
    return true;
  }
  static const Field* find_field(std::string_view name) {
    for (const Field& one : kFields) {
      if (name == one.name) return &one;
    }
    return nullptr;
  }
  std::vector<std::string> joints() const {
    std::vector<std::string> words{"and", "or"};
    if (open_ > 0) words.push_back(")");
    return words;
  }
  std::vector<std::string> fields(size_t start, std::string_view word) const {
    if (const Field* const whole = find_field(word)) return operators(text_.size(), *whole);
    std::vector<std::string> names{"not"};
    for (const Field& one : kFields) names.push_back(one.name);
    return with(start, names);
  }
  std::vector<std::string> operators(size_t start, const Field& field) const {
    std::vector<std::string> names;
    for (const Operator& one : kOperators) {
      if ((!one.order || is_ordered(field)) && (!one.glob || is_text(field)))
        names.push_back(one.text);
    }
    return with(start, names);
  }
  // The text so far, its end from `start` on completed to each name that begins so.
  std::vector<std::string> with(size_t start, const std::vector<std::string>& names) const {
    std::vector<std::string> out;
    for (const std::string& name : names) {
      if (name.starts_with(text_.substr(start)))
        out.push_back(std::string(text_.substr(0, start)) + name);
    }
    return out;
  }

  const std::string_view text_;
  size_t at_ = 0;
  int open_ = 0;
};

}  // namespace

std::vector<std::string> where_values(std::string_view field) {
  std::vector<std::string> names;
  if (field == "verdict") {
    for (const VerdictName& one : kVerdicts) names.push_back(one.text);
  } else if (field == "verb") {
    for (size_t verb = 0; verb < kernel::kVerbs; ++verb)
      names.push_back(kernel::verb_text(static_cast<kernel::Verb>(verb)));
  } else if (field == "kind") {
    for (int kind = 1; kind < kMaxKinds; ++kind) {
      const std::string name = kernel::record_kind_text(static_cast<kernel::RecordKind>(kind));
      if (name != "unknown") names.push_back(name);
    }
  }
  return names;
}

std::vector<std::string> complete_where(std::string_view text) {
  if (text.size() > kMaxWhereBytes) return {};
  return Completer(text).candidates();
}

}  // namespace certgate::agentd
