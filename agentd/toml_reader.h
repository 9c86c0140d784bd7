// A strict view of a TOML table: each key is taken once, what is left over is an error with its
// place.
//
//   TableReader rule(file, table);
//   std::string id;
//   rule.text("id", id, Need::kRequired);
//   rule.done();                          // unknown keys
//   if (file.error) return *file.error;   // the first error: "a.toml:3:5: …"
#pragma once

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
// toml++ 3.3 asserts on some malformed input ("[/") before it reports the error: a policy file must
// never abort us, in any build.
#define TOML_ASSERT(expr) static_cast<void>(0)
#include <toml++/toml.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "kernel/result.h"

namespace certgate::agentd {

enum class Need : uint8_t { kOptional, kRequired };

// One file being read; keeps the first error.
struct TomlFile {
  std::string path;
  std::optional<Error> error;

  std::string place(const toml::source_region& at) const {
    return path + ":" + std::to_string(at.begin.line) + ":" + std::to_string(at.begin.column);
  }
  void complain(const toml::source_region& at, const std::string& what) {
    if (!error) error = fail(place(at) + ": " + what);
  }
};

class TableReader {
 public:
  TableReader(TomlFile& file, const toml::table& table, std::string what)
      : file_(file), table_(table), what_(std::move(what)) {}

  bool text(const char* key, std::string& out, Need need) {
    const toml::node* node = take(key, need);
    if (node == nullptr) return false;
    const auto value = node->value_exact<std::string>();
    if (!value || value->size() > kMaxText) {
      file_.complain(node->source(),
                     std::string("'") + key + "' must be a string of at most 4096 bytes");
      return false;
    }
    out = *value;
    return true;
  }

  bool number(const char* key, uint64_t& out) {
    const toml::node* node = take(key, Need::kOptional);
    if (node == nullptr) return false;
    const auto value = node->value_exact<int64_t>();
    if (!value || *value < 1) {
      file_.complain(node->source(), std::string("'") + key + "' must be a whole number from 1");
      return false;
    }
    out = static_cast<uint64_t>(*value);
    return true;
  }

  bool texts(const char* key, std::vector<std::string>& out, Need need) {
    const toml::node* node = take(key, need);
    if (node == nullptr) return false;
    return texts_of(*node, key, out);
  }

  // An array of arrays of strings.
  bool text_lists(const char* key, std::vector<std::vector<std::string>>& out) {
    const toml::node* node = take(key, Need::kOptional);
    if (node == nullptr) return false;
    const toml::array* array = node->as_array();
    if (array == nullptr || array->empty() || array->size() > kMaxItems) {
      file_.complain(node->source(),
                     std::string("'") + key + "' must be a list of lists of strings");
      return false;
    }
    for (const toml::node& item : *array) {
      if (!texts_of(item, key, out.emplace_back())) return false;
    }
    return true;
  }

  const toml::node* take(const char* key, Need need) {
    taken_.insert(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr && need == Need::kRequired) {
      file_.complain(table_.source(), what_ + " needs '" + key + "'");
    }
    return node;
  }

  // Every key that nobody took is an error.
  void done() {
    for (const auto& [key, node] : table_) {
      if (taken_.contains(std::string(key.str()))) continue;
      std::string known;
      for (const std::string& k : taken_) known += (known.empty() ? "" : ", ") + k;
      file_.complain(key.source(), "unknown key '" + std::string(key.str()) + "' in " + what_ +
                                       "; known are: " + known);
    }
  }

  toml::source_region source(const char* key) const {
    const toml::node* node = table_.get(key);
    return node != nullptr ? node->source() : table_.source();
  }

 private:
  static constexpr size_t kMaxText = 4096;
  static constexpr size_t kMaxItems = 4096;

  bool texts_of(const toml::node& node, const char* key, std::vector<std::string>& out) {
    const toml::array* array = node.as_array();
    if (array == nullptr || array->empty() || array->size() > kMaxItems) {
      file_.complain(node.source(),
                     std::string("'") + key + "' must be a list of strings that is not empty");
      return false;
    }
    for (const toml::node& item : *array) {
      const auto value = item.value_exact<std::string>();
      if (!value || value->size() > kMaxText) {
        file_.complain(item.source(),
                       std::string("'") + key + "' must hold strings of at most 4096 bytes");
        return false;
      }
      out.push_back(*value);
    }
    return true;
  }

  TomlFile& file_;
  const toml::table& table_;
  const std::string what_;
  std::set<std::string> taken_;
};

}  // namespace certgate::agentd
