// certgate request: the tool gate's client, for agents. Runs inside a sandbox.

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "agentd/cli/verbs.h"
#include "sandbox/fd.h"
#include "sandbox/launch.h"
#include "supervisor/gate_message.h"
#include "supervisor/tool_sources.h"

namespace certgate::agentd::cli {
namespace {

namespace json = boost::json;

constexpr int kNo = 1, kUsageError = 2, kCannotExec = 126;
constexpr const char* kUsage =
    "usage: certgate request --tool NAME [--arg TEXT | --arg-from N:START-END]… [--cwd DIR]\n"
    "                        [--intent TEXT] [--taint ORIGIN]… [--exec]\n\n"
    "Asks the supervisor, from inside a sandbox, whether a call of a tool is allowed.\n\n"
    "  --tool NAME           as the policy calls it\n"
    "  --arg TEXT            the next argument after the program's name\n"
    "  --arg-from N:S-E      the same, and it is bytes S to E of the user's message N\n"
    "  --cwd DIR             where it will run (default: the current directory)\n"
    "  --intent TEXT         what it is for; recorded, never trusted\n"
    "  --taint ORIGIN        what else has influenced you, like web:page.test; only adds\n"
    "  --exec                with a permit, become that call at once\n\n"
    "Prints the answer, one line of JSON; \"asks\" in a permit: the call itself will wait for an\n"
    "operator. Exit status: 0 permit, 1 refusal, 2 wrong usage or no "
    "gate; with --exec\n"
    "the call's own, 126 when it could not be executed.\n";

struct Asked {
  json::object request{{"v", 1}};
  bool exec = false;
};

Result<std::string> message_bytes(const kernel::ArgumentSource& source) {
  const std::string path =
      std::string(sandbox::kGateMessages) + "/" + std::to_string(source.message);
  std::FILE* file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) return fail_errno("read " + path, errno);
  std::string text(1 << 20, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  if (source.start > source.end || source.end > text.size())
    return fail(fmt::format("message {} has {} bytes", source.message, text.size()));
  return text.substr(source.start, source.end - source.start);
}

Status add_argument_from(const std::string& text, json::array& args) {
  CG_TRY(const kernel::ArgumentSource source, supervisor::parse_source("0=user@" + text));
  CG_TRY(const std::string value, message_bytes(source));
  args.push_back(json::object{
      {"value", value},
      {"from",
       json::object{{"message", source.message}, {"start", source.start}, {"end", source.end}}}});
  return ok();
}

Result<Asked> parse(const Args& args) {
  Asked out;
  json::array arguments, taint;
  std::vector<char> here(4096);
  if (::getcwd(here.data(), here.size()) != nullptr) out.request["cwd"] = here.data();
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--exec") {
      out.exec = true;
      continue;
    }
    const std::string& name = args[i];
    if (i + 1 >= args.size()) return fail(name + " needs a value");
    const std::string& value = args[++i];
    if (name == "--tool" || name == "--intent" || name == "--cwd") {
      out.request[name.substr(2)] = value;
    } else if (name == "--arg") {
      arguments.push_back(json::object{{"value", value}});
    } else if (name == "--arg-from") {
      CG_CHECK(add_argument_from(value, arguments));
    } else if (name == "--taint") {
      taint.emplace_back(value);
    } else {
      return fail("no such option: " + name);
    }
  }
  if (!out.request.contains("tool")) return fail("--tool says which");
  out.request["args"] = std::move(arguments);
  if (!taint.empty()) out.request["taint"] = std::move(taint);
  return out;
}

Result<std::string> ask(const std::string& line) {
  const char* where = std::getenv(sandbox::kGateVariable);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (where == nullptr || std::strlen(where) >= sizeof name.sun_path)
    return fail(
        "no tool gate here: CERTGATE_SOCKET is not set (the policy has no tools, or this "
        "is no sandbox)");
  std::strcpy(name.sun_path, where);
  const sandbox::UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // NOLINTNEXTLINE: the socket API's own cast
  if (!socket ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0)
    return fail_errno(std::string("connect to ") + where, errno);
  for (size_t at = 0; at < line.size();) {
    const ssize_t n = ::send(socket.get(), line.data() + at, line.size() - at, MSG_NOSIGNAL);
    if (n <= 0) return fail_errno("ask", errno);
    at += static_cast<size_t>(n);
  }
  std::string answer;
  char block[4096];
  while (!answer.ends_with('\n') && answer.size() < 2 * supervisor::kMaxGateLine) {
    const ssize_t n = ::recv(socket.get(), block, sizeof block, 0);
    if (n <= 0) return fail("the tool gate closed the connection");
    answer.append(block, static_cast<size_t>(n));
  }
  return answer;
}

int become(const json::object& permit) {
  const std::string program = json::value_to<std::string>(permit.at("program"));
  auto argv = json::value_to<std::vector<std::string>>(permit.at("argv"));
  std::vector<char*> pointers;
  for (std::string& argument : argv) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  ::execv(program.c_str(), pointers.data());
  fmt::print(stderr, "certgate: {}: {}\n", escape(program), std::strerror(errno));
  return kCannotExec;
}

}  // namespace

int request_main(const Args& args) {
  if (args.size() == 1 && (args[0] == "--help" || args[0] == "-h")) {
    std::fputs(kUsage, stdout);
    return 0;
  }
  const auto trouble = [](const std::string& what) {
    fmt::print(stderr, "certgate: {}\n", escape(what));
    return kUsageError;
  };
  try {
    const auto asked = parse(args);
    if (!asked) return trouble(asked.error().what + "; see certgate request --help");
    const auto answer = ask(json::serialize(asked->request) + "\n");
    if (!answer) return trouble(answer.error().what);
    const json::value value = json::parse(*answer);
    const json::value* permit = value.as_object().if_contains("permit");
    if (permit != nullptr && asked->exec) return become(permit->as_object());
    std::fputs(answer->c_str(), asked->exec ? stderr : stdout);
    return permit != nullptr ? 0 : value.as_object().contains("refusal") ? kNo : kUsageError;
  } catch (const std::exception& e) {
    return trouble(std::string("the tool gate's answer: ") + e.what());
  }
}

}  // namespace certgate::agentd::cli
