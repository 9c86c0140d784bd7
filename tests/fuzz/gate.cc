// Requests to the tool gate: what the agent writes there is anything. What is read says the same
// when it is written again, and what is answered is one line.
#include <boost/json.hpp>

#include "supervisor/gate_message.h"
#include "supervisor/tool_sources.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;

namespace {

std::string written(const supervisor::GateRequest& request) {
  namespace json = boost::json;
  json::array args;
  size_t next = 0;
  for (size_t i = 0; i < request.args.size(); ++i) {
    json::object one{{"value", request.args[i]}};
    if (next < request.sources.size() && request.sources[next].argument == i + 1) {
      const kernel::ArgumentSource& source = request.sources[next++];
      one["from"] = json::object{{"message", source.message},
                                 {"start", static_cast<int64_t>(source.start)},
                                 {"end", static_cast<int64_t>(source.end)}};
    }
    args.push_back(std::move(one));
  }
  json::object out{{"v", 1},
                   {"tool", request.tool},
                   {"args", std::move(args)},
                   {"cwd", request.cwd},
                   {"intent", request.intent}};
  json::array taint;
  for (const kernel::Origin& origin : request.taint.origins()) taint.emplace_back(origin.text());
  out["taint"] = std::move(taint);
  return json::serialize(out);
}

}  // namespace

FUZZ_TARGET(gate) {
  const std::string line(reinterpret_cast<const char*>(data), size);  // NOLINT: octets
  const auto request = supervisor::parse_gate_request(line);
  if (!request) {
    const std::string answer = supervisor::gate_error(request.error().what);
    CG_LAW(answer.find('\n') == answer.size() - 1);
    return 0;
  }
  CG_LAW(!request->tool.empty() && request->args.size() <= supervisor::kMaxGateArgs);
  for (const kernel::ArgumentSource& source : request->sources) {
    CG_LAW(source.argument >= 1 && source.argument <= request->args.size());
    const auto again = supervisor::parse_source(supervisor::source_text(source));
    CG_LAW(again && *again == source);
  }
  const std::string text = written(*request);
  if (text.size() > supervisor::kMaxGateLine) return 0;  // escapes are longer than what they escape
  const auto again = supervisor::parse_gate_request(text);
  CG_LAW(again && *again == *request);
  return 0;
}
