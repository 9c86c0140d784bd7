#include "supervisor/gate_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>

#include "kernel/cbor.h"

namespace certgate::supervisor {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 8;
constexpr size_t kMaxPath = 4096;

// One object whose keys are each taken once; what is left over is an error.
class Object {
 public:
  static Result<Object> of(const json::value& value, const char* what) {
    if (!value.is_object()) return fail(std::string(what) + " must be an object");
    return Object(value.get_object(), what);
  }
  const json::value* take(const char* key) {
    const json::value* found = object_.if_contains(key);
    taken_ += found != nullptr ? 1 : 0;
    return found;
  }
  Result<std::string> text(const char* key, size_t max) {
    const json::value* found = take(key);
    if (found == nullptr) return std::string();
    if (!found->is_string() || found->get_string().size() > max ||
        found->get_string().find('\0') != json::string::npos)
      return fail(fmt::format("'{}' of {} must be a string of at most {} bytes without NUL", key,
                              what_, max));
    const json::string& text = found->get_string();
    return std::string(text.data(), text.size());
  }
  Result<uint64_t> number(const char* key, uint64_t max) {
    const json::value* found = take(key);
    const bool whole = found != nullptr && found->is_int64() && found->get_int64() >= 0;
    if (!whole || static_cast<uint64_t>(found->get_int64()) > max)
      return fail(fmt::format("'{}' of {} must be a whole number up to {}", key, what_, max));
    return static_cast<uint64_t>(found->get_int64());
  }
  Status done() const {
    if (taken_ != object_.size()) return fail(std::string(what_) + " has an unknown key");
    return ok();
  }

 private:
  Object(const json::object& object, const char* what) : object_(object), what_(what) {}
  const json::object& object_;
  const char* what_;
  size_t taken_ = 0;
};

Status read_source(const json::value& value, uint32_t argument, GateRequest& out) {
  CG_TRY(Object object, Object::of(value, "'from'"));
  kernel::ArgumentSource source;
  source.argument = argument;
  CG_TRY(const uint64_t message, object.number("message", UINT32_MAX));
  source.message = static_cast<uint32_t>(message);
  CG_TRY(source.start, object.number("start", INT64_MAX));
  CG_TRY(source.end, object.number("end", INT64_MAX));
  CG_CHECK(object.done());
  out.sources.push_back(source);
  return ok();
}

Status read_args(const json::value* args, GateRequest& out) {
  if (args == nullptr) return ok();
  if (!args->is_array() || args->get_array().size() > kMaxGateArgs)
    return fail("'args' must be a list of at most 512 arguments");
  for (const json::value& value : args->get_array()) {
    CG_TRY(Object object, Object::of(value, "an argument"));
    if (!value.get_object().contains("value")) return fail("an argument needs 'value'");
    CG_TRY(std::string text, object.text("value", kernel::kMaxToolBytes));
    out.args.push_back(std::move(text));
    if (const json::value* from = object.take("from"))
      CG_CHECK(read_source(*from, static_cast<uint32_t>(out.args.size()), out));
    CG_CHECK(object.done());
  }
  return ok();
}

Status read_taint(const json::value* taint, GateRequest& out) {
  if (taint == nullptr) return ok();
  if (!taint->is_array() || taint->get_array().size() > kMaxGateTaint)
    return fail("'taint' must be a list of at most 16 origins");
  std::vector<kernel::Origin> origins;
  for (const json::value& value : taint->get_array()) {
    if (!value.is_string()) return fail("'taint' must hold origins like \"web:page.test\"");
    const json::string& text = value.get_string();
    CG_TRY(kernel::Origin origin, kernel::Origin::parse({text.data(), text.size()}));
    origins.push_back(std::move(origin));
  }
  out.taint = kernel::Label::of(std::move(origins));
  return ok();
}

Result<GateRequest> read_request(const json::value& value) {
  CG_TRY(Object object, Object::of(value, "a request"));
  GateRequest out;
  CG_TRY(const uint64_t version, object.number("v", 1));
  if (version != 1) return fail("'v' of a request must be 1");
  CG_TRY(out.tool, object.text("tool", 256));
  if (out.tool.empty()) return fail("a request needs 'tool'");
  CG_CHECK(read_args(object.take("args"), out));
  CG_TRY(out.cwd, object.text("cwd", kMaxPath));
  if (!out.cwd.empty() && out.cwd[0] != '/') return fail("'cwd' must be an absolute path");
  CG_TRY(out.intent, object.text("intent", kMaxIntentBytes));
  CG_CHECK(read_taint(object.take("taint"), out));
  CG_CHECK(object.done());
  return out;
}

// Two values for one key could be read differently by two readers; the parser keeps the last.
bool has_doubled_key(std::string_view line, const json::value& value) {
  // In JSON that was read, each member has the one colon outside strings.
  size_t written = 0, depth_keys = 0;
  bool in_string = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (in_string && line[i] == '\\') {
      ++i;
    } else if (line[i] == '"') {
      in_string = !in_string;
    } else if (!in_string && line[i] == ':') {
      ++written;
    }
  }
  const auto count = [&depth_keys](const json::value& v, const auto& self) -> void {
    if (v.is_object()) {
      depth_keys += v.get_object().size();
      for (const auto& member : v.get_object()) self(member.value(), self);
    } else if (v.is_array()) {
      for (const auto& item : v.get_array()) self(item, self);
    }
  };
  count(value, count);
  return written != depth_keys;
}

// Arguments are bytes, JSON is text: what is not UTF-8 is shown as '?'.
json::string text_of(const std::string& bytes) {
  json::string out;
  const auto* data = reinterpret_cast<const uint8_t*>(bytes.data());  // NOLINT: octets
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = data[i] < 0x80 ? 1 : kernel::utf8_length(data + i, bytes.size() - i);
    length == 0 ? out.append("?") : out.append(std::string_view(bytes).substr(i, length));
    i += std::max<size_t>(length, 1);
  }
  return out;
}

struct Help {
  kernel::Reason reason;
  const char* text;
};
// What the agent can do; rules and labels of others are the operator's to know.
constexpr Help kHelp[] = {
    {kernel::Reason::kUntrustedOrigin,
     "bind the argument to bytes of a message of the user with 'from', or have a process that has "
     "not read what it came from make the call"},
    {kernel::Reason::kSchemaBreakout, "spell the call as the tool has it"},
    {kernel::Reason::kToolMismatch, "the program on the disk is not the one the operator pinned"},
    {kernel::Reason::kProvenanceLoss,
     "name the message and the bytes of it that the argument is, exactly"},
    {kernel::Reason::kScopeMissing, "no tool of this name is granted"},
};

}  // namespace

Result<GateRequest> parse_gate_request(std::string_view line) {
  if (line.size() > kMaxGateLine) return fail("a request is longer than 128 KiB");
  try {
    json::parse_options options;
    options.max_depth = kMaxDepth;
    boost::system::error_code error;
    const json::value value = json::parse(line, error, {}, options);
    if (error) return fail("not JSON: " + error.message());
    if (has_doubled_key(line, value)) return fail("a key is given twice");
    return read_request(value);
  } catch (const std::exception& e) {  // the library's own, when memory is short
    return fail(std::string("not readable: ") + e.what());
  }
}

std::string gate_answer(const GatePermit& permit) {
  json::object body;
  body["id"] = permit.id;
  body["tool"] = text_of(permit.tool);
  body["program"] = text_of(permit.program);
  json::array argv;
  for (const std::string& argument : permit.argv) argv.emplace_back(text_of(argument));
  body["argv"] = std::move(argv);
  std::string hex;
  for (const uint8_t byte : permit.sha256) hex += fmt::format("{:02x}", byte);
  body["sha256"] = hex;
  body["label"] = text_of(permit.label);
  body["sources"] = permit.sources;
  body["expires_ms"] = permit.expires_ms;
  if (permit.asks)
    body["asks"] =
        json::object{{"rule", text_of(permit.asks->rule)}, {"why", text_of(permit.asks->why)}};
  return json::serialize(json::object{{"permit", std::move(body)}}) + "\n";
}

std::string gate_answer(const std::string& id, const kernel::Refusal& refusal) {
  json::object body;
  body["id"] = id;
  body["code"] = kernel::reason_text(refusal.reason);
  body["why"] = text_of(refusal.why);
  body["at"] = text_of(refusal.argument);
  const auto* help = std::find_if(std::begin(kHelp), std::end(kHelp),
                                  [&](const Help& h) { return h.reason == refusal.reason; });
  body["help"] = help != std::end(kHelp) ? help->text : "the operator's log says more";
  return json::serialize(json::object{{"refusal", std::move(body)}}) + "\n";
}

std::string gate_error(const std::string& what) {
  return json::serialize(json::object{{"error", text_of(what)}}) + "\n";
}

}  // namespace certgate::supervisor
