#include "agentd/json_reader.h"

// Header-only: one translation unit holds the library's code.
#include <algorithm>
#include <boost/json/src.hpp>

#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

namespace json = boost::json;

constexpr size_t kMaxBytes = 1 << 20;
constexpr size_t kMaxDepth = 32;

}  // namespace

Result<json::value> parse_json(const std::string& text) {
  if (text.size() > kMaxBytes) return fail("larger than 1 MiB");
  json::parse_options options;
  options.max_depth = kMaxDepth;
  options.allow_comments = true;
  options.allow_trailing_commas = true;
  boost::system::error_code error;
  json::value out = json::parse(text, error, {}, options);
  if (error) return fail("not JSON: " + error.message());
  if (!out.is_object()) return fail("not a JSON object");
  return out;
}

const json::value* JsonView::take(const std::string& key) {
  taken_.push_back(key);
  return object_.if_contains(key);
}

Result<const json::object*> JsonView::object(const std::string& key) {
  const json::value* value = take(key);
  if (value == nullptr) return static_cast<const json::object*>(nullptr);
  if (!value->is_object()) return fail(path(key) + " is no object");
  return &value->get_object();
}

Status JsonView::texts(const std::string& key,
                       const std::function<void(const std::string&, const std::string&)>& each) {
  const json::value* value = take(key);
  if (value == nullptr) return ok();
  if (!value->is_array()) return fail(path(key) + " is no list of strings");
  size_t i = 0;
  for (const json::value& item : value->get_array()) {
    const std::string at = path(key) + "[" + std::to_string(i++) + "]";
    if (!item.is_string()) return fail(at + " is no string");
    each(std::string(item.get_string().c_str(), item.get_string().size()), at);
  }
  return ok();
}

Status JsonView::pairs(
    const std::string& key,
    const std::function<void(const std::string&, const std::string&, const std::string&)>& each) {
  CG_TRY(const json::object* pairs, object(key));
  if (pairs == nullptr) return ok();
  for (const json::key_value_pair& pair : *pairs) {
    const std::string name(pair.key().data(), pair.key().size());
    const std::string at = path(key) + "." + name;
    if (!pair.value().is_string()) return fail(supervisor::escape(at) + " is no string");
    each(name, std::string(pair.value().get_string().c_str(), pair.value().get_string().size()),
         at);
  }
  return ok();
}

Result<bool> JsonView::flag(const std::string& key) {
  const json::value* value = take(key);
  if (value == nullptr) return false;
  if (!value->is_bool()) return fail(path(key) + " is neither true nor false");
  return value->get_bool();
}

std::vector<std::string> JsonView::rest() const {
  std::vector<std::string> out;
  for (const json::key_value_pair& pair : object_) {
    const std::string key(pair.key().data(), pair.key().size());
    if (std::find(taken_.begin(), taken_.end(), key) == taken_.end()) out.push_back(path(key));
  }
  return out;
}

}  // namespace certgate::agentd
