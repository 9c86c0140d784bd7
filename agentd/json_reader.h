// A strict view of JSON settings: each value with its path, so that what is not understood is
// named.
//
//   CG_TRY(const boost::json::value settings, parse_json(text));
//   JsonObjectView top(settings.as_object(), "");
//   CG_CHECK(top.texts("allow", [&](const std::string& text, const std::string& path) { … }));
//   for (const std::string& path : top.rest()) …
#pragma once

#include <boost/json/value.hpp>
#include <functional>
#include <string>
#include <vector>

#include "kernel/result.h"

namespace certgate::agentd {

// At most 1 MiB, 32 levels; comments and trailing commas as people write them in settings.
Result<boost::json::value> parse_json(const std::string& text);

class JsonView {
 public:
  JsonView(const boost::json::object& object, std::string path)
      : object_(object), path_(std::move(path)) {}

  std::string path(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  const boost::json::value* take(const std::string& key);
  // Nothing when it is not there; an error when it is of another type.
  Result<const boost::json::object*> object(const std::string& key);
  Status texts(const std::string& key,
               const std::function<void(const std::string& text, const std::string& path)>& each);
  Status pairs(const std::string& key,
               const std::function<void(const std::string& name, const std::string& value,
                                        const std::string& path)>& each);
  Result<bool> flag(const std::string& key);
  // Paths of what nobody took.
  std::vector<std::string> rest() const;

 private:
  const boost::json::object& object_;
  const std::string path_;
  std::vector<std::string> taken_;
};

}  // namespace certgate::agentd
