#include "agentd/index/where.h"

#include <time.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "agentd/index/where_table.h"
#include "kernel/policy.h"
#include "kernel/record.h"

namespace certgate::agentd {
namespace {

using namespace where;

constexpr int kMaxDepth = 16;  // SQLite's parser has a stack of 100 symbols
constexpr int kMaxComparisons = 64;
constexpr int64_t kSecond = 1'000'000'000;

Result<int64_t> number_of_name(const Field& field, const std::string& value) {
  std::string known;
  auto tried = [&](const char* name) { known += std::string(known.empty() ? "" : ", ") + name; };
  if (std::strcmp(field.name, "verb") == 0) {
    for (size_t verb = 0; verb < kernel::kVerbs; ++verb) {
      const char* const name = kernel::verb_text(static_cast<kernel::Verb>(verb));
      if (value == name) return static_cast<int64_t>(verb) + 1;
      tried(name);
    }
  } else {
    for (int64_t kind = 1; kind < kMaxKinds; ++kind) {
      const std::string name = kernel::record_kind_text(static_cast<kernel::RecordKind>(kind));
      if (name == "unknown") continue;
      if (value == name) return kind;
      tried(name.c_str());
    }
  }
  return fail(std::string("no ") + field.name + " is called so; there are: " + known);
}

Result<Condition> verdict_condition(const std::string& value) {
  std::string known;
  for (const VerdictName& one : kVerdicts) {
    if (value == one.text || value == one.other) return Condition{one.sql, {}};
    known += std::string(known.empty() ? "" : ", ") + one.text;
  }
  return fail("no verdict is called so; there are: " + known);
}

Result<int64_t> parse_number(const std::string& value) {
  int64_t number = 0;
  const char* const end = value.data() + value.size();
  const auto [at, error] = std::from_chars(value.data(), end, number);
  if (value.empty() || error != std::errc() || at != end) return fail("not a number");
  return number;
}

Condition text_condition(const Field& field, const Operator& op, const std::string& value) {
  const std::string column = std::string("r.") + field.column;
  const std::string ids = std::string("(SELECT id FROM text WHERE value ") + op.sql + " ?)";
  if (field.type == Type::kRun)
    return {std::string("r.run IN (SELECT id FROM run WHERE name ") + op.sql + " ?)", {value}};
  if (field.type == Type::kCommand)
    return {"r.run IN (SELECT id FROM run WHERE command IN " + ids + ")", {value}};
  if (field.type == Type::kRule && !op.glob)  // several are joined by '+'
    return {
        column + " IN (SELECT id FROM text WHERE instr('+' || value || '+', '+' || ? || '+') > 0)",
        {value}};
  if (field.type != Type::kLabel) return {column + " IN " + ids, {value}};
  if (op.glob || value.find('*') != std::string::npos)
    return {column + " IN (SELECT text FROM label WHERE origin GLOB ?)", {value}};
  const std::string whole = value.substr(0, value.find(':') + 1) + '*';
  return {column + " IN (SELECT text FROM label WHERE origin IN (?, ?))", {value, whole}};
}

Result<Condition> value_condition(const Field& field, const Operator& op, const std::string& value,
                                  int64_t now_ns) {
  const std::string column = std::string("r.") + field.column;
  const std::string test = std::string(" ") + op.sql + " ?";
  if (field.type == Type::kId) {
    const size_t dash = value.rfind('-');
    if (dash == std::string::npos) return fail("an id is RUN-NUMBER");
    CG_TRY(const int64_t seq, parse_number(value.substr(dash + 1)));
    return Condition{"r.seq = ? AND r.run IN (SELECT id FROM run WHERE name = ?)",
                     {seq, value.substr(0, dash)}};
  }
  if (field.type == Type::kTime) {
    CG_TRY(const int64_t time, parse_time(value, now_ns));
    return Condition{column + test, {time}};
  }
  if (field.type == Type::kVerdict) return verdict_condition(value);
  if (field.type == Type::kName) {
    CG_TRY(const int64_t number, number_of_name(field, value));
    return Condition{column + " = ?", {number}};
  }
  CG_TRY(const int64_t number, parse_number(value));
  if (field.type == Type::kNumber) return Condition{"coalesce(" + column + ", 0)" + test, {number}};
  return Condition{"coalesce((SELECT o.error FROM record o WHERE o.of = r.pos), r.error, 0)" + test,
                   {number}};
}

// One comparison as SQL.
Result<Condition> compare(const Field& field, const Operator& op, const std::string& value,
                          int64_t now_ns) {
  const bool text = is_text(field);
  if (op.order && !is_ordered(field))
    return fail(std::string(field.name) + " has no order: use = != ~ !~");
  if (op.glob && !text) return fail(std::string(field.name) + " is not a text: use = and !=");
  Condition c;
  if (text) {
    c = text_condition(field, op, value);
  } else {
    CG_TRY(c, value_condition(field, op, value, now_ns));
  }
  c.sql = op.negated ? "NOT coalesce((" + c.sql + "), 0)" : "(" + c.sql + ")";
  return c;
}

class Parser {
 public:
  Parser(std::string_view text, int64_t now_ns) : text_(text), now_ns_(now_ns) {}

  Result<Condition> whole() {
    CG_TRY(Condition c, expression(0));
    c.by_kind = by_kind_;
    skip();
    if (at_ < text_.size()) return wrong("\"and\", \"or\" or the end is expected here");
    return c;
  }

 private:
  Error wrong(const std::string& what) const {
    return fail("where: character " + std::to_string(at_ + 1) + ": " + what);
  }
  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n'))
      ++at_;
  }
  static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  }
  std::string_view peek_word() {
    skip();
    size_t end = at_;
    while (end < text_.size() && is_letter(text_[end])) ++end;
    return text_.substr(at_, end - at_);
  }
  bool take_word(std::string_view word) {
    if (peek_word() != word) return false;
    at_ += word.size();
    return true;
  }

  Result<Condition> joined(int depth, const char* word, const char* sql, bool top) {
    CG_TRY(Condition left, top ? joined(depth, "and", " AND ", false) : factor(depth));
    while (take_word(word)) {
      CG_TRY(const Condition right, top ? joined(depth, "and", " AND ", false) : factor(depth));
      left.sql = "(" + left.sql + sql + right.sql + ")";
      left.values.insert(left.values.end(), right.values.begin(), right.values.end());
    }
    return left;
  }
  Result<Condition> expression(int depth) {
    if (depth > kMaxDepth) return wrong("nested too deep");
    return joined(depth, "or", " OR ", true);
  }

  Result<Condition> factor(int depth) {
    if (depth > kMaxDepth) return wrong("nested too deep");
    if (take_word("not")) {
      CG_TRY(Condition c, factor(depth + 1));
      c.sql = "NOT coalesce(" + c.sql + ", 0)";
      return c;
    }
    skip();
    if (at_ < text_.size() && text_[at_] == '(') {
      ++at_;
      CG_TRY(Condition c, expression(depth + 1));
      skip();
      if (at_ == text_.size() || text_[at_] != ')') return wrong("\")\" is missing");
      ++at_;
      return c;
    }
    return comparison();
  }

  Result<Condition> comparison() {
    if (++comparisons_ > kMaxComparisons) return wrong("more than 64 comparisons");
    const std::string_view word = peek_word();
    const Field* field = nullptr;
    for (const Field& one : kFields) {
      if (word == one.name) field = &one;
    }
    if (field == nullptr) {
      return wrong((word.empty() ? std::string("a field is expected here")
                                 : "\"" + std::string(word) + "\" is not a field") +
                   "; there are: " + where_fields());
    }
    by_kind_ = by_kind_ || std::strcmp(field->name, "kind") == 0;
    at_ += word.size();
    skip();
    const Operator* const op = operator_at(text_.substr(at_));
    if (op == nullptr) return wrong("an operator is expected here: = != ~ !~ < <= > >=");
    at_ += std::strlen(op->text);
    skip();
    const size_t start = at_;
    CG_TRY(const std::string value, read_value());
    Result<Condition> made = compare(*field, *op, value, now_ns_);
    if (made) return made;
    at_ = start;
    return wrong(made.error().what);
  }

  Result<std::string> read_value() {
    std::string value;
    if (at_ < text_.size() && text_[at_] == '"') {
      for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
        const bool quoted = text_[at_] == '\\' && at_ + 1 < text_.size() &&
                            (text_[at_ + 1] == '"' || text_[at_ + 1] == '\\');
        if (quoted) ++at_;
        value += text_[at_];
      }
      if (at_ == text_.size()) return wrong("the closing \" is missing");
      ++at_;
      return value;
    }
    while (at_ < text_.size() && text_[at_] != ' ' && text_[at_] != '\t' && text_[at_] != '\n' &&
           text_[at_] != ')' && text_[at_] != '"' && text_[at_] != '(')
      value += text_[at_++];
    if (value.empty()) return wrong("a value is expected here");
    return value;
  }

  std::string_view text_;
  int64_t now_ns_;
  size_t at_ = 0;
  int comparisons_ = 0;
  bool by_kind_ = false;
};

// "-2h": how long before now, in nanoseconds.
Result<int64_t> before_now(std::string_view text) {
  int64_t count = 0;
  const auto [at, error] = std::from_chars(text.data() + 1, text.data() + text.size(), count);
  const std::string_view unit(at, static_cast<size_t>(text.data() + text.size() - at));
  int64_t seconds = 0;
  for (const auto& [name, size] : {std::pair{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}}) {
    if (unit == name) seconds = size;
  }
  constexpr int64_t kLongestAgo_s = int64_t{100} * 366 * 86400;  // more does not fit in nanoseconds
  if (error != std::errc() || seconds == 0 || count < 0 || count > kLongestAgo_s / seconds)
    return fail("not a time before now: -15m, -2h, -7d (at most 36600d)");
  return count * seconds * kSecond;
}

}  // namespace

Status Condition::bind(Statement& statement, int first) const {
  for (size_t i = 0; i < values.size(); ++i) {
    const int at = first + static_cast<int>(i);
    if (const auto* number = std::get_if<int64_t>(&values[i])) {
      CG_CHECK(statement.bind(at, *number));
    } else {
      CG_CHECK(statement.bind(at, std::string_view(std::get<std::string>(values[i]))));
    }
  }
  return ok();
}

void Condition::add(const Condition& other) {
  sql = "(" + sql + " AND " + other.sql + ")";
  by_kind = by_kind || other.by_kind;
  values.insert(values.end(), other.values.begin(), other.values.end());
}

Result<Condition> compile_where(std::string_view expression, int64_t now_ns) {
  if (expression.size() > kMaxWhereBytes) return fail("where: longer than 4096 bytes");
  return Parser(expression, now_ns).whole();
}

Result<Condition> where_one(const std::string& name, const std::string& op_text,
                            const std::string& value, int64_t now_ns) {
  for (const Field& field : kFields) {
    if (name != field.name) continue;
    for (const Operator& op : kOperators) {
      if (op_text != op.text) continue;
      Result<Condition> made = compare(field, op, value, now_ns);
      if (!made) return fail("--" + name + ": " + made.error().what);
      return made;
    }
  }
  return fail("where: no such field or operator");
}

std::string where_fields() {
  std::string all;
  for (const Field& field : kFields) all += std::string(all.empty() ? "" : ", ") + field.name;
  return all;
}

Result<int64_t> parse_time(std::string_view text, int64_t now_ns) {
  if (text.starts_with('-')) {
    CG_TRY(const int64_t ago, before_now(text));
    return now_ns - ago;
  }
  // A date, or a date and a time in UTC, with or without seconds and their fraction.
  tm utc{};
  const std::string whole(text);
  const char* rest = ::strptime(whole.c_str(), "%Y-%m-%d", &utc);
  int64_t fraction = 0;
  if (rest != nullptr && *rest == 'T') {
    const char* const minutes = rest + 1;
    rest = ::strptime(minutes, "%H:%M:%S", &utc);
    if (rest == nullptr) rest = ::strptime(minutes, "%H:%M", &utc);
    if (rest != nullptr && *rest == '.') {
      int64_t unit = kSecond / 10;
      for (++rest; *rest >= '0' && *rest <= '9' && unit > 0; ++rest, unit /= 10)
        fraction += (*rest - '0') * unit;
    }
    if (rest != nullptr && *rest == 'Z') ++rest;
  }
  if (rest == nullptr || *rest != '\0')
    return fail("not a time: 2026-11-28, 2026-11-28T17:00:00Z, or before now: -2h");
  const int64_t seconds = ::timegm(&utc);
  if (seconds < 0 || seconds > INT64_MAX / kSecond - 1) return fail("a time from 1970 to 2262");
  return seconds * kSecond + fraction;
}

}  // namespace certgate::agentd
