#include "agentd/run_given.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "agentd/tool_file.h"
#include "kernel/merkle.h"
#include "sandbox/fd.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

using supervisor::escape;

Result<std::string> read_message(const std::string& path) {
  const std::string name = "message " + escape(path);
  const sandbox::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  struct stat s {};
  if (!fd || ::fstat(fd.get(), &s) != 0) return fail_errno(name, errno);
  if (S_ISDIR(s.st_mode)) return fail(name + " is a directory; name a file");
  std::string text(kMaxMessageBytes + 1, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0) return fail_errno(name, errno);
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size > kMaxMessageBytes) return fail(name + " is larger than 1 MiB; give a shorter one");
  text.resize(size);
  return text;
}

kernel::Record given(std::string object, const kernel::Digest& digest, std::string tool = {}) {
  kernel::Record out;
  out.object = std::move(object);
  out.tool = std::move(tool);
  out.sha256.assign(digest.begin(), digest.end());
  return out;
}

}  // namespace

Status add_given(const RunOptions& options, RunPlan& plan) {
  kernel::Policy& policy = plan.policy.policy;
  CG_CHECK(pin_tools(policy));
  for (const kernel::Tool& tool : policy.tools) {
    if (tool.pin == kernel::Tool::Pin::kAtStart)
      plan.given.push_back(given(tool.program, tool.sha256, tool.name));
  }
  if (options.messages.size() > kMaxMessages) return fail("more than 16 messages");
  for (const std::string& path : options.messages) {
    CG_TRY(std::string text, read_message(path));
    const kernel::Digest digest = kernel::sha256(text.data(), text.size());
    plan.given.push_back(given("message " + std::to_string(plan.spec.messages.size()), digest));
    plan.spec.messages.push_back(std::move(text));
  }
  if (!options.messages.empty())
    plan.initial = plan.initial.join(kernel::Label::of({{kernel::OriginClass::kUser, ""}}));
  plan.spec.gate = !policy.tools.empty() || !plan.spec.messages.empty();
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (plan.spec.gate && !error) plan.spec.gate_program = program.string();
  return ok();
}

}  // namespace certgate::agentd
